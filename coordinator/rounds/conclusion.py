"""The end of a round: when its last cohort has ended, what was learned becomes one release.

The sums of the opened cohorts are durable by then. They say two things: how to move the parent, and what the
devices measured of it. So a round ends in one of these ways, each one transaction:

* its release is published, and the gate has promoted the parent, or held it (`coordinator.releases.gate`);
* the gate drops the parent: what was learned from it is not used, and learning goes back to what is served;
* the sums cannot be used: learning starts again from the same adapter, under a new number;
* no cohort has a sum, or the parent was rolled back meanwhile: nothing follows.

The adapter is written first, then one transaction signs and logs the release and ends the round. Killed
before it, the next attempt computes the same adapter from the same sums.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from coordinator.aggregation import fedavg, server_memory
from coordinator.aggregation.documents import document_of
from coordinator.aggregation.fedavg import CohortSum, RoundSum
from coordinator.aggregation.opening import opened_sum
from coordinator.deployment import Deployment
from coordinator.diagnostics import log
from coordinator.releases import decisions, gate
from coordinator.releases.decisions import Outcome
from coordinator.releases.gate import Judgement, Verdict
from coordinator.releases.publication import StoredAdapter, load_adapter, newest_release, publish, store_adapter
from coordinator.rounds.rounds import cohorts_of, goes_on
from coordinator.rounds.states import ROUND, Event, RoundEvent
from coordinator.rounds.task_settings import TaskSettings
from coordinator.storage.rows import Cohort, CohortState, ReleaseRow, Round, RoundState, Task
from nightshift.host.failpoints import failpoint
from nightshift.protocol.adapters.errors import FormatError
from nightshift.protocol.decision import DecisionKind, Measurement


def conclude(deployment: Deployment, task: str, number: int, now_unix_s: int) -> bool:
    """End a running round if all its cohorts have ended; returns whether it did."""
    with deployment.locks.holding("conclude", f"{task}/{number}".encode()):
        with deployment.database.reading() as session:
            found = session.get_one(Round, (task, number))
            if found.state is not RoundState.RUNNING or goes_on(session, found):
                return False
            cohorts = cohorts_of(session, found)
            parent = session.get_one(ReleaseRow, found.parent_release)
            settings = TaskSettings.model_validate_json(session.get_one(Task, task).settings)
            opened = [cohort for cohort in cohorts if cohort.state is CohortState.OPENED]
            documents = [document_of(cohort) for cohort in opened]
        if not opened:
            _end_void(deployment, found, parent, cohorts, now_unix_s)
            return True
        learned = fedavg.combined(
            [
                CohortSum(document.slots, opened_sum(deployment.objects, cohort))
                for cohort, document in zip(opened, documents, strict=True)
            ]
        )
        ending = _Ending(
            deployment,
            found,
            parent,
            settings,
            plan_hashes=tuple(cohort.plan_hash for cohort in opened),
            compared_with=documents[0].served_release,
            learned=learned,
            now_unix_s=now_unix_s,
        )
        try:
            made = _candidate(deployment, parent, settings, learned)
        except FormatError as error:
            ending.set_aside(str(error))
            return True
        failpoint("coordinator.release.before-commit")
        ending.publish(made)
        failpoint("coordinator.release.committed")
        return True


@dataclass(frozen=True, slots=True)
class Candidate:
    """The next adapter, and the key of what the server's optimiser remembers with it; both durable as objects."""

    adapter: StoredAdapter
    memory_key: str | None


def _candidate(deployment: Deployment, parent: ReleaseRow, settings: TaskSettings, learned: RoundSum) -> Candidate:
    server = settings.server.optimiser()
    memories = server_memory.load(deployment.objects, parent) if server.remembers else {}
    layout, tensors = load_adapter(deployment.objects, parent)
    moved, remembered = fedavg.next_adapter(tensors, learned, server, memories.get(learned.side))
    if remembered is not None:
        memories[learned.side] = remembered
    return Candidate(
        store_adapter(deployment.objects, layout, moved), server_memory.store(deployment.objects, memories)
    )


