"""Operators' certificates, as operators ask for them."""

from __future__ import annotations

from coordinator import audit
from coordinator.admin import admins
from coordinator.admin.authority import AdminAuthority
from coordinator.admin.messages import to_message
from coordinator.admin.operator import Operator, page_of
from coordinator.admin.records import admin_record
from coordinator.enrolment.key_files import certificates_pem
from nightshift.admin.v1 import admin_pb2 as pb


def issue_admin(operator: Operator, request: pb.IssueAdminRequest) -> pb.IssueAdminResponse:
    """Certify the key of a further operator.

    Raises:
        UsageError: no plain name, one that is in use, no such role, or no such time.
        MalformedError: the signing request is none.
    """
    deployment, now = operator.deployment, operator.now_unix_s
    authority = AdminAuthority.load(deployment.home.keys_directory)
    with deployment.database.transaction() as session:
        row, certificate = admins.issue(
            session,
            authority,
            name=request.name,
            role=request.role,
            days=request.days,
            request_der=request.certificate_request,
            now_unix_s=now,
        )
        audit.record(session, "admin issue", row.name, admin_id=row.admin_id.hex(), role=row.role.value)
        record = admin_record(row, now)
    return to_message(
        pb.IssueAdminResponse,
        {
            "admin": record,
            "certificate": certificates_pem(certificate),
            "root": deployment.authority.root_pem,
            "address": deployment.configuration.admin_address(),
            "server_name": deployment.configuration.listen.addresses[0],
        },
    )


def list_admins(operator: Operator, request: pb.ListAdminsRequest) -> pb.ListAdminsResponse:
    """All operators' certificates, newest first."""
    with operator.deployment.database.reading() as session:
        rows, following = page_of(admins.list_admins(session), request.page)
        records = [admin_record(row, operator.now_unix_s) for row in rows]
    return to_message(pb.ListAdminsResponse, {"admins": records, "next_page": following})


def revoke_admin(operator: Operator, request: pb.RevokeAdminRequest) -> pb.RevokeAdminResponse:
    """Let a certificate pass no longer.

    Raises:
        NotFoundError: none or several are called so.
    """
    now = operator.now_unix_s
    with operator.deployment.database.transaction() as session:
        row = admins.revoke(session, request.name, now)
        audit.record(session, "admin revoke", row.name, admin_id=row.admin_id.hex())
        record = admin_record(row, now)
    return to_message(pb.RevokeAdminResponse, {"admin": record})
