"""Which conditions are asked when: before a pass, while it trains, and even when the owner says `--now`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edge_client.conditions.heat import Heat
from edge_client.conditions.hours import Hours
from edge_client.conditions.idleness import LastInput, Load
from edge_client.conditions.moment import Clock, NotPaused, WithinHours
from edge_client.conditions.network import Metered, NightlyBytes
from edge_client.conditions.power import MainsPower, SupplyVoltage
from edge_client.conditions.reading import Condition
from edge_client.conditions.room import FreeDisk, FreeMemory
from edge_client.conditions.system_bus import SystemBus
from edge_client.configuration import ConditionSettings
from edge_client.machine_files import MachineFiles


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the device itself knows, beside its sensors.

    Attributes:
        cache: where models are fetched to.
        past_unix_s: a moment that is past for certain: the latest certificate's beginning.
        certificate_end_unix_s: of the certificate in use.
        paused_until_unix_s: tells until when; a running pass asks again, for the owner may say so while it trains.
        night_bytes: sent and received this night.
    """

    cache: Path
    past_unix_s: int
    certificate_end_unix_s: int
    paused_until_unix_s: Callable[[], int] = lambda: 0
    night_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Machine:
    """Where sensors are read; a test gives a recorded one."""

    files: MachineFiles = field(default_factory=MachineFiles)
    bus: SystemBus = field(default_factory=SystemBus)


@dataclass(frozen=True, slots=True)
class Checklist:
    """The conditions of one device.

    Attributes:
        settings: the owner's.
        circumstances: of the device.
        machine: its sensors.
    """

    settings: ConditionSettings
    circumstances: Circumstances
    machine: Machine = field(default_factory=Machine)

    def always(self) -> list[Condition]:
        """Asked with `run --now` too: with a wrong clock nothing can be verified."""
        known = self.circumstances
        return [Clock(known.past_unix_s, known.certificate_end_unix_s, self.settings.judge_clock)]

    def before_a_pass(self) -> list[Condition]:
        """Asked when the timer starts a pass, the owner's word first."""
        settings, known = self.settings, self.circumstances
        return [
            NotPaused(known.paused_until_unix_s),
            *self.always(),
            *self._of_the_owner(),
            self._heat_to_begin(),
            Load(settings.maximum_load),
            FreeMemory(self.machine.files, settings.minimum_free_memory_mb),
            Metered(self.machine.bus, settings.allow_metered, settings.metered),
            NightlyBytes(known.night_bytes, settings.nightly_limit_mb * 2**20),
        ]

    def while_training(self) -> list[Condition]:
        """Asked every second of a training run; load and memory are left out, for training takes both."""
        return [
            NotPaused(self.circumstances.paused_until_unix_s),
            *self._of_the_owner(),
            Heat(self.machine.files, self.settings.maximum_temperature_celsius),
        ]

    def _of_the_owner(self) -> list[Condition]:
        settings, files = self.settings, self.machine.files
        return [
            WithinHours(Hours.parse(settings.hours) if settings.hours else None),
            MainsPower(files, settings.require_mains_power, settings.minimum_battery_percent, settings.power),
            SupplyVoltage(files),
            LastInput(files, self.machine.bus, settings.minimum_idle_s),
            FreeDisk(self.circumstances.cache, settings.minimum_free_disk_mb),
        ]

    def _heat_to_begin(self) -> Condition:
        """A machine that stopped for heat begins again when it has cooled down, not when it is just below the limit."""
        settings = self.settings
        cool = settings.begin_below_celsius
        if cool is None or cool >= settings.maximum_temperature_celsius:
            return Heat(self.machine.files, settings.maximum_temperature_celsius)
        return Heat(self.machine.files, cool, "conditions.begin_below_celsius")
