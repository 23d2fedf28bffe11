"""A oneshot service and its timer for systemd, and asking systemd about them.

The unit follows docs/adr/0017: no capability, a file system that is read-only but
for the device's own directories, system calls of `@system-service` and `adjtimex` (which
reads whether the clock is synchronised; without CAP_SYS_TIME it can set nothing).
`MemoryDenyWriteExecute` is left out: it breaks onnxruntime and cffi. A user's manager cannot
make mount namespaces everywhere, so those settings are for the system service.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_client.service.plan import FIRST_HOUR, LAST_HOUR, Scope, ServicePlan
from nightshift.host.files import write_atomic
from nightshift.protocol.errors import NightshiftError, UsageError

NAME = "nightshift-edge"
SYSTEM_USER = "nightshift"
_COMMAND_LIMIT_S = 60.0

Run = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]

_EVERYWHERE = """\
Nice=10
IOSchedulingClass=idle
MemoryMax=75%
# Out of memory, the kernel ends the training process; the agent survives it and goes on in smaller steps.
OOMPolicy=continue
# A pass that is told to end puts its training away within five seconds.
KillMode=mixed
TimeoutStartSec=8h
TimeoutStopSec=20s
UMask=0077
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
SystemCallArchitectures=native
SystemCallFilter=@system-service adjtimex
SystemCallErrorNumber=EPERM
"""

_SYSTEM_ONLY = f"""\
User={SYSTEM_USER}
StateDirectory=nightshift
CacheDirectory=nightshift
ConfigurationDirectory=nightshift
StateDirectoryMode=0700
CacheDirectoryMode=0700
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
PrivateMounts=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectProc=invisible
RestrictNamespaces=yes
RemoveIPC=yes
"""


@dataclass(frozen=True, slots=True)
class Installed:
    """How the service stands.

    Attributes:
        manager: "systemd" or "launchd".
        files: that make it, those that exist.
        active: the timer waits for its next time; None where the manager does not say.
        next_run: when; empty if unknown.
        last_result: of the last pass; empty if unknown.
    """

    manager: str
    files: tuple[Path, ...]
    active: bool | None
    next_run: str = ""
    last_result: str = ""


def service_unit(plan: ServicePlan) -> str:
    """The text of the .service file."""
    system = plan.scope is Scope.SYSTEM
    # A user's manager does not know the system's targets.
    order = "Wants=network-online.target\nAfter=network-online.target time-sync.target\n" if system else ""
    home = f"Environment={_quoted(f'NIGHTSHIFT_HOME={plan.home}')}\n" if plan.home else ""
    return (
        "# Written by `edge-client service install`; `systemctl edit` keeps changes beside it.\n"
        "[Unit]\n"
        "Description=Nightshift: one nightly pass of this device\n"
        f"{order}"
        "\n[Service]\n"
        "Type=oneshot\n"
        f"ExecStart={' '.join(_quoted(word) for word in plan.arguments)}\n"
        "# Not now, another run, and nobody there are no failures: docs/operations.md has the exit codes.\n"
        "SuccessExitStatus=4 11 13\n"
        f"{home}"
        f"{_SYSTEM_ONLY if system else ''}"
        f"{_EVERYWHERE}"
    )


def timer_unit(plan: ServicePlan) -> str:
    """The text of the .timer file."""
    del plan
    return (
        "# Written by `edge-client service install`.\n"
        "[Unit]\n"
        "Description=Nightshift: when a pass is tried\n"
        "\n[Timer]\n"
        f"OnCalendar=*-*-* {FIRST_HOUR:02}..{LAST_HOUR:02}:00\n"
        "# Each device has its own minute, the same every night.\n"
        "RandomizedDelaySec=50min\n"
        "FixedRandomDelay=true\n"
        "# A machine that was off tries once when it is on again.\n"
        "Persistent=true\n"
        "\n[Install]\n"
        "WantedBy=timers.target\n"
    )


@dataclass(frozen=True, slots=True)
class Systemd:
    """The service under one systemd manager.

    Attributes:
        scope: the user's manager or the system's.
        directory: of the unit files.
        run: runs a command of systemd.
    """

    scope: Scope
    directory: Path
    run: Run

    @classmethod
    def of(cls, scope: Scope) -> Systemd:
        """The manager of this machine.

        Raises:
            UsageError: systemd is not what runs it.
        """
        if shutil.which("systemctl") is None or not Path("/run/systemd/system").is_dir():
            raise UsageError(
                "systemd does not run this machine; let cron or another timer call `edge-client run` once an hour "
                f"from {FIRST_HOUR} to {LAST_HOUR} o'clock"
            )
        if scope is Scope.SYSTEM:
            if os.geteuid() != 0:
                raise UsageError("a system service is installed by root: sudo edge-client service install --system …")
            return cls(scope, Path("/etc/systemd/system"), _run)
        configuration = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
        return cls(scope, Path(configuration).expanduser() / "systemd" / "user", _run)

    @property
    def files(self) -> tuple[Path, Path]:
        """The service's and the timer's file."""
        return self.directory / f"{NAME}.service", self.directory / f"{NAME}.timer"

    def install(self, plan: ServicePlan) -> Installed:
        """Write both units and start the timer; again, to bring them up to date.

        Raises:
            NightshiftError: systemd refused.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        service, timer = self.files
        if self.scope is Scope.SYSTEM:
            self._make_user()
        write_atomic(service, service_unit(plan).encode(), mode=0o644)
        write_atomic(timer, timer_unit(plan).encode(), mode=0o644)
        self._systemctl("daemon-reload")
        self._systemctl("enable", "--now", timer.name)
        return self.status()

    def uninstall(self) -> bool:
        """Stop the timer and remove both units; False if there was nothing."""
        present = [file for file in self.files if file.exists()]
        if not present:
            return False
        # A unit that systemd has not loaded cannot be stopped, and need not be.
        self._ask("disable", "--now", self.files[1].name)
        for file in present:
            file.unlink()
        self._systemctl("daemon-reload")
        return True

    def status(self) -> Installed:
        """What systemd says of them."""
        service, timer = self.files
        present = tuple(file for file in self.files if file.exists())
        shown = self._show(timer.name, "ActiveState", "NextElapseUSecRealtime")
        result = self._show(service.name, "Result", "ExecMainStatus", "ExecMainExitTimestamp")
        last = ""
        if result.get("ExecMainExitTimestamp"):
            last = f"{result['ExecMainExitTimestamp']}: {result['Result']}, exit status {result['ExecMainStatus']}"
        active = shown["ActiveState"] == "active" if "ActiveState" in shown else None
        return Installed("systemd", present, active, shown.get("NextElapseUSecRealtime", ""), last)

    def _show(self, unit: str, *properties: str) -> dict[str, str]:
        asked = self._ask("show", unit, *(f"--property={name}" for name in properties))
        if asked.returncode:
            return {}
        pairs = (line.partition("=") for line in asked.stdout.splitlines())
        return {name: value for name, _, value in pairs}

    def _systemctl(self, *arguments: str) -> None:
        done = self._ask(*arguments)
        if done.returncode:
            raise NightshiftError(f"systemctl {' '.join(arguments)} failed: {done.stderr.strip() or done.returncode}")

    def _ask(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        manager = ["--user"] if self.scope is Scope.USER else []
        return self.run(["systemctl", *manager, *arguments])

    def _make_user(self) -> None:
        """The service's own user, without a shell; one that is there already stays."""
        done = self.run(
            ["useradd", "--system", "--home-dir", "/var/lib/nightshift", "--shell", "/usr/sbin/nologin", SYSTEM_USER]
        )
        if done.returncode not in (0, 9):  # 9: the name is taken (useradd(8))
            raise NightshiftError(f"the user {SYSTEM_USER} could not be made: {done.stderr.strip()}")


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - systemd's own commands with fixed names, no shell
        command, capture_output=True, text=True, timeout=_COMMAND_LIMIT_S, check=False, stdin=subprocess.DEVNULL
    )


def _quoted(word: str) -> str:
    """A word of a unit file: systemd expands % and $, and splits at blanks (systemd.syntax(7), systemd.service(5))."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if any(letter in word for letter in " '\"\t;") else escaped
