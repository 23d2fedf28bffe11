"""A launch agent for macOS: the same nightly pass, called by launchd.

launchd has no random delay, so the minute is drawn once, at installation; it calls a pass that
was missed in sleep once after waking.
"""

from __future__ import annotations

import os
import plistlib
import random
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_client.service.plan import FIRST_HOUR, LAST_HOUR, Scope, ServicePlan
from edge_client.service.systemd import Installed
from nightshift.host.files import write_atomic
from nightshift.protocol.errors import NightshiftError, UsageError

LABEL = "nightshift.edge-client"
LATEST_MINUTE = 50

Run = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


def property_list(plan: ServicePlan, *, minute: int, log: Path) -> bytes:
    """The agent's property list (launchd.plist(5)).

    Args:
        plan: what to run.
        minute: past each hour.
        log: takes what a pass says; macOS has no journal for agents.
    """
    content: dict[str, object] = {
        "Label": LABEL,
        "ProgramArguments": plan.arguments,
        "StartCalendarInterval": [{"Hour": hour, "Minute": minute} for hour in range(FIRST_HOUR, LAST_HOUR + 1)],
        "ProcessType": "Background",
        "LowPriorityIO": True,
        "Nice": 10,
        "Umask": 0o077,
        "ExitTimeOut": 20,
        "StandardOutPath": str(log),
        "StandardErrorPath": str(log),
    }
    if plan.home:
        content["EnvironmentVariables"] = {"NIGHTSHIFT_HOME": plan.home}
    return plistlib.dumps(content)


def log_file(plan: ServicePlan) -> Path:
    """Where an agent's passes say what they did."""
    return plan.home_directories[0] / "service.log"


@dataclass(frozen=True, slots=True)
class Launchd:
    """The user's launch agent.

    Attributes:
        file: its property list.
        run: runs launchctl.
    """

    file: Path
    run: Run

    @classmethod
    def of(cls, scope: Scope) -> Launchd:
        """The agents of this user.

        Raises:
            UsageError: a system service was asked for.
        """
        if scope is Scope.SYSTEM:
            raise UsageError("on macOS the service is the user's own; leave --system away")
        return cls(Path(f"~/Library/LaunchAgents/{LABEL}.plist").expanduser(), _run)

    def install(self, plan: ServicePlan) -> Installed:
        """Write the agent and load it.

        Raises:
            NightshiftError: launchd refused.
        """
        self.file.parent.mkdir(parents=True, exist_ok=True)
        minute = random.randrange(LATEST_MINUTE)  # noqa: S311 - spreads load, guards nothing
        self.run(["launchctl", "bootout", f"{_domain()}/{LABEL}"])  # one that is loaded keeps its old list
        write_atomic(self.file, property_list(plan, minute=minute, log=log_file(plan)), mode=0o644)
        done = self.run(["launchctl", "bootstrap", _domain(), str(self.file)])
        if done.returncode:
            raise NightshiftError(f"launchctl bootstrap failed: {done.stderr.strip() or done.returncode}")
        return self.status()

    def uninstall(self) -> bool:
        """Unload and remove the agent; False if there was none."""
        if not self.file.exists():
            return False
        self.run(["launchctl", "bootout", f"{_domain()}/{LABEL}"])
        self.file.unlink()
        return True

    def status(self) -> Installed:
        """What launchd says of it."""
        loaded = self.run(["launchctl", "print", f"{_domain()}/{LABEL}"]).returncode == 0
        return Installed("launchd", (self.file,) if self.file.exists() else (), loaded)


def _domain() -> str:
    return f"gui/{os.getuid()}"


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - launchctl with fixed arguments, no shell
        command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
    )
