"""The coordinator as a whole, its log and its audit, as operators ask for them."""

from __future__ import annotations

from sqlalchemy import func, select

from coordinator import audit, log_audit
from coordinator.admin.messages import to_message
from coordinator.admin.operator import Operator, page_rows, page_start
from coordinator.admin.records import audit_record, round_record, task_record
from coordinator.home import is_serving
from coordinator.rounds.pool import pool
from coordinator.rounds.rounds import running
from coordinator.rounds.tasks import list_tasks
from coordinator.storage.rows import Device, DeviceState
from nightshift.admin.v1 import admin_pb2 as pb
from nightshift.protocol.log import checkpoint_note
from nightshift.protocol.log_heads import read_head, short_head
from nightshift.protocol.signed_note import verifier_key


def get_status(operator: Operator, _request: pb.GetStatusRequest) -> pb.GetStatusResponse:
    """How everything stands."""
    deployment, now = operator.deployment, operator.now_unix_s
    with deployment.database.reading() as session:
        counts = session.execute(select(Device.state, func.count().label("devices")).group_by(Device.state))
        states = {row.state: row.devices for row in counts}
        record = {
            "serving": is_serving(deployment.home),
            "device_address": deployment.configuration.device_address(),
            "join_address": deployment.configuration.join_address(),
            "devices_enrolled": states.get(DeviceState.ENROLLED, 0),
            "devices_held": states.get(DeviceState.HELD, 0),
            "devices_revoked": states.get(DeviceState.REVOKED, 0),
            "devices_in_pool": len(pool(session, now_unix_s=now, answer_deadline_unix_s=now)),
            "intermediate_days": deployment.authority.intermediate_days_left(now),
            "log_size": deployment.log.snapshot(session).size,
            "tasks": [task_record(session, task) for task in list_tasks(session)],
            "rounds": [round_record(session, found) for found in running(session)],
        }
    return to_message(pb.GetStatusResponse, record)


def verify_log(operator: Operator, request: pb.VerifyLogRequest) -> pb.VerifyLogResponse:
    """Compare the whole log with the database, and with heads that others saw.

    Raises:
        UsageError, MalformedError, SignatureInvalidError: a head that is none, or not of this log.
        LogInconsistentError: an entry is missing or was altered, or the two disagree; says where.
    """
    deployment = operator.deployment
    trust = deployment.trust
    heads = [read_head(text, trust) for text in request.heads]
    with deployment.database.reading() as session:
        found = log_audit.audit(session, deployment, heads)
        note = checkpoint_note(deployment.log.snapshot(session).checkpoint(), trust)
    record = {
        "origin": trust.log_origin,
        "size": found.head.size,
        "root": found.head.root.hex(),
        "short": short_head(found.head, trust.log_origin),
        "note": note.decode(),
        "verifier_key": verifier_key(trust.log_origin, trust.signing_key),
        "kinds": found.kinds,
        "objects": found.objects,
        "compared": found.compared,
    }
    return to_message(pb.VerifyLogResponse, record)


def list_audit(operator: Operator, request: pb.ListAuditRequest) -> pb.ListAuditResponse:
    """Who changed what, newest first."""
    since = request.since.seconds if request.HasField("since") else None
    most = page_rows(request.page)
    with operator.deployment.database.reading() as session:
        rows = audit.entries(
            session,
            before=page_start(request.page) or None,
            since_unix_s=since,
            actor=request.actor,
            verb=request.verb,
            most=most + 1,
        )
        records = [audit_record(row) for row in rows[:most]]
    # Entries are added at the front: a page is told where to go on by the last entry's number, not by its place.
    following = str(records[-1]["audit_id"]) if len(rows) > most else ""
    return to_message(pb.ListAuditResponse, {"entries": records, "next_page": following})