@dataclass(frozen=True, slots=True)
class _Ending:
    """A round with a sum, about to end.

    Attributes:
        plan_hashes: of the opened cohorts.
        compared_with: the release that the plans had compared with the parent, if any.
        learned: their sums, added up.
    """

    deployment: Deployment
    found: Round
    parent: ReleaseRow
    settings: TaskSettings
    plan_hashes: tuple[bytes, ...]
    compared_with: bytes | None
    learned: RoundSum
    now_unix_s: int

    def publish(self, made: Candidate) -> None:
        """Publish what was learned, or not, as the gate says; one transaction."""
        with self.deployment.database.transaction() as session:
            row = session.get_one(Round, (self.found.task, self.found.number))
            row.metrics = json.dumps(fedavg.means(self.learned))
            if _left_behind(session, self.parent):
                self._discard(row, _LEFT_BEHIND.format(number=self.parent.number))
                return
            measured, judgement = self._judgement(session)
            if measured is not None and judgement.verdict is Verdict.DROP:
                self._discard(row, f"release {self.parent.number} was dropped: {judgement.reason}")
                self._drop(session, judgement.reason, measured)
                return
            release = publish(
                session,
                self.deployment,
                session.get_one(Task, row.task),
                made.adapter,
                parent=session.get_one(ReleaseRow, self.parent.release_id),
                plan_hashes=self.plan_hashes,
                contributors=self.learned.contributors,
                now_unix_s=self.now_unix_s,
            )
            release.server_memory_key = made.memory_key
            row.state = ROUND.next(row.state, RoundEvent.PUBLISH)
            row.release_id = release.release_id
            row.ended_unix_s = self.now_unix_s
            if not self.settings.gate.enabled:
                self._serve(session, DecisionKind.UNGATED, Outcome(release, release), "the task has no gate")
            elif judgement.verdict is Verdict.PROMOTE:
                promoted = Outcome(served=self.parent, next_parent=release)
                self._serve(session, DecisionKind.PROMOTED, promoted, judgement.reason, measured)
            elif measured is not None:
                row.reason = f"release {self.parent.number}: {judgement.reason}"
        log.info("release published", task=release.task, number=release.number, cohorts=len(self.plan_hashes))

    def set_aside(self, reason: str) -> None:
        """End a round whose sums add up to nothing that could be used, and start again from its parent's adapter."""
        with self.deployment.database.transaction() as session:
            row = session.get_one(Round, (self.found.task, self.found.number))
            row.metrics = json.dumps(fedavg.means(self.learned))
            self._discard(row, reason)
            if not _left_behind(session, self.parent):
                decisions.start_again(session, self.deployment, self.parent, reason=reason, now_unix_s=self.now_unix_s)

    def _judgement(self, session: Session) -> tuple[Measurement | None, Judgement]:
        """What the round measured, and what the gate says to it; it holds a parent that was not measured."""
        served = decisions.served_release(session, self.parent.task)
        if served.adapter_sha256 == self.parent.adapter_sha256:
            return None, Judgement(Verdict.HOLD, "it is what devices serve")
        measured = gate.measurement_of(self.learned, self.plan_hashes)
        if measured is None or served.release_id != self.compared_with:
            return None, Judgement(Verdict.HOLD, "it was not compared with what devices serve now")
        held = decisions.candidates_behind(session, self.parent) - 1
        return measured, gate.judge(measured, self.settings.gate_rule, rounds_held=held)

    def _serve(
        self, session: Session, kind: DecisionKind, outcome: Outcome, reason: str, measured: Measurement | None = None
    ) -> None:
        decisions.decide(
            session,
            self.deployment,
            kind,
            outcome,
            judged=outcome.served,
            reason=reason,
            now_unix_s=self.now_unix_s,
            measurement=measured,
        )

    def _drop(self, session: Session, reason: str, measured: Measurement) -> None:
        served = decisions.served_release(session, self.parent.task)
        decisions.go_back(
            session,
            self.deployment,
            DecisionKind.DROPPED,
            served=served,
            to=served,
            judged=self.parent,
            reason=reason,
            now_unix_s=self.now_unix_s,
            measurement=measured,
        )

    def _discard(self, row: Round, reason: str) -> None:
        row.state = ROUND.next(row.state, RoundEvent.DISCARD)
        row.ended_unix_s = self.now_unix_s
        row.reason = reason
        log.warning("round void", task=row.task, round=row.number, reason=reason)


_LEFT_BEHIND = "release {number}, from which the round started, was left behind by a decision meanwhile"


def _left_behind(session: Session, parent: ReleaseRow) -> bool:
    """Whether learning goes on from another release by now: the operator went back while the round ran."""
    return newest_release(session, parent.task).release_id != parent.release_id


def _end_void(
    deployment: Deployment, found: Round, parent: ReleaseRow, cohorts: Sequence[Cohort], now_unix_s: int
) -> None:
    """End a round without a sum.

    Where a cohort's sum was opened and refused, its contributors have used their parent up: for all they know
    somebody holds a sum over it. Then learning starts again from the same adapter under a new number.
    """
    reason = _why_void(cohorts)
    with deployment.database.transaction() as session:
        row = session.get_one(Round, (found.task, found.number))
        row.state = ROUND.next(row.state, RoundEvent.FAIL)
        row.ended_unix_s = now_unix_s
        row.reason = reason
        refused = any(cohort.ended_by == Event.REFUSE.value for cohort in cohorts)
        if refused and not _left_behind(session, parent):
            decisions.start_again(session, deployment, parent, reason=reason, now_unix_s=now_unix_s)
    log.warning("round void", task=found.task, round=found.number, reason=reason)


def _why_void(cohorts: Sequence[Cohort]) -> str:
    if len(cohorts) == 1:
        return cohorts[0].reason
    return f"each of {len(cohorts)} cohorts is void: " + "; ".join(
        f"{place}: {cohort.reason}" for place, cohort in enumerate(cohorts, start=1)
    )
