"""The hottest zone that reads as a temperature decides."""

from __future__ import annotations

import pytest

from edge_client.conditions import Verdict
from edge_client.conditions.heat import Heat
from tests.unit.conditions.conftest import MachineNamed

ZONE = "sys/class/thermal/thermal_zone{}/temp"


def test_a_pi_at_night(machine: MachineNamed) -> None:
    reading = Heat(machine("raspberry-pi-5"), 78).read()
    assert (reading.verdict, reading.value) == (Verdict.OK, "48.2 °C")
    assert reading.source.startswith("/sys/class/thermal/thermal_zone0 (cpu")


def test_the_hottest_zone_is_judged_and_named(machine: MachineNamed) -> None:
    files = machine("raspberry-pi-5", {ZONE.format(1): "81500\n", "sys/class/thermal/thermal_zone1/type": "gpu\n"})
    reading = Heat(files, 78).read()
    assert reading.verdict is Verdict.NO
    assert "82 °C, at most 78 °C" in reading.reason
    assert reading.source == "/sys/class/thermal/thermal_zone1 (gpu)"
    assert Heat(files, 81.5).read().verdict is Verdict.OK


@pytest.mark.parametrize("nonsense", ["-273150", "2147483647", "", "hot", "9" * 40])
def test_a_zone_without_a_sensor_behind_it_is_left_out(machine: MachineNamed, nonsense: str) -> None:
    assert Heat(machine("raspberry-pi-5", {ZONE.format(1): nonsense}), 78).read().value == "48.2 °C"
    alone = Heat(machine("raspberry-pi-5", {ZONE.format(0): nonsense}), 78).read()
    assert alone.verdict is Verdict.UNKNOWN
