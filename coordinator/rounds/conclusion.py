"""The end of a round: when its last cohort has ended, what was learned becomes one release.

The sums of the opened cohorts are durable by then. The adapter is written first,
then one transaction signs and logs the release and ends the round. Killed
before it, the next attempt computes the same adapter from the same sums.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.aggregation import fedavg, server_memory
from coordinator.aggregation.documents import document_of
from coordinator.aggregation.fedavg import CohortSum, RoundSum
from coordinator.aggregation.opening import opened_sum
from coordinator.deployment import Deployment
from coordinator.diagnostics import log
from coordinator.releases.publication import StoredAdapter, load_adapter, publish, store_adapter
from coordinator.rounds.rounds import cohorts_of, goes_on
from coordinator.rounds.states import RoundEvent, next_round_state
from coordinator.rounds.task_settings import TaskSettings
from coordinator.storage.rows import Cohort, CohortState, ReleaseRow, Round, RoundState, Task
from nightshift.host.failpoints import failpoint
from nightshift.protocol.adapters.errors import FormatError


def conclude(deployment: Deployment, task: str, number: int, now_unix_s: int) -> bool:
    """End a running round if all its cohorts have ended; returns whether it did."""
    with deployment.locks.holding("conclude", f"{task}/{number}".encode()):
        with deployment.database.reading() as session:
            found = session.get_one(Round, (task, number))
            if found.state is not RoundState.RUNNING or goes_on(session, found):
                return False
            cohorts = cohorts_of(session, found)
            parent = session.get_one(ReleaseRow, found.parent_release)
            opened = [cohort for cohort in cohorts if cohort.state is CohortState.OPENED]
            documents = [document_of(cohort) for cohort in opened]
        if not opened:
            _end(deployment, found, RoundEvent.FAIL, _why_void(cohorts), now_unix_s)
            return True
        learned = fedavg.combined(
            [
                CohortSum(document.slots, opened_sum(deployment.objects, cohort))
                for cohort, document in zip(opened, documents, strict=True)
            ]
        )
        try:
            made = _candidate(deployment, parent, learned)
        except FormatError as error:
            _end(deployment, found, RoundEvent.DISCARD, str(error), now_unix_s)
            return True
        failpoint("coordinator.release.before-commit")
        _publish(deployment, found, opened, made=made, learned=learned, now_unix_s=now_unix_s)
        failpoint("coordinator.release.committed")
        return True


@dataclass(frozen=True, slots=True)
class Candidate:
    """The next adapter, and the key of what the server's optimiser remembers with it; both durable as objects."""

    adapter: StoredAdapter
    memory_key: str | None


def _candidate(deployment: Deployment, parent: ReleaseRow, learned: RoundSum) -> Candidate:
    with deployment.database.reading() as session:
        settings = TaskSettings.model_validate_json(session.get_one(Task, parent.task).settings)
    server = settings.server.optimiser()
    memories = server_memory.load(deployment.objects, parent) if server.remembers else {}
    layout, tensors = load_adapter(deployment.objects, parent)
    moved, remembered = fedavg.next_adapter(tensors, learned, server, memories.get(learned.side))
    if remembered is not None:
        memories[learned.side] = remembered
    return Candidate(
        store_adapter(deployment.objects, layout, moved), server_memory.store(deployment.objects, memories)
    )


def _publish(
    deployment: Deployment,
    found: Round,
    opened: Sequence[Cohort],
    *,
    made: Candidate,
    learned: RoundSum,
    now_unix_s: int,
) -> None:
    with deployment.database.transaction() as session:
        row = session.get_one(Round, (found.task, found.number))
        row.state = next_round_state(row.state, RoundEvent.PUBLISH)
        release = publish(
            session,
            deployment,
            session.get_one(Task, row.task),
            made.adapter,
            parent=session.get_one(ReleaseRow, row.parent_release),
            plan_hashes=[cohort.plan_hash for cohort in opened],
            contributors=learned.contributors,
            now_unix_s=now_unix_s,
        )
        release.server_memory_key = made.memory_key
        row.release_id = release.release_id
        row.ended_unix_s = now_unix_s
        row.metrics = json.dumps(fedavg.means(learned))
    log.info("release published", task=release.task, number=release.number, cohorts=len(opened))


def _end(deployment: Deployment, found: Round, event: RoundEvent, reason: str, now_unix_s: int) -> None:
    with deployment.database.transaction() as session:
        row = session.get_one(Round, (found.task, found.number))
        row.state = next_round_state(row.state, event)
        row.ended_unix_s = now_unix_s
        row.reason = reason
    log.warning("round void", task=found.task, round=found.number, reason=reason)


def _why_void(cohorts: Sequence[Cohort]) -> str:
    if len(cohorts) == 1:
        return cohorts[0].reason
    return f"each of {len(cohorts)} cohorts is void: " + "; ".join(
        f"{place}: {cohort.reason}" for place, cohort in enumerate(cohorts, start=1)
    )
