"""kill -9 at every named place: the restarted coordinator goes on in the same round, with the same U."""

from __future__ import annotations

import io
import re
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from coordinator.home import Home
from coordinator.leases import LEADER
from coordinator.rounds.advance import abort
from coordinator.rounds.plans import open_round
from coordinator.storage.rows import Cohort, CohortState, Device, Lease, Round, RoundState, Task
from nightshift.host.clock import now_unix_s
from nightshift.host.failpoints import ENVIRONMENT_VARIABLE
from nightshift.protocol.errors import UnreachableError
from nightshift.protocol.secagg.erasure import sign_erasure
from nightshift.protocol.secagg.refusal import ShareFault, UnusableShare, sign_refusal
from nightshift.v1 import device_pb2
from tests.support import store_failpoints
from tests.support.coordinators import TASK, ServeProcess, make_task, make_token, open_home
from tests.support.renewals import begin, end, renew
from tests.support.scripted_device import Prepared, ScriptedDevice

ALIVE = 0
ROOT = Path(__file__).resolve().parents[3]


class Night:
    """Three devices and a coordinator in a process that may be killed at a failpoint."""

    def __init__(self, home: Home, package: Path, **rounds: str) -> None:
        self.home = home
        with open_home(home) as deployment:
            token = make_token(deployment)
            make_task(
                deployment,
                package,
                cohort={"n_max": 3, "n_min": 3},
                rounds={"upload_window_s": 600, "answer_window_s": 600} | rounds,
            )
        self.devices = [ScriptedDevice(token, name=str(number)) for number in range(3)]
        self.prepared: list[Prepared] = []

    def start(self, failpoint: str = "") -> ServeProcess:
        for device in self.devices:
            device.close()
        serve = ServeProcess(self.home, **({ENVIRONMENT_VARIABLE: failpoint} if failpoint else {}))
        serve.wait_until_ready()
        return serve

    def enrol(self) -> None:
        for device in self.devices:
            device.join()
            device.check_in(new_prekeys=2)
        with open_home(self.home) as deployment, deployment.database.transaction() as session:
            open_round(session, deployment, session.get_one(Task, TASK), now_unix_s())

    def prepare(self) -> None:
        for number, device in enumerate(self.devices):
            plan = device.check_in().plan
            assert plan is not None
            delta = np.random.default_rng(number).uniform(-0.1, 0.1, plan.document.vector.delta_length)
            self.prepared.append(device.prepare(plan, delta.astype(np.float32)))

    def upload(self) -> None:
        for device, prepared in zip(self.devices, self.prepared, strict=True):
            assert device.upload(prepared).complete

    def answer(self) -> None:
        for device in self.devices:
            for duty in device.check_in(no_plan=True).duties:
                device.send_answer(device.make_answer(duty))

    def cohort(self) -> Cohort:
        with open_home(self.home) as deployment, deployment.database.reading() as session:
            return session.scalars(select(Cohort)).one()

    def round(self) -> Round:
        with open_home(self.home) as deployment, deployment.database.reading() as session:
            return session.scalars(select(Round)).one()

    def require_the_exact_sum(self) -> None:
        with open_home(self.home) as deployment:
            with deployment.database.reading() as session:
                cohort = session.scalars(select(Cohort)).one()
            assert cohort.state is CohortState.OPENED
            data = deployment.objects.get(f"sums/{cohort.cohort_id.hex()}.npy")
        assert np.array_equal(np.load(io.BytesIO(data)), sum(one.values for one in self.prepared))

    def close(self) -> None:
        for device in self.devices:
            device.close()


@pytest.fixture
def night(home: Home, package: Path) -> Night:
    return Night(home, package)


def until_killed(serve: ServeProcess, step: Callable[[], None]) -> None:
    """The step meets the failpoint; the device sees a lost connection."""
    with pytest.raises(UnreachableError):
        step()
    assert serve.wait_for_death() == -signal.SIGKILL


def test_killed_between_uploads_and_answers_it_goes_on_with_the_same_set(night: Night) -> None:
    serve = night.start()
    night.enrol()
    night.prepare()
    night.upload()
    serve.kill()
    before = night.cohort()
    assert before.state is CohortState.FROZEN

    serve = night.start()
    night.answer()
    after = night.cohort()
    assert (after.set_hash, after.set_position, after.counted) == (before.set_hash, before.set_position, 3)
    assert serve.terminate() == ALIVE
    night.require_the_exact_sum()
    night.close()


