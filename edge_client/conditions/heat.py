"""The hottest thermal zone."""

from __future__ import annotations

from dataclasses import dataclass

from edge_client.conditions.reading import Reading
from edge_client.machine_files import MachineFiles

ZONES = "sys/class/thermal"
_PLAUSIBLE_CELSIUS = (-40.0, 150.0)


@dataclass(frozen=True, slots=True)
class Heat:
    """Not too hot to work.

    Attributes:
        files: of the machine.
        maximum_celsius: of the hottest zone.
        setting: which key of the configuration says so, for the message.
    """

    files: MachineFiles
    maximum_celsius: float
    setting: str = "conditions.maximum_temperature_celsius"

    def read(self) -> Reading:
        """The hottest zone that reads as a temperature (Documentation/driver-api/thermal/sysfs-api.rst: 1/1000 °C)."""
        zones = {zone: celsius for zone in self._zones() if (celsius := self._celsius(zone)) is not None}
        if not zones:
            return Reading.unknown("temperature", f"/{ZONES} has no zone that can be read")
        hottest = max(zones, key=lambda zone: zones[zone])
        celsius = zones[hottest]
        kind = self.files.word(f"{ZONES}/{hottest}/type")
        reason = ""
        if celsius > self.maximum_celsius:
            reason = f"it is too hot ({celsius:.0f} °C, at most {self.maximum_celsius:g} °C; {self.setting})"
        source = f"/{ZONES}/{hottest}" + (f" ({kind[:32]})" if kind.isprintable() and kind else "")
        return Reading.judged("temperature", f"{celsius:.1f} °C", source, reason=reason)

    def _zones(self) -> list[str]:
        return [name for name in self.files.entries(ZONES) or () if name.startswith("thermal_zone")]

    def _celsius(self, zone: str) -> float | None:
        thousandths = self.files.number(f"{ZONES}/{zone}/temp")
        if thousandths is None:
            return None
        lowest, highest = _PLAUSIBLE_CELSIUS
        celsius = thousandths / 1000
        # A zone without a sensor behind it reads 0 K or the largest number there is.
        return celsius if lowest < celsius < highest else None
