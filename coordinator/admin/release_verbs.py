"""Which release devices serve, as operators decide it."""

from __future__ import annotations

from coordinator.admin.messages import to_message
from coordinator.admin.operator import Operator, page_of
from coordinator.admin.records import decision_record
from coordinator.releases import decisions
from coordinator.releases.publication import find_release
from coordinator.rounds.tasks import find_task
from nightshift.admin.v1 import admin_pb2 as pb


def promote_release(operator: Operator, request: pb.PromoteReleaseRequest) -> pb.PromoteReleaseResponse:
    """Have devices serve a release, whatever the gate said; the decision is its own audit row.

    Raises:
        NotFoundError: none or several are called so.
        UsageError: no reason is given.
        StateConflictError: it is served already.
    """
    deployment = operator.deployment
    with deployment.database.transaction() as session:
        release = find_release(session, request.name)
        made = decisions.promote(session, deployment, release, reason=request.reason, now_unix_s=operator.now_unix_s)
        record = decision_record(session, made)
    return to_message(pb.PromoteReleaseResponse, {"decision": record})


def roll_back_release(operator: Operator, request: pb.RollBackReleaseRequest) -> pb.RollBackReleaseResponse:
    """Have devices serve an earlier release, and learning start again from it; the decision is its own audit row.

    Raises:
        NotFoundError: none or several are called so.
        UsageError: no reason is given, or the release is a later one.
        StateConflictError: there is nothing to undo.
    """
    deployment = operator.deployment
    with deployment.database.transaction() as session:
        release = find_release(session, request.name)
        made = decisions.roll_back(session, deployment, release, reason=request.reason, now_unix_s=operator.now_unix_s)
        record = decision_record(session, made)
    return to_message(pb.RollBackReleaseResponse, {"decision": record})


def list_decisions(operator: Operator, request: pb.ListDecisionsRequest) -> pb.ListDecisionsResponse:
    """What was decided about a task's releases, oldest first.

    Raises:
        NotFoundError: no such task.
    """
    with operator.deployment.database.reading() as session:
        task = find_task(session, request.task)
        rows, following = page_of(decisions.list_decisions(session, task.name), request.page)
        records = [decision_record(session, row) for row in rows]
    return to_message(pb.ListDecisionsResponse, {"decisions": records, "next_page": following})