@pytest.mark.parametrize(
    "failpoint",
    [
        "coordinator.announcement.durable",
        "coordinator.part.stored",
        "coordinator.part.durable",
        "coordinator.part.durable:3",
        "coordinator.fold.before-commit",
        "coordinator.fold.before-commit:2",
        "coordinator.upload.durable",
        "coordinator.upload.durable:3",
        "coordinator.freeze.committed",
    ],
)
def test_killed_while_uploads_come_no_device_is_lost_or_counted_twice(night: Night, failpoint: str) -> None:
    serve = night.start(failpoint)
    night.enrol()
    night.prepare()
    until_killed(serve, night.upload)
    serve = night.start()
    night.upload()
    assert night.cohort().counted == 3
    night.answer()
    assert serve.terminate() == ALIVE
    night.require_the_exact_sum()
    night.close()


@pytest.mark.parametrize(
    "failpoint",
    [
        "coordinator.answer.durable",
        "coordinator.answer.durable:3",
        "coordinator.open.before-commit",
        "coordinator.sum.durable",
        "coordinator.release.before-commit",
        "coordinator.release.committed",
        "coordinator.erase.before-commit",
    ],
)
def test_killed_while_answers_come_the_sum_opens_once(night: Night, failpoint: str) -> None:
    serve = night.start(failpoint)
    night.enrol()
    night.prepare()
    night.upload()
    until_killed(serve, night.answer)
    serve = night.start()
    night.answer()
    release = night.devices[0].check_in().releases
    assert max(one.document.number for one in release) == 1
    assert serve.terminate() == ALIVE
    night.require_the_exact_sum()
    with open_home(night.home) as deployment:
        assert list(deployment.objects.list("cohorts")) == []
    night.close()


def test_killed_after_enrolment_the_device_joins_again_as_itself(night: Night) -> None:
    device = night.devices[0]
    serve = night.start("coordinator.join.committed")
    until_killed(serve, device.join)
    serve = night.start()
    device.join()
    device.check_in()
    with open_home(night.home) as deployment, deployment.database.reading() as session:
        assert [row.device_id for row in session.scalars(select(Device))] == [device.device_id]
    serve.terminate()
    night.close()


def test_killed_after_a_check_in_the_prekeys_are_there(night: Night) -> None:
    device = night.devices[0]
    serve = night.start("coordinator.check-in.durable")
    device.join()
    until_killed(serve, lambda: device.check_in(new_prekeys=3))
    serve = night.start()
    assert device.check_in().reply.prekeys_held == 3
    serve.terminate()
    night.close()


def test_killed_after_a_nonce_was_taken_the_same_check_in_is_taken_again(night: Night) -> None:
    device = night.devices[0]
    serve = night.start("coordinator.check-in.durable")
    device.join()
    until_killed(serve, device.check_in)
    serve = night.start()
    device.check_in()
    device.check_in()
    serve.terminate()
    night.close()


