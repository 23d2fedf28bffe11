"""Whether the timer runs, and sees what this shell sees."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from edge_client.configuration import ENVIRONMENT_PREFIX
from edge_client.home import ENVIRONMENT_VARIABLE, Home
from edge_client.service.plan import Scope, plan_service
from edge_client.service.platforms import service_manager
from edge_client.service.systemd import Installed, service_unit
from nightshift.host.findings import Finding
from nightshift.protocol.errors import ExitCode, NightshiftError

_SHELL_ONLY = ("https_proxy", "http_proxy", "no_proxy", "grpc_proxy", "no_grpc_proxy")


def check_service(home: Home) -> Iterator[Finding]:
    """The service for this home."""
    scope = Scope.SYSTEM if home == Home.system() else Scope.USER
    try:
        installed = service_manager(scope).status()
    except NightshiftError as error:
        yield Finding.warning("service", str(error), "a timer of your own may call: edge-client run")
        return
    if not installed.files:
        yield Finding.warning("service", "not installed: no pass runs by itself", "edge-client service install")
        return
    if installed.active is False:
        yield Finding.problem(
            "service", "installed, but its timer does not run", "edge-client service install", ExitCode.USAGE
        )
    else:
        yield Finding.ok("service", f"installed; next pass {installed.next_run or 'as its timer says'}")
    yield from same_configuration(home, scope, installed, os.environ)


def same_configuration(
    home: Home, scope: Scope, installed: Installed, environment: Mapping[str, str]
) -> Iterator[Finding]:
    """Compare what the service was told with this shell."""
    unit = next((file for file in installed.files if file.suffix == ".service"), None)
    if unit is not None and not _is_current(unit, home, scope):
        yield Finding.problem(
            "service's configuration",
            f"{unit} is for another home or another installation of this program",
            "edge-client service install",
            ExitCode.USAGE,
        )
    unseen = _unseen(environment, _environment_of(installed.files))
    if unseen:
        yield Finding.problem(
            "service's configuration",
            f"this shell sets {', '.join(unseen)}, the service does not see it",
            "write settings into config.toml; a proxy: systemctl edit nightshift-edge.service, Environment=…",
            ExitCode.USAGE,
        )
    elif unit is None or _is_current(unit, home, scope):
        yield Finding.ok("service's configuration", f"as here: {home.config_file}")


def _is_current(unit: Path, home: Home, scope: Scope) -> bool:
    """Whether the unit is what `service install` would write now."""
    try:
        return unit.read_text("utf-8") == service_unit(plan_service(scope, home))
    except (OSError, NightshiftError):
        return False


def _unseen(environment: Mapping[str, str], seen: set[str]) -> list[str]:
    """Variables that change what a pass does, and that only this shell has."""
    ours = [name for name in environment if name.startswith(ENVIRONMENT_PREFIX) or name in _SHELL_ONLY]
    return sorted(name for name in ours if name not in seen and name != ENVIRONMENT_VARIABLE)


def _environment_of(files: Sequence[Path]) -> set[str]:
    """Names of the variables that unit files and what `systemctl edit` wrote beside them set."""
    texts = []
    for file in files:
        beside = Path(f"{file}.d")
        for path in [file, *(sorted(beside.glob("*.conf")) if beside.is_dir() else [])]:
            texts.append(path.read_text("utf-8", errors="replace"))
    return set(re.findall(r'^Environment="?([A-Za-z_]+)=', "\n".join(texts), re.MULTILINE))
