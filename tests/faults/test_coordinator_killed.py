"""kill -9 of the coordinator, after the uploads and at every failpoint: the night completes with the same set U.

Each test walks real processes to the moment in question, lets the coordinator
die there as in a power cut, starts it again on the same directory, and finishes
the night. What stops a wrong or second count is the rule of
`coordinator.rounds.states`: a step is one transaction, committed before anybody
is told, and the running sum is moved by the transaction that marks a
contribution counted (`coordinator.aggregation.folding`).
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from coordinator.leases import TERM_S
from nightshift.host import failpoints
from scripts.night.fleet import Device
from tests.support import certificate_failpoints, store_failpoints
from tests.support.fleets import SIGKILLED, TASK, WINDOW_S, Fleet, Snapshots, join, query, task_toml, wait_until
from tests.support.garbling_device import contribute_garbage

pytestmark = pytest.mark.slow

FleetFrom = Callable[[Path], Fleet]
SOURCES = Path(__file__).parents[2] / "coordinator"
PARTIAL, UNREACHABLE = 3, 13


def die_at(fleet: Fleet, failpoint: str, step: Callable[[], object]) -> None:
    """Serve until the failpoint kills the coordinator in the middle of a step."""
    fleet.coordinator.serve({failpoints.ENVIRONMENT_VARIABLE: failpoint})
    process = fleet.coordinator.process
    assert process is not None
    step()
    wait_until(lambda: process.poll() is not None)
    assert process.returncode == SIGKILLED, fleet.coordinator.log_tail()


def frozen_set(fleet: Fleet) -> bytes | None:
    """hash(U) of round 1 as the coordinator's database has it."""
    found: bytes | None = fleet.cohort()["set_hash"]
    return found


def finish(fleet: Fleet, *, contributors: list[Device]) -> None:
    """Answer with every device that has not, and see the right sum and one release."""
    for device in fleet.devices:
        if fleet.releases() == [0]:
            device.run()
    cohort = fleet.cohort()
    assert cohort["state"] == "opened", cohort["reason"]
    assert cohort["counted"] == len(contributors)
    assert fleet.sum_is_exact(contributors)
    assert fleet.releases() == [0, 1]


def test_after_the_uploads_and_before_the_answers(snapshots: Snapshots, fleet_from: FleetFrom) -> None:
    """Tries: kill -9 right after the last upload, and again after the first answer.

    What stops a loss: U is frozen and logged in the transaction of the last
    count (coordinator/rounds/transitions.py); the restarted service finds it.
    """
    fleet = fleet_from(snapshots.uploaded(3, 2))
    with fleet.serving() as coordinator:
        assert fleet.devices[2].run().json["sent"] == [f"{TASK}/1"]
        coordinator.kill()
        frozen, counted = frozen_set(fleet), fleet.counted()
        assert frozen is not None
        assert len(counted) == 3

        coordinator.serve()
        assert len(fleet.devices[0].run().json["answered"]) == 1
        coordinator.kill()
        assert fleet.devices[1].run(expect=UNREACHABLE).json["answered"] == []

        coordinator.serve()
        finish(fleet, contributors=fleet.devices)
        assert frozen_set(fleet) == frozen
        assert fleet.counted() == counted


@dataclass(frozen=True)
class Moment:
    """Where a failpoint is passed: the snapshot before it, the device that comes, and how that device's run ends."""

    snapshot: Callable[[Snapshots], Path]
    visitor: int
    exit_code: int
    frozen_before: bool = False


CONTRIBUTION = Moment(lambda made: made.uploaded(3, 2), visitor=2, exit_code=PARTIAL)
BUNDLE = Moment(lambda made: made.uploaded(3, 3), visitor=0, exit_code=UNREACHABLE, frozen_before=True)
LAST_ANSWER = Moment(lambda made: made.answered(3, 2), visitor=2, exit_code=UNREACHABLE, frozen_before=True)

WITH_A_DEVICE = {
    "coordinator.check-in.durable": Moment(lambda made: made.uploaded(3, 2), visitor=2, exit_code=UNREACHABLE),
    "coordinator.announcement.durable": CONTRIBUTION,
    "coordinator.part.stored": CONTRIBUTION,
    "coordinator.part.durable": CONTRIBUTION,
    "coordinator.fold.before-commit": CONTRIBUTION,
    "coordinator.upload.durable": CONTRIBUTION,
    "coordinator.freeze.committed": CONTRIBUTION,
    "coordinator.bundle.streaming": BUNDLE,
    "coordinator.answer.durable": LAST_ANSWER,
    "coordinator.open.before-commit": LAST_ANSWER,
    "coordinator.sum.durable": LAST_ANSWER,
    "coordinator.release.before-commit": LAST_ANSWER,
    "coordinator.release.committed": LAST_ANSWER,
    "coordinator.erase.before-commit": LAST_ANSWER,
}
BY_ITSELF = {
    "coordinator.lease.taken",
    "coordinator.plan.committed",
    "coordinator.join.committed",
    "coordinator.erasure.durable",
    "coordinator.refusal.durable",
    "coordinator.void.committed",
}


