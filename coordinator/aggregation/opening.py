"""From T answers to a release: open, check, average, publish.

The objects are written first (the opened sum, the adapter), then one
transaction makes them a release and ends the cohort. Killed before it, the
next attempt computes the same bytes again.
"""

from __future__ import annotations

import io
import json

import numpy as np
from sqlalchemy import select

from coordinator.aggregation import fedavg, places
from coordinator.aggregation.documents import document_of
from coordinator.compute import inline
from coordinator.deployment import Deployment
from coordinator.diagnostics import log, short
from coordinator.releases.publication import StoredAdapter, load_adapter, publish, store_adapter
from coordinator.rounds.states import Event, next_state
from coordinator.rounds.transitions import void
from coordinator.storage.rows import AnswerRow, Cohort, CohortState, ReleaseRow, Task
from nightshift.host.failpoints import failpoint
from nightshift.protocol.adapters.errors import FormatError
from nightshift.protocol.secagg.encoding import OpenedSum
from nightshift.protocol.secagg.errors import SumAbsentError, SumOutOfRangeError
from nightshift.protocol.secagg.member import Answer


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
        assert cohort.running_sum_key is not None, "a frozen cohort has a sum"
        answers = [Answer(row.member_index, row.vector, row.signature) for row in rows]
        document = document_of(cohort)
        try:
            vector = inline.open_cohort(
                document.parameters, cohort.plan_hash, deployment.objects.get(cohort.running_sum_key), answers
            )
            opened = document.vector.decode_sum(vector.values, cohort.counted)
            adapter = _candidate(deployment, cohort, opened)
        except (SumOutOfRangeError, FormatError) as error:
            _refuse(deployment, cohort_id, str(error), now_unix_s)
            return True
        except SumAbsentError as error:
            log.warning("sum absent", cohort=short(cohort_id), answers=len(answers), reason=str(error))
            with deployment.database.transaction() as session:
                session.get_one(Cohort, cohort_id).answers_tried = len(answers)
            return False
        if vector.members_outside:
            log.warning("members answered wrongly", cohort=short(cohort_id), members=list(vector.members_outside))
        _keep_sum(deployment, cohort_id, vector.values)
        failpoint("coordinator.open.before-commit")
        _publish(deployment, cohort_id, adapter, opened, now_unix_s)
        failpoint("coordinator.release.committed")
        return True


def _candidate(deployment: Deployment, cohort: Cohort, opened: OpenedSum) -> StoredAdapter:
    with deployment.database.reading() as session:
        parent = session.get_one(ReleaseRow, cohort.parent_release)
    layout, tensors = load_adapter(deployment.objects, parent)
    moved = fedavg.next_adapter(tensors, layout, document_of(cohort).side, opened)
    return store_adapter(deployment.objects, layout, moved)


def _keep_sum(deployment: Deployment, cohort_id: bytes, values: np.ndarray[tuple[int], np.dtype[np.uint64]]) -> None:
    file = io.BytesIO()
    np.save(file, values, allow_pickle=False)
    deployment.objects.put(places.opened_key(cohort_id), file.getvalue())


def _publish(
    deployment: Deployment, cohort_id: bytes, adapter: StoredAdapter, opened: OpenedSum, now_unix_s: int
) -> None:
    with deployment.database.transaction() as session:
        cohort = session.get_one(Cohort, cohort_id)
        cohort.state = next_state(cohort.state, Event.PUBLISH)
        release = publish(
            session,
            deployment,
            session.get_one(Task, cohort.task),
            adapter,
            parent=session.get_one(ReleaseRow, cohort.parent_release),
            plan_hashes=[cohort.plan_hash],
            contributors=opened.contributors,
            now_unix_s=now_unix_s,
        )
        cohort.release_id = release.release_id
        cohort.ended_unix_s = now_unix_s
        means = {name: total / opened.contributors for name, total in opened.metrics.items()}
        cohort.metrics = json.dumps({"weight": opened.weight, **means})
    log.info("release published", cohort=short(cohort_id), task=release.task, number=release.number)


def _refuse(deployment: Deployment, cohort_id: bytes, reason: str, now_unix_s: int) -> None:
    with deployment.database.transaction() as session:
        cohort = session.get_one(Cohort, cohort_id)
        void(session, deployment, cohort, Event.REFUSE, reason=reason, now_unix_s=now_unix_s)
    log.warning("cohort void", cohort=short(cohort_id), reason=reason)
