"""Nobody is using the machine: its processors, or a person its keyboard."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass

from edge_client.conditions.reading import Reading
from edge_client.conditions.system_bus import SystemBus
from edge_client.machine_files import MachineFiles

LOGIN = ("org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager")
_TERMINALS = (("dev/pts", re.compile(r"[0-9]+")), ("dev", re.compile(r"tty([1-9][0-9]?|S[0-9]+|AMA[0-9]+)")))
_IOREG = ("/usr/sbin/ioreg", "-c", "IOHIDSystem", "-d", "4")


@dataclass(frozen=True, slots=True)
class Load:
    """Nobody is using the machine's processors.

    Never watched during training, which is a load itself.
    """

    maximum_per_core: float

    def read(self) -> Reading:
        """One-minute load average, per core."""
        cores = os.cpu_count() or 1
        try:
            load = os.getloadavg()[0] / cores
        except OSError as error:
            return Reading.unknown("load", f"os.getloadavg: {error}")
        reason = ""
        if load > self.maximum_per_core:
            reason = (
                f"the machine is busy (load {load:.2f} per core, at most {self.maximum_per_core:g}; "
                "conditions.maximum_load)"
            )
        return Reading.judged("load", f"{load:.2f} per core", "os.getloadavg", reason=reason)


@dataclass(frozen=True, slots=True)
class LastInput:
    """Nobody has typed or moved a pointer for a while.

    Two witnesses: the kernel notes when a terminal was last typed into (the access
    time of its device file), and a desktop tells logind when its user comes and
    goes. A desktop that never told logind anything is no witness.

    Attributes:
        files: of the machine.
        bus: to logind.
        minimum_idle_s: seconds without input; 0 asks for none.
    """

    files: MachineFiles
    bus: SystemBus
    minimum_idle_s: int

    def read(self) -> Reading:
        """The most recent input of either witness."""
        if self.minimum_idle_s == 0:
            return Reading.judged("input", "not asked for", "conditions.minimum_idle_s", reason="")
        now = time.time()
        known = self._mac() if sys.platform == "darwin" else [*self._terminals(now), *self._desktops(now)]
        if not known:
            return Reading.unknown("input", "no terminal is open, and logind knows of no desktop that tells")
        idle_s, source = min(known)
        reason = ""
        if idle_s < self.minimum_idle_s:
            reason = (
                f"somebody used the machine {idle_s:.0f} s ago, {self.minimum_idle_s} s of quiet are wanted "
                "(conditions.minimum_idle_s)"
            )
        return Reading.judged("input", f"last {_span(idle_s)} ago", source, reason=reason)

    def _terminals(self, now: float) -> list[tuple[float, str]]:
        found = []
        for directory, pattern in _TERMINALS:
            for name in self.files.entries(directory) or ():
                if not pattern.fullmatch(name):
                    continue
                try:
                    used = (self.files.root / directory / name).stat().st_atime
                except OSError:
                    continue
                # From the future: the clock was set since; it says nothing.
                if used <= now:
                    found.append((now - used, f"/{directory}/{name}"))
        return found

    def _desktops(self, now: float) -> list[tuple[float, str]]:
        manager = self.bus.properties(*LOGIN)
        if manager is None:
            return []
        idle, since_us = manager.get("IdleHint"), manager.get("IdleSinceHint")
        if not isinstance(idle, bool) or not isinstance(since_us, int) or since_us <= 0:
            return []
        return [(max(0.0, now - since_us / 1e6) if idle else 0.0, "logind IdleHint")]

    def _mac(self) -> list[tuple[float, str]]:
        try:
            finished = subprocess.run(  # noqa: S603 - a fixed command of macOS by absolute path, no shell
                _IOREG, capture_output=True, timeout=5, check=False, stdin=subprocess.DEVNULL
            )
        except (OSError, subprocess.SubprocessError):
            return []
        match = re.search(rb'"HIDIdleTime" = ([0-9]{1,19})', finished.stdout)
        return [(int(match[1]) / 1e9, "IOHIDSystem HIDIdleTime")] if match else []


def _span(seconds: float) -> str:
    for limit, unit, divisor in ((120, "s", 1), (7200, "min", 60), (172_800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / divisor:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"
