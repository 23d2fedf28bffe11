"""Power as recorded machines show it, and as they would with a cable pulled."""

from __future__ import annotations

import pytest

from edge_client.conditions import Verdict
from edge_client.conditions.power import MainsPower, SupplyVoltage, read_power
from edge_client.machine_files import MachineFiles
from tests.unit.conditions.conftest import MachineNamed

SUPPLIES = "sys/class/power_supply"
ALARM = "sys/class/hwmon/hwmon1/in0_lcrit_alarm"
UNPLUGGED: dict[str, str | None] = {f"{SUPPLIES}/AC/online": "0\n", f"{SUPPLIES}/BAT0/status": "Discharging\n"}


def mains(files: MachineFiles, *, required: bool = True, minimum: int = 20) -> MainsPower:
    return MainsPower(files, required, minimum)


def test_a_board_without_a_battery_is_on_mains_power(machine: MachineNamed) -> None:
    reading = mains(machine("raspberry-pi-5")).read()
    assert (reading.verdict, reading.value) == (Verdict.OK, "mains, no battery")
    assert reading.source == "/sys/class/power_supply"


def test_a_laptop_that_is_plugged_in(machine: MachineNamed) -> None:
    reading = mains(machine("laptop-x86")).read()
    assert (reading.verdict, reading.value) == (Verdict.OK, "battery 97 %, plugged in")
    assert reading.source == "/sys/class/power_supply/AC"


def test_a_laptop_that_is_unplugged(machine: MachineNamed) -> None:
    files = machine("laptop-x86", UNPLUGGED)
    reading = mains(files).read()
    assert reading.verdict is Verdict.NO
    assert "plug it in" in reading.reason
    assert mains(files, required=False).read().verdict is Verdict.OK


def test_any_of_several_adapters_will_do(machine: MachineNamed) -> None:
    files = machine("laptop-x86", UNPLUGGED | {f"{SUPPLIES}/ucsi-source-psy-USBC000:001/online": "1\n"})
    assert mains(files).read().source == "/sys/class/power_supply/ucsi-source-psy-USBC000:001"
    assert mains(files).read().verdict is Verdict.OK


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        ("Discharging", Verdict.NO),
        ("Charging", Verdict.OK),
        ("Full", Verdict.OK),
        ("Not charging", Verdict.OK),
        ("Unknown", Verdict.UNKNOWN),
        ("", Verdict.UNKNOWN),
    ],
)
def test_without_an_adapter_that_speaks_the_battery_is_asked(
    machine: MachineNamed, status: str, verdict: Verdict
) -> None:
    silent: dict[str, str | None] = {
        f"{SUPPLIES}/AC/online": None,
        f"{SUPPLIES}/ucsi-source-psy-USBC000:001/online": None,
        f"{SUPPLIES}/BAT0/status": status,
    }
    reading = mains(machine("laptop-x86", silent)).read()
    assert reading.verdict is verdict
    assert reading.source.endswith("/BAT0")


def test_a_battery_that_is_nearly_empty_waits_even_when_plugged_in(machine: MachineNamed) -> None:
    files = machine("laptop-x86", {f"{SUPPLIES}/BAT0/capacity": "11\n"})
    reading = mains(files).read()
    assert reading.verdict is Verdict.NO
    assert "11 %, 20 % are wanted (conditions.minimum_battery_percent)" in reading.reason
    assert mains(files, minimum=11).read().verdict is Verdict.OK


def test_the_battery_of_a_wireless_mouse_is_not_the_machines(machine: MachineNamed) -> None:
    assert read_power(machine("laptop-x86")).percent == 97


def test_a_kernel_that_shows_no_supplies_is_unknown(tmp_path: object, machine: MachineNamed) -> None:
    files = MachineFiles(machine("raspberry-pi-5").root / "nowhere")
    reading = mains(files).read()
    assert reading.verdict is Verdict.UNKNOWN
    assert "is not there" in reading.source


@pytest.mark.parametrize(("stated", "verdict"), [("mains", Verdict.OK), ("battery", Verdict.NO)])
def test_the_owner_can_say_what_feeds_it(machine: MachineNamed, stated: str, verdict: Verdict) -> None:
    reading = MainsPower(machine("laptop-x86"), required=True, minimum_percent=20, stated=stated).read()  # type: ignore[arg-type]  # one of the three
    assert (reading.verdict, reading.source) == (verdict, "conditions.power")


@pytest.mark.parametrize("board", ["raspberry-pi-4", "raspberry-pi-5"])
def test_a_supply_that_is_too_weak(machine: MachineNamed, board: str) -> None:
    assert SupplyVoltage(machine(board)).read().verdict is Verdict.OK
    weak = SupplyVoltage(machine(board, {ALARM: "1\n"})).read()
    assert weak.verdict is Verdict.NO
    assert weak.source == f"/{ALARM}"
    assert SupplyVoltage(machine(board, {ALARM: ""})).read().verdict is Verdict.UNKNOWN


def test_a_machine_without_the_bit_says_so_and_runs(machine: MachineNamed) -> None:
    reading = SupplyVoltage(machine("laptop-x86")).read()
    assert (reading.verdict, reading.value) == (Verdict.OK, "not measured by this board")