@pytest.mark.parametrize("failpoint", WITH_A_DEVICE)
def test_at_a_failpoint(failpoint: str, snapshots: Snapshots, fleet_from: FleetFrom) -> None:
    """Tries: kill -9 inside a device's call, on either side of each commit.

    What stops a double count or a lost night: the device keeps what it could not
    send and sends the same bytes again; the rows say what counted
    (coordinator/aggregation/{uploads,folding,answers,opening}.py).
    """
    moment = WITH_A_DEVICE[failpoint]
    fleet = fleet_from(moment.snapshot(snapshots))
    frozen = frozen_set(fleet)
    assert (frozen is not None) is moment.frozen_before
    visitor = fleet.devices[moment.visitor]
    die_at(fleet, failpoint, lambda: visitor.run(expect=moment.exit_code))

    with fleet.serving():
        visitor.run()
        assert len(fleet.counted()) == 3
        finish(fleet, contributors=fleet.devices)
    assert frozen is None or frozen_set(fleet) == frozen


def test_at_the_deadline(snapshots: Snapshots, fleet_from: FleetFrom) -> None:
    """Tries: kill -9 right after the ticker froze a set at the upload deadline, with one device missing.

    What stops a second set: freezing is one transaction (coordinator/rounds/advance.py),
    and the late device, which comes after the restart, finds no open cohort.
    """
    fleet = fleet_from(snapshots.uploaded(6, 5))
    die_at(fleet, "coordinator.freeze.committed", lambda: fleet.move_clock(WINDOW_S + 60))
    frozen = frozen_set(fleet)
    assert frozen is not None
    with fleet.serving():
        late = fleet.devices[5].run().json
        assert late["sent"] == []
        assert len(late["answered"]) == 1
        finish(fleet, contributors=fleet.devices[:5])
    assert frozen_set(fleet) == frozen


def test_when_a_cohort_was_void_and_its_round_not_yet(snapshots: Snapshots, fleet_from: FleetFrom) -> None:
    """Tries: kill -9 between the void of a round's only cohort, by the deadline, and the end of the round.

    What stops a round that runs for ever, with its task blocked: the restarted service
    ends every round whose cohorts have ended (coordinator/rounds/conclusion.py).
    """
    fleet = fleet_from(snapshots.uploaded(3, 2))
    die_at(fleet, "coordinator.void.committed", lambda: fleet.move_clock(WINDOW_S + 60))
    shown = fleet.round()
    assert (shown["state"], shown["cohorts"][0]["state"]) == ("running", "void")
    with fleet.serving():
        wait_until(lambda: fleet.round()["state"] == "void")
    assert fleet.round()["reason"] == "2 contributions came before the last upload deadline, n_min is 3"
    assert fleet.releases() == [0]


def test_when_a_round_opened_by_itself(snapshots: Snapshots, fleet_from: FleetFrom) -> None:
    """Tries: kill -9 right after an automatic round was committed, before anybody heard of it.

    What stops a second plan for the same parent: the round is there after the
    restart, and none opens beside it (coordinator/rounds/plans.py, `_require_room`).
    """
    fleet = fleet_from(snapshots.joined(3))
    task = fleet.directory / "automatic.toml"
    text = task_toml(3, 3).replace(f'name = "{TASK}"', 'name = "automatic"')
    task.write_text(text.replace('open = "operator"', 'open = "automatic"'), "utf-8")
    fleet.coordinator.command("task", "create", "-f", str(task))
    die_at(fleet, "coordinator.plan.committed", lambda: None)
    with fleet.serving() as coordinator:
        assert fleet.devices[0].run().json["sent"] == ["automatic/1"]
        rounds = coordinator.command("round", "list", "--json").json["rounds"]
    assert [(each["task"], each["round"], each["state"]) for each in rounds] == [("automatic", 1, "running")]


