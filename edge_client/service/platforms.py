"""Where this program runs, and who calls it there."""

from __future__ import annotations

import platform
import struct
import sys
from typing import Protocol

from edge_client.service.plan import Scope, ServicePlan
from edge_client.service.systemd import Installed, Systemd, service_unit, timer_unit
from nightshift.protocol.errors import IncompatibleError


class ServiceManager(Protocol):
    """systemd or launchd."""

    def install(self, plan: ServicePlan) -> Installed:
        """Write what it needs and start its timer."""
        ...

    def uninstall(self) -> bool:
        """Remove it; False if there was nothing."""
        ...

    def status(self) -> Installed:
        """How it stands."""
        ...


def service_manager(scope: Scope) -> ServiceManager:
    """The service manager of this machine.

    Raises:
        UsageError: there is none, or it cannot do what is asked.
        IncompatibleError: this program does not run here.
    """
    require_supported()
    if sys.platform == "darwin":
        from edge_client.service.launchd import Launchd

        return Launchd.of(scope)
    return Systemd.of(scope)


def files_to_write(plan: ServicePlan, *, system: str = sys.platform) -> dict[str, str]:
    """What `install` would write, by kind; for a person to read first.

    Args:
        plan: what to run.
        system: as `sys.platform` says.
    """
    if system == "darwin":
        from edge_client.service.launchd import LATEST_MINUTE, log_file, property_list

        return {"agent": property_list(plan, minute=LATEST_MINUTE // 2, log=log_file(plan)).decode()}
    return {"service": service_unit(plan), "timer": timer_unit(plan)}


def require_supported(*, system: str = "", machine: str = "", pointer_bytes: int = 0) -> None:
    """Refuse, with the way on, where this program cannot work.

    Args:
        system: as `platform.system` says; this machine's by default.
        machine: as `platform.machine` says.
        pointer_bytes: of the interpreter.

    Raises:
        IncompatibleError: Windows, or a 32-bit system.
    """
    system, machine = system or platform.system(), machine or platform.machine()
    if system == "Windows":
        raise IncompatibleError(
            "Windows is not supported; run it in WSL 2 (a Linux inside Windows) or on another machine"
        )
    if (pointer_bytes or struct.calcsize("P")) < 8 or machine.startswith(("armv6", "armv7")):
        raise IncompatibleError(
            f"32-bit systems ({machine}) are not supported: numpy and onnxruntime have no wheels for them. On a "
            "Raspberry Pi 3 or newer install the 64-bit Raspberry Pi OS; a 64-bit kernel alone is not enough"
        )
