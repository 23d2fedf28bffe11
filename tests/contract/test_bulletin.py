"""What check-ins tell everyone alike is kept, and is yet what the rows say now, whichever process changed them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from coordinator.configuration import Listen
from coordinator.deployment import Deployment
from coordinator.enrolment.addresses import record_addresses
from coordinator.enrolment.devices import revoke
from coordinator.releases import decisions
from coordinator.releases.publication import find_release
from coordinator.releases.repository import refresh_metadata
from coordinator.rounds.advance import abort, advance
from coordinator.rounds.bulletin import Board, Bulletin, make
from coordinator.rounds.plans import open_round
from coordinator.rounds.task_settings import TaskSettings
from coordinator.rounds.tasks import create_task, set_paused
from coordinator.rounds.transitions import extend
from coordinator.storage.rows import Cohort, CohortState, Device, Round, RoundState, Task
from nightshift.host.clock import now_unix_s
from tests.support.coordinators import TASK, make_replica, make_token, open_home
from tests.support.fleets import Snapshots
from tests.support.nights import Night, night
from tests.support.scripted_device import ScriptedDevice
from tests.support.stores import DATABASES, StorageOf

pytestmark = pytest.mark.slow
OTHER = "an-other"


@dataclass(frozen=True)
class Replicas:
    """A night, and a second process's worth of its coordinator, which only reads.

    Attributes:
        night: its round is open.
        second: the other.
        board: of the other.
    """

    night: Night
    second: Deployment
    board: Board

    @property
    def first(self) -> Deployment:
        served: Deployment = self.night.deployment
        return served

    def read(self) -> Bulletin:
        """The second's bulletin now; asserts that it is what would be made anew of the same rows."""
        with self.second.database.reading() as session:
            kept = self.board.read(session)
            require_same(kept, make(session, self.second, ()))
            assert self.board.read(session) is kept, "made once"
        return kept

    def after(self, change: Callable[[], object]) -> Bulletin:
        """What the second tells after the first has changed something; asserts that it noticed."""
        before = self.read()
        change()
        found = self.read()
        assert found is not before
        return found

    def after_rows(self, change: Callable[[Session], object]) -> Bulletin:
        """The same, for a change in one transaction."""

        def changed() -> None:
            with self.first.database.transaction() as session:
                change(session)

        return self.after(changed)


def require_same(kept: Bulletin, anew: Bulletin) -> None:
    assert kept.told == anew.told
    assert (kept.due, kept.waits, kept.snapshot.size) == (anew.due, anew.waits, anew.snapshot.size)


@pytest.fixture(params=DATABASES)
def replicas(
    request: pytest.FixtureRequest,
    storage_of: StorageOf,
    tmp_path: Path,
    snapshots: Snapshots,
    move_clock: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Replicas]:
    storage = storage_of(f"{request.param}-directory")
    if not storage.database:
        storage = storage.model_copy(update={"database": f"sqlite:///{tmp_path / 'rows.sqlite3'}"})
    read = Board.read

    def compared(board: Board, session: Session) -> Bulletin:
        """Also for every check-in that the first answers: a difference fails the call, and so the test."""
        kept = read(board, session)
        require_same(kept, make(session, board._deployment, ()))
        return kept

    monkeypatch.setattr(Board, "read", compared)
    with night(tmp_path / "first", snapshots.package(), move_clock, devices=5, storage=storage) as made:
        home = make_replica(made.deployment.home, tmp_path / "second")
        home.objects_directory.symlink_to(made.deployment.home.objects_directory)
        with open_home(home) as second:
            yield Replicas(made, second, Board(second))


def cohort_in(session: Session, replicas: Replicas) -> Cohort:
    return session.get_one(Cohort, replicas.night.plan.document.cohort_id)


