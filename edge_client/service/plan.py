"""What a service is told to run, whichever program runs it."""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from edge_client import home as homes
from edge_client.home import Home
from nightshift.protocol.errors import UsageError

FIRST_HOUR, LAST_HOUR = 1, 6
"""The timer fires at these hours and those between, local time; most firings find nothing to do."""


class Scope(Enum):
    """Whose service it is.

    USER runs as the person who installs it, SYSTEM as a user of its own with the
    directories of the system.
    """

    USER = "user"
    SYSTEM = "system"


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """One nightly pass, as a service manager is told of it.

    Attributes:
        scope: whose.
        program: absolute path of `edge-client`.
        home: value of NIGHTSHIFT_HOME; empty for the user's own directories.
        home_directories: that the service writes to.
    """

    scope: Scope
    program: Path
    home: str
    home_directories: tuple[Path, ...]

    @property
    def arguments(self) -> list[str]:
        """The command line."""
        return [str(self.program), "run"]


def plan_service(scope: Scope, home: Home) -> ServicePlan:
    """What to install for a home directory.

    Args:
        scope: whose service.
        home: that its passes use.

    Raises:
        UsageError: the program is not installed where a service can find it, or a system service
            is asked for a user's home.
    """
    program = Path(sys.executable).with_name("edge-client")
    if not os.access(program, os.X_OK):
        raise UsageError(
            f"there is no program {program}; install this package (scripts/install.sh) and call its edge-client"
        )
    system = Home.system()
    if (scope is Scope.SYSTEM) is not (home == system):
        raise UsageError(
            "a system service keeps everything in the system's directories, a user's in the user's: add both "
            f"--system and --home {homes.SYSTEM}, or neither"
        )
    if scope is Scope.SYSTEM:
        return ServicePlan(scope, program, homes.SYSTEM, (system.state, system.cache))
    usual = home == Home.users()
    return ServicePlan(scope, program, "" if usual else str(home.state), (home.state, home.cache))


def require_open_to_all(*programs: Path) -> None:
    """Refuse what the service's own user could not start, such as a program in root's home.

    Args:
        programs: absolute paths; each is looked at with all directories on the way.

    Raises:
        UsageError: one of them is closed to others than its owner.
    """
    for program in programs:
        for path in (program, *program.parents):
            if not path.stat().st_mode & stat.S_IXOTH:
                raise UsageError(
                    f"the system's service runs as a user of its own, and {path} is closed to it; install for all "
                    "users: sudo scripts/install.sh --system (a Python in somebody's home will not do either)"
                )
