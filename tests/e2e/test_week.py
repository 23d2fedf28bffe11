"""A week of real processes under one clock: devices come and go, break, and come back; the coordinator restarts.

Nights begin in the evening of a local time zone whose clocks go back in the fifth
of them. Protocol time is moved by the clock file; TLS goes by the true time, so the
week lies just behind us, and the device that joined 40 days before its end has
a certificate that is truly expired.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from coordinator.storage.rows import CohortState
from nightshift.host import clock
from nightshift.v1 import log_pb2
from scripts.night.fleet import Device, Finished
from tests.support.fleets import (
    DAY_S,
    ROWS_PER_DEVICE,
    TASK,
    Fleet,
    Snapshots,
    found,
    join,
    kill_while_training,
    query,
    task_toml,
    wait_until,
)

pytestmark = pytest.mark.slow

PARTIAL, NOT_NOW, REVOKED = 3, 4, 12
NIGHTS = 7
DEVICES = 8
ENOUGH = 4
"""Fewer contributions make no release."""
STEPS = 40
"""Of training: enough to lose power in their middle."""
HOUR_S = 3600
SUMMER_S, WINTER_S = 2 * HOUR_S, HOUR_S
"""Seconds that local time is ahead of UTC, before and after the clocks go back."""
CLOCKS_GO_BACK = 5
"""In the morning of this day: 03:00 becomes 02:00."""

# Asked back at any moment of their nights (integration/test_night_hours.py), not all would be due at the set times.
CONDITIONS = """[conditions]
hours = "22:00-06:00"
tell_hours = false
power = "mains"
metered = "no"
minimum_idle_s = 0
maximum_load = 1000.0
maximum_temperature_celsius = 120.0
minimum_free_disk_mb = 1
minimum_free_memory_mb = 1
"""

WINDOWS = f"""upload_window_s = {9 * HOUR_S // 2}
answer_window_s = {12 * HOUR_S}
"""
"""Half past ten in the evening to three; committee members may answer until the next afternoon."""


@dataclass
class Calendar:
    """Days and local times of the week, and the clock file that makes processes live in them.

    Attributes:
        monday: midnight, UTC, before the first night.
        file: names the seconds by which processes see another time than the true one.
    """

    monday: datetime
    file: Path

    @property
    def zone(self) -> str:
        """Local time as POSIX has it: summer time ends in the fifth night, whatever today's date is."""
        ends, begins = self.monday + timedelta(CLOCKS_GO_BACK), self.monday + timedelta(CLOCKS_GO_BACK - 100)
        return f"WINTER-1SUMMER-2,J{_day_of_year(begins)}/2,J{_day_of_year(ends)}/3"

    def set(self, day: int, hour: int, minute: int = 0, *, winter: bool | None = None) -> None:
        """Make it a local time of a day; `winter` tells the two hours apart that are both called two o'clock."""
        if winter is None:
            winter = (day, hour) >= (CLOCKS_GO_BACK, 3)
        offset_s = WINTER_S if winter else SUMMER_S
        wanted = self.monday + timedelta(days=day, hours=hour, minutes=minute, seconds=-offset_s)
        temporary = self.file.with_suffix(".new")
        temporary.write_text(str(wanted.timestamp() - time.time()), "ascii")
        temporary.replace(self.file)


def _day_of_year(date: datetime) -> int:
    """1 to 365 as POSIX counts it, which leaves out 29 February."""
    return int(date.replace(year=2001, day=min(date.day, 28) if date.month == 2 else date.day).strftime("%j"))


@dataclass
class Week:
    """Who and when.

    Attributes:
        fleet: the coordinator and its devices, by number from 1.
        calendar: of the week.
        rounds: opened so far.
    """

    fleet: Fleet
    calendar: Calendar
    rounds: int = 0

    def device(self, number: int) -> Device:
        """A device by its number."""
        return self.fleet.devices[number - 1]

    def evening(self, night: int) -> None:
        """The operator opens the night's round at half past ten."""
        self.calendar.set(night - 1, 22, 30)
        self.fleet.open_round()
        self.rounds += 1

    def wake(self, numbers: Sequence[int]) -> dict[int, dict[str, Any]]:
        """Let devices make their pass as their timers do, two at a time; what each reports."""
        with ThreadPoolExecutor(2) as pool:
            done = pool.map(lambda number: self.wake_one(number).json, numbers)
            return dict(zip(numbers, done, strict=True))

    def wake_one(self, number: int, *, expect: int | None = 0, **environment: str) -> Finished:
        """One pass under the owner's conditions."""
        return self.device(number).command("run", "--json", expect=expect, **environment)

    def contribute(self, numbers: Sequence[int]) -> None:
        """All of these send their contribution to the open round."""
        for number, report in self.wake(numbers).items():
            assert report["sent"] == [f"{TASK}/{self.rounds}"], f"device {number}: {report['summary']}"

    def answer(self, numbers: Sequence[int]) -> None:
        """All of these make a pass once the set is frozen; together they open the sum."""
        self.until(CohortState.FROZEN)
        reports = self.wake(numbers)
        assert all(report["answered"] or report["adopted"] for report in reports.values()), [
            report["summary"] for report in reports.values()
        ]

    def until(self, state: CohortState) -> None:
        """Wait for the open round's cohort: the coordinator looks at the clock, which was just moved, now and then."""
        wait_until(lambda: bool(self.fleet.cohort(self.rounds)["state"] == state))

    def ended(self, contributors: Sequence[int]) -> None:
        """The round has ended with the sum of exactly these devices, and a release was made of it."""
        shown = self.fleet.round(self.rounds)
        assert shown["state"] == "published", shown
        assert len(self.fleet.counted(self.rounds)) == len(contributors)
        assert self.fleet.sum_is_exact([self.device(number) for number in contributors], self.rounds)


@pytest.fixture(scope="module")
def week(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Week]:
    directory = tmp_path_factory.mktemp("week")
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    # The last morning must have passed, and everything issued in the week must be valid by the true time.
    calendar = Calendar(midnight - timedelta(days=NIGHTS + 1), directory / "fleet" / "clock")
    package = Snapshots(directory).package()
    calendar.file.parent.mkdir()
    calendar.set(-33, 12, winter=False)
    task = task_toml(DEVICES, ENOUGH, steps=STEPS, windows=WINDOWS)
    task = task.replace(f"pool_min = {DEVICES}", f"pool_min = {ENOUGH}")
    fleet, token = found(calendar.file.parent, package, devices=DEVICES, task=task)
    environment = {clock.ENVIRONMENT_VARIABLE: str(calendar.file), "TZ": calendar.zone}
    devices = [Device(calendar.file.parent / f"device{number}", environment) for number in range(1, DEVICES + 1)]
    with fleet.serving():
        # The last one joins long before the week. TLS, by the true time, takes its certificate for expired at once.
        join(devices[-1], token, first=ROWS_PER_DEVICE * DEVICES, more=CONDITIONS, expect=PARTIAL)
        calendar.set(0, 12)
        token = fleet.coordinator.command("token", "create", "--uses", str(DEVICES), "--json").json["token"]
        for number, device in enumerate(devices[:-1], 1):
            join(device, token, first=ROWS_PER_DEVICE * number, more=CONDITIONS)
    fleet.devices[:] = devices
    fleet.coordinator.serve()
    yield Week(fleet, calendar)
    fleet.coordinator.stop()


@pytest.mark.timeout(1200)
def test_a_week(week: Week) -> None:
    """Every night that has enough devices ends with a release; ledgers and log say the same."""
    fleet, calendar = week.fleet, week.calendar

    # Night 1: seven of eight. By day nothing runs, and the device says why.
    declined = week.wake_one(1, expect=NOT_NOW)
    assert "22:00-06:00" in declined.stdout + declined.stderr
    week.evening(1)
    present = [1, 2, 3, 4, 5, 6, 7]
    calendar.set(1, 1, 30)
    week.contribute(present)
    calendar.set(1, 5, 30)
    week.answer(present)
    week.ended(present)

    # Night 2: one loses power in the middle of its training; the coordinator too, between set and sum.
    week.evening(2)
    calendar.set(2, 1, 30)
    kill_while_training(week.device(6), beyond_step=5)
    week.contribute([1, 2, 3, 4, 5, 7])
    calendar.set(2, 2, 30)
    week.contribute([6])
    fleet.coordinator.kill()
    calendar.set(2, 5, 30)
    fleet.coordinator.serve()
    week.answer(present)
    week.ended(present)

    # Night 3: one wakes with an expired certificate; another one's clock says 1970.
    week.evening(3)
    calendar.set(3, 1, 30)
    dead = fleet.directory / "dead-clock"
    dead.write_text(str(DAY_S - time.time()), "ascii")
    stopped = week.wake_one(7, expect=NOT_NOW, **{clock.ENVIRONMENT_VARIABLE: str(dead)})
    assert "clock" in stopped.stdout + stopped.stderr
    back = week.wake_one(8).json
    assert "this device's certificate had expired and has been renewed" in back["notes"]
    assert back["sent"] == [], "it was not certified when this round's plan was logged"
    present = [1, 2, 3, 4, 5, 6]
    week.contribute(present)
    calendar.set(3, 5, 30)
    week.answer(present)
    week.ended(present)

    # Night 4: one was revoked; the clock of the other is right again; the coordinator is restarted in good order.
    fleet.coordinator.command("device", "revoke", device_id(week.device(5)), "--yes")
    week.evening(4)
    calendar.set(4, 1, 30)
    week.wake_one(5, expect=REVOKED)
    present = [1, 2, 3, 4, 6, 7, 8]
    week.contribute(present)
    fleet.coordinator.stop()
    calendar.set(4, 5, 30)
    fleet.coordinator.serve()
    week.answer(present)
    week.ended(present)

    # Night 5: it is half past two twice. Uploads end between the two; six o'clock comes an hour later.
    week.evening(5)
    calendar.set(5, 2, 30, winter=False)
    week.contribute(present)
    calendar.set(5, 2, 45, winter=True)
    week.answer(present[:-1])
    calendar.set(5, 5, 30)
    week.wake(present[-1:])
    week.ended(present)
    calendar.set(5, 6, 30)
    assert "22:00-06:00" in week.wake_one(1, expect=NOT_NOW).stdout

    # Night 6: two devices only. No sum is made of so few, and everybody is told.
    before = fleet.releases()
    week.evening(6)
    calendar.set(6, 1, 30)
    week.contribute([1, 2])
    calendar.set(6, 5, 30)
    week.until(CohortState.VOID)
    week.wake([3, 4, 6, 7, 8])
    (cohort,) = fleet.round(6)["cohorts"]
    assert cohort["state"] == "void"
    assert f"2 contributions came before the last upload deadline, n_min is {ENOUGH}" in cohort["reason"]
    assert fleet.releases() == before

    # Night 7: all who are left, the two of last night too: what they had sent can no longer be opened.
    week.evening(7)
    calendar.set(7, 1, 30)
    week.contribute([3, 4, 6, 7, 8, 1, 2])
    calendar.set(7, 5, 30)
    week.answer(present)
    week.ended(present)

    ledgers_agree_with_the_log(week)


def ledgers_agree_with_the_log(week: Week) -> None:
    """What each device wrote down is what the coordinator has and logged, and nothing is on one side only."""
    fleet = week.fleet
    entries = [
        log_pb2.LogEntry.FromString(row["entry"]) for row in query(fleet.database, "SELECT entry FROM log_entries")
    ]
    plans = {entry.digest.hex() for entry in entries if entry.kind == log_pb2.LOG_ENTRY_KIND_PLAN}
    fleet.coordinator.command("log", "verify")
    for device in fleet.devices:
        given = [
            entry["details"] for entry in device.command("ledger", "--json").json if entry["kind"] == "contribution"
        ]
        assert given
        assert {contribution["plan_hash"] for contribution in given} <= plans
        stored = query(
            fleet.database,
            "SELECT cohort_id FROM contributions WHERE device_id = ?",
            bytes.fromhex(device_id(device)),
        )
        assert sorted(row["cohort_id"].hex() for row in stored) == sorted(
            contribution["cohort"] for contribution in given
        )
        if device is not week.device(5):
            device.command("log", "verify")


def device_id(device: Device) -> str:
    """Hex."""
    identifier: str = device.command("status", "--json", expect=None).json["device_id"]
    return identifier
