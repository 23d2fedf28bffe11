"""Conditions: a sensor that says no blocks with its reason; one that is absent never blocks silently."""

from __future__ import annotations

import os
from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from edge_client.conditions import Reading, Verdict, require
from edge_client.conditions.sensors import Clock, FreeDisk, Load, MainsPower
from nightshift.host import clock
from nightshift.protocol.errors import DeclinedError

Battery = namedtuple("Battery", "percent secsleft power_plugged")
PLUGGED, UNPLUGGED, UNSURE = (Battery(percent=50, secsleft=1, power_plugged=is_so) for is_so in (True, False, None))


@dataclass(frozen=True)
class Fixed:
    """A condition that reads what it was told."""

    reading: Reading

    def read(self) -> Reading:
        return self.reading


def fixed(verdict: Verdict, name: str = "power", reason: str = "") -> Fixed:
    return Fixed(Reading(name, "a value", "a sensor", verdict, reason))


def test_unknown_does_not_block_and_is_handed_back() -> None:
    readings = require([fixed(Verdict.OK), fixed(Verdict.UNKNOWN, "heat")])
    assert [reading.verdict for reading in readings] == [Verdict.OK, Verdict.UNKNOWN]


def test_every_no_is_named_with_its_value_and_sensor() -> None:
    with pytest.raises(DeclinedError, match=r"unplugged \[power = a value, a sensor\]; busy \[load.*--now"):
        require([fixed(Verdict.NO, reason="unplugged"), fixed(Verdict.OK), fixed(Verdict.NO, "load", "busy")])


@pytest.mark.parametrize(
    ("battery", "required", "verdict"),
    [
        (None, True, Verdict.OK),
        (PLUGGED, True, Verdict.OK),
        (UNPLUGGED, True, Verdict.NO),
        (UNPLUGGED, False, Verdict.OK),
        (UNSURE, True, Verdict.UNKNOWN),
    ],
)
def test_mains_power(
    monkeypatch: pytest.MonkeyPatch, battery: Battery | None, required: bool, verdict: Verdict
) -> None:
    monkeypatch.setattr(psutil, "sensors_battery", lambda: battery)
    reading = MainsPower(required).read()
    assert reading.verdict is verdict
    assert (reading.reason != "") is (verdict is Verdict.NO)


def test_a_sensor_that_fails_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError("no such sensor")

    monkeypatch.setattr(psutil, "sensors_battery", fail)
    assert MainsPower(required=True).read().verdict is Verdict.UNKNOWN


def test_load_is_judged_per_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (2.0, 0.0, 0.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert Load(0.5).read().verdict is Verdict.OK
    assert Load(0.4).read().verdict is Verdict.NO


def test_free_disk_is_that_of_the_nearest_existing_folder(tmp_path: Path) -> None:
    missing = tmp_path / "not" / "there" / "yet"
    assert FreeDisk(missing, 0).read().verdict is Verdict.OK
    full = FreeDisk(missing, 1 << 40).read()
    assert full.verdict is Verdict.NO
    assert "conditions.minimum_free_disk_mb" in full.reason


def test_a_clock_before_the_join_cannot_be_right(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    now = clock.now_unix_s()
    assert Clock(now - 10).read().verdict is Verdict.OK
    offset = tmp_path / "offset"
    offset.write_text(str(-now))
    monkeypatch.setenv(clock.ENVIRONMENT_VARIABLE, str(offset))
    reading = Clock(now - 10).read()
    assert reading.verdict is Verdict.NO
    assert reading.value.startswith("1970-01-01")