def test_when_it_had_just_begun_to_lead(snapshots: Snapshots, fleet_from: FleetFrom) -> None:
    """Tries: kill -9 right after the lease is durable, with a deadline that has passed and a set to be frozen.

    What stops a night that waits for a dead leader: the restarted process finds the lease in its own name and
    takes it over, with a larger token (coordinator/leases.py).
    """
    fleet = fleet_from(snapshots.uploaded(6, 5))
    fleet.move_clock(WINDOW_S + 60)
    die_at(fleet, "coordinator.lease.taken", lambda: None)
    assert frozen_set(fleet) is None
    (killed,) = query(fleet.database, "SELECT holder, token FROM leases")
    with fleet.serving():
        wait_until(lambda: frozen_set(fleet) is not None, limit_s=TERM_S / 2)
        (lease,) = query(fleet.database, "SELECT holder, token FROM leases")
        assert (lease["holder"], lease["token"]) == (killed["holder"], killed["token"] + 1)
        finish(fleet, contributors=fleet.devices[:5])


def test_when_a_device_was_enrolled(snapshots: Snapshots, fleet_from: FleetFrom) -> None:
    """Tries: kill -9 after a device was enrolled and before it got its certificate; its token has one use.

    What stops a lost or second enrolment: the same key with the same token is the
    same device (coordinator/enrolment/devices.py, `enrol`).
    """
    fleet = fleet_from(snapshots.joined(3))
    token = fleet.coordinator.command("token", "create", "--json").json["token"]
    device = Device(fleet.directory / "device4", fleet.devices[0].environment)
    device.home.mkdir(mode=0o700)
    die_at(fleet, "coordinator.join.committed", lambda: device.command("join", token, expect=UNREACHABLE))
    with fleet.serving() as coordinator:
        device.command("join", token)
        assert len(coordinator.command("device", "list", "--json").json["devices"]) == 4
        assert coordinator.command("token", "list", "--json").json["tokens"][0]["state"] == "used up"
        other = Device(fleet.directory / "device5", device.environment)
        with pytest.raises(Exception, match="used up"):
            join(other, token, first=0)


def test_when_a_member_laid_a_void_cohort_to_rest(snapshots: Snapshots, fleet_from: FleetFrom) -> None:
    """Tries: kill -9 after a member's erasure statement is durable and before the member hears so.

    What stops a second one: the rows know that it is here, and nobody asks for it (coordinator/rounds/erasures.py).
    """
    fleet = fleet_from(snapshots.uploaded(3, 3))
    device = fleet.devices[0]
    fleet.coordinator.command("round", "abort", f"{TASK}/1", "--yes")
    die_at(fleet, "coordinator.erasure.durable", lambda: device.run(expect=UNREACHABLE))
    stated = query(fleet.database, "SELECT signature FROM erasures")
    assert len(stated) == 1
    with fleet.serving():
        assert device.run().json["laid_to_rest"] == []
        assert query(fleet.database, "SELECT signature FROM erasures") == stated
        (kept,) = query(device.home / "store.sqlite3", "SELECT sent_at FROM answers")
        assert kept["sent_at"] is None, "nobody asked for it again: it is there"


def test_when_a_member_refused_a_share(snapshots: Snapshots, fleet_from: FleetFrom) -> None:
    """Tries: kill -9 after a refusal, which ends the cohort, is durable and before its member hears so.

    What stops a half of it: the refusal and the void are one transaction (coordinator/aggregation/refusals.py).
    """
    fleet = fleet_from(snapshots.uploaded(3, 2))
    with fleet.serving():
        contribute_garbage(fleet.devices[2], [1, 2, 3])
    device = fleet.devices[0]
    die_at(fleet, "coordinator.refusal.durable", lambda: device.run(expect=UNREACHABLE))
    assert fleet.cohort()["state"] == "void"
    with fleet.serving():
        assert device.run().json["refused"] == []
    assert len(query(fleet.database, "SELECT 1 FROM refusals")) == 1
    assert len(query(fleet.database, "SELECT 1 FROM erasures")) == 1


def test_every_failpoint_of_the_coordinator_is_here() -> None:
    """A failpoint that somebody adds must be killed at by one of the tests above.

    Every call is found, also one whose name is no literal, which could not be listed.
    """
    calls = [
        node
        for path in SOURCES.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "failpoint"
    ]
    assert all(isinstance(call.args[0], ast.Constant) for call in calls)
    named = {ast.literal_eval(call.args[0]) for call in calls}
    assert named == set(WITH_A_DEVICE) | BY_ITSELF | certificate_failpoints.COORDINATOR | store_failpoints.ALL
