"""Who leads: a lease that runs out, a token that grows, and a refusal of what was begun under an older one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from coordinator.leases import LEADER, RENEW_EVERY_S, Leadership, LeadershipLostError
from coordinator.storage.database import Database
from coordinator.storage.rows import Lease, Setting


class Clock:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def pass_s(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def candidate(database: Database, clock: Clock) -> Callable[[str], Leadership]:
    return lambda name: Leadership(database, name, monotonic=clock)


def run_out(database: Database) -> None:
    """Let the lease's end be in the past."""
    with database.transaction() as session:
        session.get_one(Lease, LEADER).until_unix_ms = 1


def write(database: Database) -> None:
    with database.transaction() as session:
        session.merge(Setting(key="written", value="by the leader"))


def test_the_first_to_ask_leads_and_the_other_waits(candidate: Callable[[str], Leadership], clock: Clock) -> None:
    first, second = candidate("first"), candidate("second")
    token = first.token()
    assert token == 1
    assert second.token() is None
    clock.pass_s(RENEW_EVERY_S)
    assert first.token() == token, "renewed: it did not change hands"
    assert second.token() is None


def test_a_lease_that_ran_out_changes_hands_and_the_token_grows(
    database: Database, candidate: Callable[[str], Leadership], clock: Clock
) -> None:
    first, second = candidate("first"), candidate("second")
    assert first.token() == 1
    run_out(database)
    assert second.token() == 2
    clock.pass_s(RENEW_EVERY_S)
    assert first.token() is None
    assert second.token() == 2


def test_what_an_outdated_leader_begins_is_refused_and_leaves_nothing(
    database: Database, candidate: Callable[[str], Leadership]
) -> None:
    first, second = candidate("first"), candidate("second")
    token = first.token()
    assert token is not None
    outdated = first.fenced(token)
    write(outdated)
    run_out(database)
    write(outdated)  # nobody else has taken it: still the leader
    assert second.token() == token + 1
    with database.transaction() as session:
        session.delete(session.get_one(Setting, "written"))
    assert first.token() == token, "it has not noticed"
    with pytest.raises(LeadershipLostError, match="token 2"):
        write(outdated)
    with database.reading() as session:
        assert session.get(Setting, "written") is None
    write(second.fenced(token + 1))


def test_a_leader_that_ends_in_good_order_lets_another_lead_at_once(candidate: Callable[[str], Leadership]) -> None:
    first, second = candidate("first"), candidate("second")
    assert first.token() == 1
    first.release()
    assert second.token() == 2
    first.release()
    assert second.token() == 2, "what is not its own it does not release"


def test_a_restarted_process_finds_its_own_lease_but_steals_it_only_once(
    candidate: Callable[[str], Leadership], clock: Clock
) -> None:
    before, after = candidate("same"), candidate("same")
    assert before.token() == 1
    assert after.token() == 2, "a process of that name was killed: no need to wait"
    clock.pass_s(RENEW_EVERY_S)
    # It was not dead after all, two processes have one name: they must not take it from each other for ever.
    assert before.token() is None
    assert after.token() == 2


def test_the_database_is_asked_only_now_and_then(
    database: Database, candidate: Callable[[str], Leadership], clock: Clock
) -> None:
    first = candidate("first")
    assert first.token() == 1
    with database.transaction() as session:
        session.get_one(Lease, LEADER).token = 9
    assert first.token() == 1
    clock.pass_s(RENEW_EVERY_S)
    assert first.token() is None
