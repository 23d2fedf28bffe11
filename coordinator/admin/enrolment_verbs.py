"""Join tokens and devices, as operators ask for them."""

from __future__ import annotations

from coordinator import audit
from coordinator.admin.messages import to_message
from coordinator.admin.operator import Operator, page_of
from coordinator.admin.records import device_record, token_record
from coordinator.enrolment import clones, devices, tokens
from coordinator.rounds import standing
from nightshift.admin.v1 import admin_pb2 as pb
from nightshift.host.tokens import JoinToken
from nightshift.protocol.errors import UsageError
from nightshift.protocol.times import rfc3339

LONGEST_TTL_S = 366 * 86_400
MOST_USES = 1_000_000


def create_token(operator: Operator, request: pb.CreateTokenRequest) -> pb.CreateTokenResponse:
    """Make a join token.

    Raises:
        UsageError: no use, too many, or no time.
    """
    if not 1 <= request.uses <= MOST_USES:
        raise UsageError(f"a token may have 1 to {MOST_USES} uses, not {request.uses}")
    if not 1 <= request.ttl_s <= LONGEST_TTL_S:
        raise UsageError(f"a token may be valid for 1 s to {LONGEST_TTL_S} s, not {request.ttl_s}")
    deployment = operator.deployment
    with deployment.database.transaction() as session:
        row, secret = tokens.create_token(
            session, uses=request.uses, ttl_s=request.ttl_s, now_unix_s=operator.now_unix_s
        )
        audit.record(session, "token create", row.token_id, uses=row.uses_allowed, expires_unix_s=row.expires_unix_s)
    word = JoinToken(
        root_der=deployment.authority.root_der,
        join_address=deployment.configuration.join_address(),
        device_address=deployment.configuration.device_address(),
        secret=secret,
    ).encode()
    record = {
        "token": word,
        "token_id": row.token_id,
        "uses_allowed": row.uses_allowed,
        "expires": rfc3339(row.expires_unix_s),
    }
    return to_message(pb.CreateTokenResponse, record)


def list_tokens(operator: Operator, request: pb.ListTokensRequest) -> pb.ListTokensResponse:
    """All tokens, newest first."""
    with operator.deployment.database.reading() as session:
        rows, following = page_of(tokens.list_tokens(session), request.page)
        records = [token_record(row, operator.now_unix_s) for row in rows]
    return to_message(pb.ListTokensResponse, {"tokens": records, "next_page": following})


def revoke_token(operator: Operator, request: pb.RevokeTokenRequest) -> pb.RevokeTokenResponse:
    """Let nobody else join with a token.

    Raises:
        NotFoundError: no such token.
    """
    with operator.deployment.database.transaction() as session:
        row = tokens.revoke_token(session, request.token_id, operator.now_unix_s)
        audit.record(session, "token revoke", row.token_id)
        record = token_record(row, operator.now_unix_s)
    return to_message(pb.RevokeTokenResponse, {"token": record})


def list_devices(operator: Operator, request: pb.ListDevicesRequest) -> pb.ListDevicesResponse:
    """All devices, in the order of enrolment."""
    now = operator.now_unix_s
    with operator.deployment.database.reading() as session:
        found = standing.suspicion(session, now)
        rows, following = page_of(devices.list_devices(session), request.page)
        records = [device_record(session, row, now, found) for row in rows]
    return to_message(pb.ListDevicesResponse, {"devices": records, "next_page": following})


def get_device(operator: Operator, request: pb.GetDeviceRequest) -> pb.GetDeviceResponse:
    """One device.

    Raises:
        NotFoundError: none or several begin so.
    """
    with operator.deployment.database.reading() as session:
        record = device_record(session, devices.find_device(session, request.device_id), operator.now_unix_s)
    return to_message(pb.GetDeviceResponse, {"device": record})


def revoke_device(operator: Operator, request: pb.RevokeDeviceRequest) -> pb.RevokeDeviceResponse:
    """Take a device's right to take part.

    Raises:
        NotFoundError: none or several begin so.
    """
    with operator.deployment.database.transaction() as session:
        row = devices.find_device(session, request.device_id)
        entry = devices.revoke(
            session, operator.deployment.log, row, reason=request.reason, now_unix_s=operator.now_unix_s
        )
        audit.record(session, "device revoke", row.device_id.hex(), reason=entry.reason, number=entry.number)
        record = device_record(session, row, operator.now_unix_s)
    return to_message(pb.RevokeDeviceResponse, {"device": record})


def clear_device(operator: Operator, request: pb.ClearDeviceRequest) -> pb.ClearDeviceResponse:
    """Let a device that is held take part again.

    Raises:
        NotFoundError: none or several begin so.
        StateConflictError: it is not held.
    """
    with operator.deployment.database.transaction() as session:
        row = devices.find_device(session, request.device_id)
        clones.clear(session, row)
        audit.record(session, "device clear", row.device_id.hex())
        record = device_record(session, row, operator.now_unix_s)
    return to_message(pb.ClearDeviceResponse, {"device": record})


def acquit_device(operator: Operator, request: pb.AcquitDeviceRequest) -> pb.AcquitDeviceResponse:
    """Forget what a device is suspected of.

    Raises:
        NotFoundError: none or several begin so.
    """
    with operator.deployment.database.transaction() as session:
        row = devices.find_device(session, request.device_id)
        standing.clear(row, operator.now_unix_s)
        audit.record(session, "device acquit", row.device_id.hex())
        session.flush()
        record = device_record(session, row, operator.now_unix_s)
    return to_message(pb.AcquitDeviceResponse, {"device": record})
