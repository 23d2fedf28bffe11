"""Mains power, the battery's charge, and a supply too weak for its board."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edge_client.conditions.reading import Reading
from edge_client.machine_files import MachineFiles
from edge_client.profiles.facts import powers_the_machine

SUPPLIES = "sys/class/power_supply"
MONITORS = "sys/class/hwmon"
_ADAPTERS = {"Mains", "USB", "Wireless"}
_CHARGED_BY_MAINS = {"Charging", "Full", "Not charging"}

Supply = Literal["auto", "mains", "battery"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerState:
    """How the machine is fed.

    Attributes:
        source: which sensor says so.
        battery: whether one powers the machine; None where nothing says.
        plugged: whether an adapter does; None where nothing says.
        percent: charge of the emptiest battery; None where none says.
    """

    source: str
    battery: bool | None = None
    plugged: bool | None = None
    percent: int | None = None


@dataclass(frozen=True, slots=True)
class MainsPower:
    """Plugged in, unless the owner does not care; and no battery that is nearly empty.

    Attributes:
        files: of the machine.
        required: the owner wants mains power.
        minimum_percent: charge below which nothing runs, plugged in or not.
        stated: what the owner says instead of a sensor.
    """

    files: MachineFiles
    required: bool
    minimum_percent: int
    stated: Supply = "auto"

    def read(self) -> Reading:
        """A machine without a battery is on mains power."""
        state = _stated(self.stated) or read_power(self.files)
        if state.battery is None:
            return Reading.unknown("power", state.source)
        if not state.battery:
            return Reading.judged("power", "mains, no battery", state.source, reason="")
        value = "battery" if state.percent is None else f"battery {state.percent} %"
        if state.percent is not None and state.percent < self.minimum_percent:
            return Reading.judged(
                "power",
                value,
                state.source,
                reason=f"the battery holds {state.percent} %, {self.minimum_percent} % are wanted "
                "(conditions.minimum_battery_percent)",
            )
        if state.plugged is None:
            return Reading.unknown("power", state.source, value=value)
        if state.plugged:
            return Reading.judged("power", f"{value}, plugged in", state.source, reason="")
        reason = "the device runs on its battery; plug it in, or set conditions.require_mains_power = false"
        return Reading.judged("power", value, state.source, reason=reason if self.required else "")


@dataclass(frozen=True, slots=True)
class SupplyVoltage:
    """A board whose supply is strong enough.

    The Raspberry Pi's firmware reports it through the driver `raspberrypi-hwmon` (the kernel's
    Documentation/hwmon/raspberrypi-hwmon.rst): `in0_lcrit_alarm` of the monitor named `rpi_volt`.
    """

    files: MachineFiles

    def read(self) -> Reading:
        """Other machines have no such bit; that is no lack worth a word."""
        for monitor in self.files.entries(MONITORS) or ():
            place = f"{MONITORS}/{monitor}"
            if self.files.word(f"{place}/name") == "rpi_volt":
                alarm = self.files.number(f"{place}/in0_lcrit_alarm")
                source = f"/{place}/in0_lcrit_alarm"
                if alarm is None:
                    return Reading.unknown("voltage", source)
                reason = (
                    "the supply's voltage is too low: the board may stop at any moment; use the maker's power supply"
                )
                return Reading.judged(
                    "voltage", "too low" if alarm else "enough", source, reason=reason if alarm else ""
                )
        return Reading.judged("voltage", "not measured by this board", f"/{MONITORS}", reason="")


def read_power(files: MachineFiles) -> PowerState:
    """Look at /sys/class/power_supply (Documentation/ABI/testing/sysfs-class-power); on macOS ask psutil."""
    if sys.platform == "darwin":
        return _psutil_power()
    names = files.entries(SUPPLIES)
    if names is None:
        return PowerState(source=f"/{SUPPLIES} is not there")
    supplies = [
        {key: files.word(f"{SUPPLIES}/{name}/{key}") for key in ("type", "scope", "present", "online", "status")}
        | {"name": name}
        for name in names
    ]
    batteries = [supply for supply in supplies if powers_the_machine({k: v for k, v in supply.items() if v})]
    if not batteries:
        return PowerState(source=f"/{SUPPLIES}", battery=False)
    charges = [files.number(f"{SUPPLIES}/{battery['name']}/capacity") for battery in batteries]
    percent = min((charge for charge in charges if charge is not None and 0 <= charge <= 100), default=None)
    plugged, told_by = _plugged(supplies, batteries)
    return PowerState(source=f"/{SUPPLIES}/{told_by}", battery=True, plugged=plugged, percent=percent)


def _plugged(supplies: list[dict[str, str]], batteries: list[dict[str, str]]) -> tuple[bool | None, str]:
    """Whether an adapter feeds the machine, and which supply says so.

    A laptop charged over USB has several adapters, of which the unused ones say 0.
    """
    adapters = [s for s in supplies if s["type"] in _ADAPTERS and s["scope"] != "Device" and s["online"].isdecimal()]
    for adapter in adapters:
        if adapter["online"] != "0":
            return True, adapter["name"]
    if adapters:
        return False, adapters[0]["name"]
    statuses = {battery["status"] for battery in batteries}
    if "Discharging" in statuses:
        return False, batteries[0]["name"]
    return (True if statuses & _CHARGED_BY_MAINS else None), batteries[0]["name"]


def _psutil_power() -> PowerState:
    import psutil

    source = "psutil.sensors_battery"
    try:
        battery: Any = psutil.sensors_battery()  # None, or half-filled, by platform; the stubs know one
    except (OSError, AttributeError, NotImplementedError) as error:
        return PowerState(source=f"{source}: {error}")
    if battery is None:
        return PowerState(source=source, battery=False)
    return PowerState(source=source, battery=True, plugged=battery.power_plugged, percent=int(battery.percent))


def _stated(supply: Supply) -> PowerState | None:
    known: Mapping[str, PowerState] = {
        "mains": PowerState(source="conditions.power", battery=False),
        "battery": PowerState(source="conditions.power", battery=True, plugged=False),
    }
    return known.get(supply)
