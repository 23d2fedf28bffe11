"""The conditions that this build knows: mains power, load, free disk (psutil)."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from edge_client.conditions.reading import Condition, Reading, Verdict
from edge_client.configuration import ConditionSettings
from edge_client.ledger import readable_time
from nightshift.host.clock import now_unix_s


@dataclass(frozen=True, slots=True)
class MainsPower:
    """Plugged in, unless the owner does not care."""

    required: bool

    def read(self) -> Reading:
        """A machine without a battery is on mains power."""
        source = "psutil.sensors_battery"
        try:
            battery: Any = psutil.sensors_battery()  # None, or half-filled, by platform; the stubs know one
        except (OSError, AttributeError, NotImplementedError) as error:
            return Reading("power", "unknown", f"{source}: {error}", Verdict.UNKNOWN)
        if battery is None:
            return Reading("power", "no battery", source, Verdict.OK)
        value = f"battery {battery.percent:.0f} %"
        if battery.power_plugged is None:
            return Reading("power", value, source, Verdict.UNKNOWN)
        if battery.power_plugged or not self.required:
            return Reading("power", value + (", plugged in" if battery.power_plugged else ""), source, Verdict.OK)
        reason = "the device runs on its battery; plug it in, or set conditions.require_mains_power = false"
        return Reading("power", value, source, Verdict.NO, reason)


@dataclass(frozen=True, slots=True)
class Load:
    """Nobody is using the machine's processors."""

    maximum_per_core: float

    def read(self) -> Reading:
        """One-minute load average, per core."""
        cores = os.cpu_count() or 1
        try:
            load = os.getloadavg()[0] / cores
        except OSError as error:
            return Reading("load", "unknown", f"os.getloadavg: {error}", Verdict.UNKNOWN)
        value = f"{load:.2f} per core"
        if load <= self.maximum_per_core:
            return Reading("load", value, "os.getloadavg", Verdict.OK)
        reason = (
            f"the machine is busy (load {load:.2f} per core, at most {self.maximum_per_core:g}; "
            "conditions.maximum_load)"
        )
        return Reading("load", value, "os.getloadavg", Verdict.NO, reason)


@dataclass(frozen=True, slots=True)
class FreeDisk:
    """Room on the disk that takes models and training state."""

    directory: Path
    minimum_mb: int

    def read(self) -> Reading:
        """Free MiB on the file system of the directory."""
        source = f"disk of {self.directory}"
        try:
            free_mb = shutil.disk_usage(_existing(self.directory)).free // 2**20
        except OSError as error:
            return Reading("disk", "unknown", f"{source}: {error.strerror}", Verdict.UNKNOWN)
        if free_mb >= self.minimum_mb:
            return Reading("disk", f"{free_mb} MiB free", source, Verdict.OK)
        reason = f"only {free_mb} MiB are free, {self.minimum_mb} are wanted (conditions.minimum_free_disk_mb)"
        return Reading("disk", f"{free_mb} MiB free", source, Verdict.NO, reason)


@dataclass(frozen=True, slots=True)
class Clock:
    """A clock that can be right: a board without a battery begins in 1970."""

    joined_unix_s: int

    def read(self) -> Reading:
        """The clock against the moment at which this device joined."""
        now = now_unix_s()
        if now >= self.joined_unix_s:
            return Reading("clock", readable_time(now), "system clock", Verdict.OK)
        reason = "the clock shows a time before this device joined; set it, or wait until it is in step"
        return Reading("clock", readable_time(now), "system clock", Verdict.NO, reason)


def conditions(settings: ConditionSettings, cache: Path, *, joined_unix_s: int) -> list[Condition]:
    """The conditions of a pass.

    Args:
        settings: the owner's.
        cache: where models are fetched to.
        joined_unix_s: a moment that is past for certain.
    """
    return [
        Clock(joined_unix_s),
        MainsPower(settings.require_mains_power),
        Load(settings.maximum_load),
        FreeDisk(cache, settings.minimum_free_disk_mb),
    ]


def _existing(directory: Path) -> Path:
    while not directory.exists() and directory != directory.parent:
        directory = directory.parent
    return directory
