"""Which conditions are asked when, on the recorded machines, and how a no is said."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_client.conditions import Reading, Verdict, require
from edge_client.conditions.checklist import Checklist, Circumstances, Machine
from edge_client.conditions.system_bus import SystemBus
from edge_client.configuration import ConditionSettings
from nightshift.protocol.errors import DeclinedError
from tests.unit.conditions.conftest import MachineNamed

Made = Callable[..., Checklist]

NOW = int(time.time())
BEFORE = ["pause", "clock", "hours", "power", "voltage", "input", "disk", "temperature", "load", "memory"]


@pytest.fixture
def checklist(machine: MachineNamed, no_bus: SystemBus, tmp_path: Path) -> Made:
    def make(name: str, **settings: object) -> Checklist:
        known = Circumstances(tmp_path, NOW - 60, NOW + 86_400)
        chosen = ConditionSettings.model_validate({"maximum_load": 1e9, "minimum_free_disk_mb": 0, **settings})
        return Checklist(chosen, known, Machine(machine(name), no_bus))

    return make


def names(readings: list[Reading]) -> list[str]:
    return [reading.name for reading in readings]


@pytest.mark.parametrize("name", ["raspberry-pi-5", "laptop-x86"])
def test_a_recorded_machine_at_night_may_run(checklist: Made, name: str) -> None:
    readings = [condition.read() for condition in checklist(name).before_a_pass()]
    assert names(readings) == [*BEFORE, "network", "traffic"]
    assert {reading.name for reading in readings if reading.verdict is Verdict.NO} == set()
    assert all(reading.source and reading.value for reading in readings)
    require(readings, advice="")


def test_training_is_no_reason_to_stop_training(checklist: Made) -> None:
    """Load and memory are what it takes; the network it does not need."""
    watched = [condition.read() for condition in checklist("laptop-x86").while_training()]
    assert names(watched) == ["pause", "hours", "power", "voltage", "input", "disk", "temperature"]


def test_now_asks_for_the_clock_alone(checklist: Made) -> None:
    assert names([condition.read() for condition in checklist("laptop-x86").always()]) == ["clock"]


def test_a_machine_that_was_too_hot_begins_again_when_it_is_cool(checklist: Made) -> None:
    """The Pi 5 is recorded at 48.2 °C."""

    def verdicts(**limits: float) -> tuple[Verdict, Verdict]:
        chosen = checklist("raspberry-pi-5", **limits)
        found = [
            next(r for c in asked if (r := c.read()).name == "temperature")
            for asked in (chosen.before_a_pass(), chosen.while_training())
        ]
        return found[0].verdict, found[1].verdict

    assert verdicts(maximum_temperature_celsius=78, begin_below_celsius=70) == (Verdict.OK, Verdict.OK)
    assert verdicts(maximum_temperature_celsius=78, begin_below_celsius=45) == (Verdict.NO, Verdict.OK)
    assert verdicts(maximum_temperature_celsius=48) == (Verdict.NO, Verdict.NO)


def test_every_no_is_named_with_its_value_and_sensor() -> None:
    readings = [
        Reading("power", "a value", "a sensor", Verdict.NO, "unplugged"),
        Reading("heat", "a value", "a sensor", Verdict.UNKNOWN),
        Reading("load", "a value", "a sensor", Verdict.NO, "busy"),
    ]
    with pytest.raises(DeclinedError, match=r"unplugged \[power = a value, a sensor\]; busy \[load.*\. try --now"):
        require(readings, advice="try --now")
    require([readings[1]], advice="")