@pytest.mark.parametrize(
    ("failpoint", "days"), [("coordinator.renewal.committed", 21), ("coordinator.late-renewal.committed", 40)]
)
def test_killed_after_a_renewal_the_same_certificate_is_given_again(
    night: Night, failpoint: str, days: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offset = tmp_path / "offset"
    monkeypatch.setenv("NIGHTSHIFT_CLOCK_OFFSET_FILE", str(offset))
    device = night.devices[0]
    ask = renew if days < 30 else lambda each: end(each, begin(each))
    serve = night.start(failpoint)
    device.join()
    offset.write_text(str(days * 86_400), "ascii")
    until_killed(serve, lambda: ask(device))
    with open_home(night.home) as deployment, deployment.database.reading() as session:
        made = session.get_one(Device, device.device_id).certificate
    assert made != device.certificate
    serve = night.start()
    assert ask(device) == made
    serve.terminate()
    night.close()


def test_deadlines_that_passed_while_it_was_dead_are_acted_on(
    night: Night, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve = night.start()
    night.enrol()
    night.prepare()
    assert night.devices[0].upload(night.prepared[0]).complete
    serve.kill()
    offset = tmp_path / "offset"
    offset.write_text("700", "ascii")
    monkeypatch.setenv("NIGHTSHIFT_CLOCK_OFFSET_FILE", str(offset))
    serve = night.start()
    assert night.devices[0].check_in().reply.voids
    serve.terminate()
    assert night.cohort().state is CohortState.VOID
    night.close()


def test_killed_when_its_only_cohort_was_void_the_round_ends_too(
    night: Night, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offset = tmp_path / "offset"
    monkeypatch.setenv("NIGHTSHIFT_CLOCK_OFFSET_FILE", str(offset))
    serve = night.start("coordinator.void.committed")
    night.enrol()
    night.prepare()
    offset.write_text("700", "ascii")
    assert serve.wait_for_death() == -signal.SIGKILL
    assert (night.cohort().state, night.round().state) == (CohortState.VOID, RoundState.RUNNING)
    serve = night.start()
    night.devices[0].check_in()
    assert serve.terminate() == ALIVE
    assert (night.round().state, night.round().reason) == (RoundState.VOID, night.cohort().reason)
    night.close()


def test_killed_when_an_automatic_round_opened_the_round_is_there(home: Home, package: Path) -> None:
    night = Night(home, package, open="automatic")
    serve = night.start("coordinator.plan.committed")
    for device in night.devices:
        device.join()
    for device in night.devices[:2]:
        device.check_in(new_prekeys=2)
    until_killed(serve, lambda: night.devices[2].check_in(new_prekeys=2))
    serve = night.start()
    plans = [device.check_in().plan for device in night.devices]
    assert {plan.plan_hash for plan in plans if plan is not None} == {night.cohort().plan_hash}
    serve.terminate()
    night.close()


def test_killed_when_it_had_begun_to_lead_it_leads_again_at_once(night: Night) -> None:
    serve = night.start("coordinator.lease.taken")
    assert serve.wait_for_death() == -signal.SIGKILL
    with open_home(night.home) as deployment, deployment.database.reading() as session:
        killed = session.get_one(Lease, LEADER).token
    serve = night.start()
    night.enrol()
    night.prepare()
    night.upload()
    night.answer()
    night.require_the_exact_sum()
    with open_home(night.home) as deployment, deployment.database.reading() as session:
        assert session.get_one(Lease, LEADER).token == killed + 1
    assert serve.terminate() == ALIVE
    night.close()


def test_killed_in_mid_bundle_the_member_asks_again(night: Night) -> None:
    serve = night.start("coordinator.bundle.streaming")
    night.enrol()
    night.prepare()
    night.upload()
    until_killed(serve, night.answer)
    serve = night.start()
    night.answer()
    serve.terminate()
    night.require_the_exact_sum()
    night.close()


def test_killed_when_a_member_refused_a_share_the_cohort_is_void_and_it_is_not_asked_again(night: Night) -> None:
    serve = night.start("coordinator.refusal.durable")
    night.enrol()
    night.prepare()
    night.upload()
    member, culprit, _ = night.devices
    cohort = night.cohort()
    shares = [UnusableShare(culprit.device_id, ShareFault.DOES_NOT_OPEN)]
    said = sign_refusal(plan_hash=cohort.plan_hash, set_hash=cohort.set_hash, shares=shares, sign=member.sign)
    erasure = sign_erasure(
        plan_hash=cohort.plan_hash, cohort_id=cohort.cohort_id, member=member.device_id, sign=member.sign
    )
    request = device_pb2.RefuseRequest(
        cohort_id=cohort.cohort_id,
        set_hash=cohort.set_hash,
        shares=[device_pb2.UnusableShare(contributor=culprit.device_id, fault=ShareFault.DOES_NOT_OPEN.value)],
        signature=said.signature,
        erasure=erasure.signature,
    )
    until_killed(serve, lambda: member.refuse(request))
    assert night.cohort().state is CohortState.VOID
    serve = night.start()
    greeting = member.check_in(no_plan=True)
    assert (list(greeting.reply.duties), list(greeting.reply.erasures)) == ([], [])
    member.refuse(request)
    serve.terminate()
    night.close()


def test_killed_when_an_erasure_was_stated_it_is_there(night: Night) -> None:
    serve = night.start("coordinator.erasure.durable")
    night.enrol()
    night.prepare()
    night.upload()
    member = night.devices[0]
    with open_home(night.home) as deployment, deployment.database.transaction() as session:
        abort(session, deployment, [session.scalars(select(Cohort)).one()], "")
    request = member.make_erasure(night.cohort().cohort_id)
    until_killed(serve, lambda: member.state_erasure(request))
    serve = night.start()
    greeting = member.check_in(no_plan=True)
    assert list(greeting.reply.erasures) == []
    (void,) = greeting.reply.voids
    assert [statement.signature for statement in void.erasures] == [request.signature]
    member.state_erasure(request)
    serve.terminate()
    night.close()


def test_every_failpoint_of_the_coordinator_is_met_here() -> None:
    """A misspelt name in this file fails its own test: nothing would be killed."""
    source = "".join(path.read_text("utf-8") for path in (ROOT / "coordinator").rglob("*.py"))
    there = set(re.findall(r'failpoint\("(coordinator\.[a-z.-]+)"\)', source))
    here = set(re.findall(r'"(coordinator\.[a-z.-]+)(?::\d+)?"', Path(__file__).read_text("utf-8")))
    assert there - store_failpoints.ALL == here
