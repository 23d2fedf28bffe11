"""Check-ins: prekeys, plans and what is in them, pace, and the log that every reply extends."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.aggregation import uploads
from coordinator.aggregation.documents import contribution_size_bytes, document_of
from coordinator.deployment import Deployment
from coordinator.rounds.advance import advance
from coordinator.rounds.offers import cohort_for, due_in_order, turns_for
from coordinator.rounds.plans import open_round
from coordinator.rounds.tasks import set_paused
from coordinator.storage.rows import Cohort, Device, PrekeyRow, Task
from nightshift.host.clock import now_unix_s
from nightshift.protocol.errors import (
    DeclinedError,
    IncompatibleError,
    MalformedError,
    SignatureInvalidError,
    StateConflictError,
    VerificationError,
)
from nightshift.protocol.identity import DeviceId
from nightshift.protocol.log import LogHead
from nightshift.protocol.secagg.prekeys import prekey_message
from nightshift.v1 import device_pb2
from tests.support.coordinators import TASK, make_task, make_token
from tests.support.scripted_device import ScriptedDevice

Join = Callable[[], ScriptedDevice]
Clock = Callable[[float], None]


def open_now(deployment: Deployment) -> None:
    with deployment.database.transaction() as session:
        open_round(session, deployment, session.get_one(Task, TASK), now_unix_s())


def pool_of(deployment: Deployment, join: Join, count: int) -> list[ScriptedDevice]:
    devices = [join() for _ in range(count)]
    for device in devices:
        device.check_in(new_prekeys=2)
    return devices


def test_prekeys_are_counted_and_sent_again_without_harm(join: Join) -> None:
    device = join()
    prekeys = [device.make_prekey() for _ in range(8)]
    assert device.check_in(prekeys=prekeys).reply.prekeys_held == 8
    assert device.check_in(prekeys=prekeys).reply.prekeys_held == 8
    assert device.check_in().reply.prekeys_held == 8


def test_too_many_prekeys_are_refused(join: Join) -> None:
    device = join()
    with pytest.raises(MalformedError, match="at most 16"):
        device.check_in(new_prekeys=17)
    device.check_in(new_prekeys=16)
    with pytest.raises(MalformedError, match="hold 16"):
        device.check_in(new_prekeys=1)


def test_prekeys_that_are_not_the_devices_are_refused(join: Join) -> None:
    device, other = join(), join()
    with pytest.raises(MalformedError, match="another device"):
        device.check_in(prekeys=[other.make_prekey()])
    good = device.make_prekey()
    with pytest.raises(SignatureInvalidError):
        device.check_in(prekeys=[replace(good, serial=7)])
    low_order = prekey_message(device.device_id, 9, 1, good.not_after, bytes(32))
    with pytest.raises(MalformedError):
        device.check_in(prekeys=[replace(good, serial=9, public=bytes(32), signature=device.sign(low_order))])
    with pytest.raises(MalformedError, match="out of range"):
        device.check_in(prekeys=[replace(good, serial=1 << 63)])
    with pytest.raises(VerificationError):
        device.check_in(prekeys=[device.make_prekey(life_s=15 * 86_400)])
    device.check_in(prekeys=[good])
    device.next_serial = good.serial
    with pytest.raises(MalformedError, match="before with another key"):
        device.check_in(new_prekeys=1)
    assert device.check_in().reply.prekeys_held == 1


def test_a_new_epoch_drops_the_old_prekeys_and_an_old_one_is_refused(join: Join) -> None:
    device = join()
    device.check_in(new_prekeys=8)
    device.epoch = 2
    assert device.check_in(new_prekeys=1).reply.prekeys_held == 1
    device.epoch = 1
    with pytest.raises(StateConflictError, match="old copy"):
        device.check_in()


def test_expired_prekeys_no_longer_count(join: Join, clock: Clock) -> None:
    device = join()
    device.check_in(prekeys=[device.make_prekey(life_s=100), device.make_prekey(life_s=1000)])
    clock(500)
    assert device.check_in().reply.prekeys_held == 1


def test_a_round_needs_its_pool(served: Deployment, join: Join, package: Path) -> None:
    make_task(served, package, cohort={"n_max": 8, "n_min": 3, "pool_min": 4})
    devices = pool_of(served, join, 3)
    with pytest.raises(DeclinedError, match=r"3 devices were seen .* 4 are needed"):
        open_now(served)
    join().check_in()  # without a prekey a device cannot serve
    with pytest.raises(DeclinedError, match="3 devices"):
        open_now(served)
    join().check_in(new_prekeys=1)
    open_now(served)
    with pytest.raises(DeclinedError, match="must end first"):
        open_now(served)
    assert devices[0].check_in().plan is not None


def test_a_plan_binds_one_prekey_of_each_member(served: Deployment, join: Join, package: Path) -> None:
    make_task(served, package)
    devices = pool_of(served, join, 4)
    open_now(served)
    for device in devices:
        greeting = device.check_in()
        assert greeting.reply.prekeys_held == 1
        assert greeting.plan is not None
        document = greeting.plan.document
        assert {member.prekey.device_id for member in document.committee} == {one.device_id for one in devices}
        mine = next(member for member in document.committee if member.prekey.device_id == device.device_id)
        with served.database.reading() as session:
            row = session.get_one(PrekeyRow, (device.device_id, mine.prekey.epoch, mine.prekey.serial))
        assert (row.spent_on, row.serial) == (document.cohort_id, 0)


def test_devices_not_seen_for_two_days_are_not_in_the_pool(
    served: Deployment, join: Join, package: Path, clock: Clock
) -> None:
    make_task(served, package)
    devices = pool_of(served, join, 4)
    clock(49 * 3600)
    for device in devices[:3]:
        device.check_in()
    open_now(served)
    plan = devices[0].check_in().plan
    assert plan is not None
    assert set(plan.document.pool) == {device.device_id for device in devices[:3]}


def test_prekeys_that_expire_before_the_answers_end_do_not_serve(served: Deployment, join: Join, package: Path) -> None:
    make_task(served, package)  # uploads 600 s, answers 600 s
    devices = pool_of(served, join, 2)
    short = join()
    short.check_in(prekeys=[short.make_prekey(life_s=1100)])
    with pytest.raises(DeclinedError, match="2 devices"):
        open_now(served)
    short.check_in(prekeys=[short.make_prekey(life_s=1300)])
    open_now(served)
    plan = devices[0].check_in().plan
    assert plan is not None
    mine = next(member for member in plan.document.committee if member.prekey.device_id == short.device_id)
    assert mine.prekey.serial == 1


def test_an_automatic_round_opens_with_the_check_in_that_completes_the_pool(
    served: Deployment, join: Join, package: Path
) -> None:
    make_task(served, package, rounds={"open": "automatic"}, cohort={"n_max": 8, "n_min": 3, "pool_min": 4})
    devices = [join() for _ in range(4)]
    assert [device.check_in(new_prekeys=1).plan is not None for device in devices] == [False, False, False, True]


def test_a_paused_task_opens_nothing(served: Deployment, join: Join, package: Path) -> None:
    make_task(served, package, rounds={"open": "automatic"})
    with served.database.transaction() as session:
        set_paused(session, TASK, paused=True)
    devices = pool_of(served, join, 3)
    assert devices[0].check_in().plan is None
    with pytest.raises(DeclinedError, match="paused"):
        open_now(served)
    with served.database.transaction() as session:
        set_paused(session, TASK, paused=False)
    advance(served)  # as the ticker does, twice a second
    assert devices[0].check_in().plan is not None


def test_no_plan_is_offered_to_who_wants_none(served: Deployment, join: Join, package: Path) -> None:
    make_task(served, package)
    devices = pool_of(served, join, 3)
    open_now(served)
    assert devices[0].check_in(no_plan=True).plan is None
    assert devices[0].check_in().plan is not None


def test_a_device_certified_after_the_plan_was_logged_waits_for_the_next(
    served: Deployment, join: Join, package: Path, clock: Clock
) -> None:
    make_task(served, package, rounds={"upload_window_s": 20_000})
    devices = pool_of(served, join, 3)
    open_now(served)
    clock(7200)
    # Its certificate begins an hour before it joined, so an hour after the plan: members would refuse it.
    late = ScriptedDevice(make_token(served))
    late.join()
    # Asked of the core, because TLS knows only the real time, by which the certificate is not yet valid.
    with served.database.reading() as session:
        due, root = due_in_order(session), served.authority.root
        rows = [session.get_one(Device, device.device_id) for device in (late, devices[0])]
        offered = {row.device_id: cohort_for(turns_for(session, due, row, root, now_unix_s())) for row in rows}
        row = session.get_one(Device, late.device_id)
        cohort_id = offered[devices[0].device_id]
        assert cohort_id is not None
        cohort = session.get_one(Cohort, cohort_id)
    assert offered[late.device_id] is None
    # One such contributor would spoil the set for all: it is refused even if it does not wait for an offer.
    with pytest.raises(StateConflictError, match="certified after"):
        uploads.announce(
            served,
            row,
            cohort_id=cohort.cohort_id,
            plan_hash=cohort.plan_hash,
            size_bytes=contribution_size_bytes(document_of(cohort)),
            signature=bytes(64),
            now_unix_s=now_unix_s(),
        )


def test_versions_that_do_not_meet_are_refused(join: Join) -> None:
    with pytest.raises(IncompatibleError, match="this coordinator 1 to 1"):
        join().check_in(versions=(2, 3))
    assert join().check_in(versions=(1, 7)).reply.protocol_version == 1


def test_the_pace_follows_the_deadlines(served: Deployment, join: Join, package: Path) -> None:
    idle = join().check_in().reply.next_check_in
    assert (idle.not_before_s, idle.window_s) == (3600, 1800)
    make_task(served, package)
    devices = pool_of(served, join, 3)
    open_now(served)
    assert devices[0].check_in().reply.next_check_in.not_before_s == 0
    waiting = devices[0].check_in(no_plan=True).reply.next_check_in
    assert 590 <= waiting.not_before_s <= 601
    assert waiting.window_s == 300


def test_members_come_soon_after_the_uploads_end_and_others_in_their_own_time(
    served: Deployment, join: Join, package: Path
) -> None:
    make_task(served, package, rounds={"open": "operator", "upload_window_s": 600, "answer_window_s": 86_400})
    member = pool_of(served, join, 3)[0]
    open_now(served)
    later = join()
    later.check_in()
    assert member.check_in(no_plan=True).reply.next_check_in.window_s == 1800
    assert later.check_in(no_plan=True).reply.next_check_in.window_s == 4 * 3600


def test_a_device_that_says_its_night_is_asked_back_in_it(served: Deployment, join: Join) -> None:
    device = join()
    in_six_hours = time.gmtime(now_unix_s() + 6 * 3600).tm_hour
    device.night_hours = device_pb2.NightHours(begin_hour_utc=in_six_hours, length_h=8)
    pace = device.check_in().reply.next_check_in
    assert 5 * 3600 <= pace.not_before_s <= 6 * 3600, "not in an hour, as it would be otherwise"
    assert pace.window_s == 7 * 3600, "all of the night but its last hour"
    device.night_hours = device_pb2.NightHours(begin_hour_utc=24, length_h=8)
    with pytest.raises(MalformedError, match="night hours"):
        device.check_in()
    device.night_hours = None
    assert device.check_in().reply.next_check_in.not_before_s == 3600, "nothing of it is kept"


def test_a_log_that_the_coordinator_never_had_gets_no_proof(join: Join) -> None:
    device = join()
    device.check_in()
    device.head = LogHead(1000, bytes(32))
    with pytest.raises(VerificationError, match="shrank"):
        device.check_in()


def test_what_a_device_sends_as_its_version_cannot_forge_output(served: Deployment, join: Join) -> None:
    device = join()
    device.check_in()
    with served.database.reading() as session:
        row = session.get_one(Device, DeviceId(device.device_id))
    assert row.client_version == "scripted"
    assert row.last_seen_unix_s is not None