def test_each_kind_of_change_is_told_at_the_next_check_in(replicas: Replicas) -> None:
    first, now = replicas.first, now_unix_s()
    device = replicas.night.devices[0].device_id
    found = replicas.after_rows(
        lambda s: revoke(s, first.log, s.get_one(Device, device), reason="lost", now_unix_s=now)
    )
    assert list(found.told.revocation.device_ids) == [device]

    assert replicas.after_rows(lambda s: set_paused(s, TASK, paused=True)).due != ()  # its round still runs
    replicas.after_rows(lambda s: set_paused(s, TASK, paused=False))

    settings = TaskSettings.model_validate_json(_task(first).settings).model_copy(update={"name": OTHER})
    found = replicas.after_rows(lambda s: create_task(s, first, settings, now + 1))
    assert [due.task for due in found.due] == [TASK, OTHER]
    assert len(found.told.decisions) == 2
    # One is paused and the other resumed between two looks: as many are active as before.
    replicas.after_rows(lambda s: set_paused(s, OTHER, paused=True))
    replicas.after_rows(lambda s: (set_paused(s, OTHER, paused=False), set_paused(s, TASK, paused=True)))
    replicas.after_rows(lambda s: set_paused(s, TASK, paused=False))

    before = replicas.read().told.release_metadata.version
    assert replicas.after(lambda: refresh_metadata(first, now, everything=True)).told.release_metadata.version > before

    moved = first.configuration.model_copy(update={"listen": _listen_elsewhere(first)})
    found = replicas.after_rows(lambda s: record_addresses(s, moved, now + 1))
    assert found.told.addresses.device_address == moved.device_address()

    late = ScriptedDevice(make_token(first), name="late")
    assert replicas.after(late.join).snapshot.size > 0

    replicas.after_rows(lambda s: extend(s, first, cohort_in(s, replicas), now))
    found = replicas.after_rows(lambda s: abort(s, first, [cohort_in(s, replicas)], "a wrong task"))
    advance(first)
    with replicas.second.database.reading() as session:
        assert session.get_one(Round, (TASK, 1)).state is RoundState.VOID
    found = replicas.read()
    assert (found.waits, [due.division for due in found.due]) == (frozenset(), [None, None])


def test_a_whole_night_is_told_as_it_goes(replicas: Replicas) -> None:
    """Check-ins between all steps go to the first, where the fixture compares; the second is looked at here."""
    made, first = replicas.night, replicas.first
    kept = replicas.read()
    prepared = made.contribute(*made.devices[:3])
    for device in made.devices:
        device.check_in()
    found = replicas.read()
    # The ticker of a coordinator that has just begun signs the release metadata again.
    signed_again = found.told.release_metadata != kept.told.release_metadata
    assert found is kept or signed_again, "what devices do by themselves changes nothing for the others"
    prepared += made.contribute(made.devices[3])

    frozen = replicas.after(made.end_uploads)
    assert {wait.state for wait in frozen.waits} == {CohortState.FROZEN}
    assert made.members()[0].check_in().duties == [made.plan.document.cohort_id]

    published = replicas.after(lambda: made.answer(*made.members()[:4]))  # four of five open it
    made.require_exact_sum(prepared)
    assert len(published.told.releases) == 2
    assert [due.division for due in published.due] == [None]
    assert published.due[0].served_unix_s > 0
    for device in made.devices:
        device.check_in(new_prekeys=1)

    release = replicas.after_rows(
        lambda s: decisions.promote(s, first, find_release(s, f"{TASK}/1"), reason="a test", now_unix_s=now_unix_s())
    )
    assert release.told.decisions[0].decision != published.told.decisions[0].decision
    running = replicas.after_rows(lambda s: open_round(s, first, s.get_one(Task, TASK), now_unix_s()))
    assert [len(due.division.places) for due in running.due if due.division is not None] == [1]
    offers = [device.check_in() for device in made.devices]
    assert all(greeting.plan is not None for greeting in offers)


def test_that_a_sum_was_opened_is_noticed_though_it_is_not_logged(replicas: Replicas) -> None:
    replicas.night.stop()  # else its ticker would take the next step at once

    def opened(session: Session) -> None:
        cohort_in(session, replicas).state = CohortState.OPENED

    def ended(session: Session) -> None:
        session.get_one(Round, (TASK, 1)).state = RoundState.VOID

    assert len(replicas.read().waits) == 1
    found = replicas.after_rows(opened)
    assert found.waits == frozenset()
    assert replicas.after_rows(ended).due != found.due


def _task(deployment: Deployment) -> Task:
    with deployment.database.reading() as session:
        return session.get_one(Task, TASK)


def _listen_elsewhere(deployment: Deployment) -> Listen:
    return deployment.configuration.listen.model_copy(update={"addresses": ["127.0.0.2"]})
