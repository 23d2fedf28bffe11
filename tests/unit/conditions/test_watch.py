"""Conditions watched while training runs."""

from __future__ import annotations

from edge_client.conditions.power import MainsPower
from edge_client.conditions.reading import Condition, Reading
from edge_client.conditions.watch import INTERVAL_S, Watch
from tests.unit.conditions.conftest import MachineNamed


class Seconds:
    """A time that a test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_the_cable_is_pulled_and_noticed_within_a_second(machine: MachineNamed) -> None:
    files = machine("laptop-x86")
    seconds = Seconds()
    watch = Watch([MainsPower(files, required=True, minimum_percent=20)], seconds)
    assert watch() is None
    (files.root / "sys/class/power_supply/AC/online").write_text("0\n")
    assert watch() is None, "sensors are not read twice within a second"
    seconds.now_s += INTERVAL_S
    reason = watch()
    assert reason is not None
    assert "runs on its battery" in reason
    (files.root / "sys/class/power_supply/AC/online").write_text("1\n")
    seconds.now_s += INTERVAL_S
    assert watch() == reason, "the first reason stays: the run is ending"
    assert "/sys/class/power_supply/AC" in reason, "the sensor is named"


def test_nothing_to_watch_never_stops() -> None:
    assert Watch([])() is None


def test_a_sensor_that_falls_silent_stops_nothing() -> None:
    class Silent(Condition):
        def read(self) -> Reading:
            return Reading.unknown("temperature", "gone")

    assert Watch([Silent()])() is None


def test_a_request_is_heard_while_somebody_asks() -> None:
    seconds = Seconds()
    watch = Watch([], seconds)
    assert watch.request("too early") is False
    watch = Watch([], seconds)
    assert watch() is None
    seconds.now_s += INTERVAL_S / 2
    assert watch.request("told to end") is True
    assert watch() == "told to end"
    seconds.now_s += 2 * INTERVAL_S
    assert watch.request("again") is False
    assert watch() == "told to end"
