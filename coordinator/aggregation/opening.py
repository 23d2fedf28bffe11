"""From T answers to an opened cohort: open, check, make the sum durable.

The sum is an object that is written first; then one transaction says that the
cohort is opened. Killed before it, the next attempt writes the same bytes
again. What becomes of the sum is the round's matter (`coordinator.rounds.conclusion`).
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from coordinator import audit
from coordinator.aggregation import places
from coordinator.aggregation.bounds import require_within_bound
from coordinator.aggregation.documents import document_of
from coordinator.aggregation.fedavg import means
from coordinator.deployment import Deployment
from coordinator.diagnostics import log, short
from coordinator.rounds.states import Event, next_state
from coordinator.rounds.transitions import void
from coordinator.storage.objects import Objects
from coordinator.storage.rows import AnswerRow, Cohort, CohortState
from nightshift.host.failpoints import failpoint
from nightshift.protocol.secagg.encoding import OpenedSum
from nightshift.protocol.secagg.errors import SumAbsentError, SumOutOfRangeError
from nightshift.protocol.secagg.member import Answer
from nightshift.protocol.secagg.opener import OpenedVector


def try_open(deployment: Deployment, cohort_id: bytes, now_unix_s: int) -> bool:
    """Open a frozen cohort if T answers are durable; returns whether it ended.

    Answers that do not fit together are kept, and the attempt is repeated when
    another one has come; nobody is blamed before a sum is right.
    """
    with deployment.locks.holding("open", cohort_id):
        with deployment.database.reading() as session:
            cohort = session.get_one(Cohort, cohort_id)
            rows = session.scalars(
                select(AnswerRow).where(AnswerRow.cohort_id == cohort_id).order_by(AnswerRow.member_index)
            ).all()
        if cohort.state is not CohortState.FROZEN or len(rows) < max(cohort.threshold, cohort.answers_tried + 1):
            return False
        answers = [Answer(row.member_index, row.vector, row.signature) for row in rows]
        with deployment.sums:
            return _open(deployment, cohort, answers, now_unix_s)


def _open(deployment: Deployment, cohort: Cohort, answers: Sequence[Answer], now_unix_s: int) -> bool:
    assert cohort.running_sum_key is not None, "a frozen cohort has a sum"
    document = document_of(cohort)
    try:
        vector = deployment.compute.open_cohort(
            document.parameters, cohort.plan_hash, deployment.objects.get(cohort.running_sum_key), answers
        )
        opened = document.vector.decode_sum(vector.values, cohort.counted)
        require_within_bound(document, opened)
    except SumOutOfRangeError as error:
        _refuse(deployment, cohort.cohort_id, str(error), now_unix_s)
        return True
    except SumAbsentError as error:
        log.warning("sum absent", cohort=short(cohort.cohort_id), answers=len(answers), reason=str(error))
        with deployment.database.transaction() as session:
            session.get_one(Cohort, cohort.cohort_id).answers_tried = len(answers)
        return False
    _keep_sum(deployment, cohort.cohort_id, vector.values)
    failpoint("coordinator.open.before-commit")
    _finish(deployment, cohort.cohort_id, vector, opened, now_unix_s)
    failpoint("coordinator.sum.durable")
    return True


def opened_sum(objects: Objects, cohort: Cohort) -> OpenedSum:
    """The durable sum of an opened cohort."""
    values = np.load(io.BytesIO(objects.get(places.opened_key(cohort.cohort_id))), allow_pickle=False)
    return document_of(cohort).vector.decode_sum(values, cohort.counted)


def _keep_sum(deployment: Deployment, cohort_id: bytes, values: NDArray[np.uint64]) -> None:
    file = io.BytesIO()
    np.save(file, values, allow_pickle=False)
    deployment.objects.put(places.opened_key(cohort_id), file.getvalue())


def _finish(deployment: Deployment, cohort_id: bytes, vector: OpenedVector, opened: OpenedSum, now_unix_s: int) -> None:
    """Say that the cohort is opened, and for the operator which members did not agree. Nobody is quarantined here."""
    with deployment.database.transaction() as session:
        cohort = session.get_one(Cohort, cohort_id)
        cohort.state = next_state(cohort.state, Event.OPEN)
        cohort.ended_unix_s = now_unix_s
        cohort.metrics = json.dumps(means(opened))
        cohort.members_outside = json.dumps(vector.members_outside)
        cohort.members_disputed = json.dumps(vector.members_disputed)
        if vector.members_outside or vector.members_disputed:
            audit.record(
                session,
                "cohort opened against members",
                cohort_id.hex(),
                do_not_fit=vector.members_outside,
                disputed=vector.members_disputed,
            )
    log.info("cohort opened", cohort=short(cohort_id), contributors=opened.contributors)
    if vector.members_outside:
        log.warning("members' answers do not fit", cohort=short(cohort_id), members=list(vector.members_outside))
    if vector.members_disputed:
        log.warning("members disagree", cohort=short(cohort_id), members=list(vector.members_disputed))


def _refuse(deployment: Deployment, cohort_id: bytes, reason: str, now_unix_s: int) -> None:
    with deployment.database.transaction() as session:
        cohort = session.get_one(Cohort, cohort_id)
        void(session, deployment, cohort, Event.REFUSE, reason=reason, now_unix_s=now_unix_s)
    failpoint("coordinator.void.committed")
    log.warning("cohort void", cohort=short(cohort_id), reason=reason)
