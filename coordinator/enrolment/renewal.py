"""A new certificate for the same key: in time over mutual TLS, or late on the join listener."""

from __future__ import annotations

import secrets

from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy.orm import Session

from coordinator.enrolment.authority import Authority, requested_key
from coordinator.enrolment.devices import certify, require_enrolled
from coordinator.log import TransparencyLog
from coordinator.storage.rows import Device
from nightshift.protocol.certificates import read_device_certificate
from nightshift.protocol.errors import MalformedError, RevokedError
from nightshift.protocol.identity import DEVICE_ID_BYTES, DeviceId, device_id
from nightshift.protocol.renewal import NONCE_BYTES, make_challenge, require_fresh, verify_challenge, verify_proof
from nightshift.protocol.secagg.prekeys import MAX_LIFETIME_S
from nightshift.protocol.times import readable_time
from nightshift.v1 import join_pb2

CONTINUITY_S = MAX_LIFETIME_S
"""How far back a renewed certificate begins within the old one's time: members judge a contributor at the time at
which the plan was logged, so that whoever renews in the middle of a round must be certified since before it began.
No round lasts as long as a prekey may."""


def renew(
    session: Session,
    authority: Authority,
    log: TransparencyLog,
    device: Device,
    *,
    request_der: bytes,
    now_unix_s: int,
) -> bytes:
    """The device's newest certificate, made anew where two thirds of its life are over.

    Raises:
        MalformedError: no signing request, or for another key than the device's.
    """
    _require_key_of(device.device_id, request_der)
    return _newest(session, authority, log, device, now_unix_s)


def begin_late(authority: Authority, identity: bytes, now_unix_s: int) -> join_pb2.BeginRenewalResponse:
    """Something fresh to sign. Whether the device is known is said only to who holds its key.

    Raises:
        MalformedError: not a device id.
    """
    if len(identity) != DEVICE_ID_BYTES:
        raise MalformedError(f"a device id has {DEVICE_ID_BYTES} bytes, got {len(identity)}")
    nonce = secrets.token_bytes(NONCE_BYTES)
    return make_challenge(DeviceId(identity), nonce=nonce, now_unix_s=now_unix_s, sign=authority.sign)


def end_late(
    session: Session,
    authority: Authority,
    log: TransparencyLog,
    *,
    request: join_pb2.EndRenewalRequest,
    grace_s: int,
    now_unix_s: int,
) -> Device:
    """Renew a certificate that may have expired, for whoever holds the enrolled key.

    Args:
        session: a transaction.
        authority: issues, and made the challenge.
        log: notes the new certificate.
        request: as received.
        grace_s: how long after its certificate's end a device may come back.
        now_unix_s: by the coordinator's clock.

    Raises:
        MalformedError: a part of the request is malformed.
        SignatureInvalidError: the challenge is not this coordinator's, or the proof not the device's.
        RevokedError: unknown, revoked, held, too slow, or past the grace period.
    """
    identity = DeviceId(request.device_id)
    verify_challenge(request.challenge, identity, authority.signing_public_key)
    require_fresh(request.challenge, now_unix_s)
    verify_proof(request, _require_key_of(identity, request.certificate_request))
    device = require_enrolled(session, identity)
    ended_unix_s = device.certificate_not_after_unix_s
    if now_unix_s > ended_unix_s + grace_s:
        raise RevokedError(
            f"this device's certificate expired on {readable_time(ended_unix_s)}, more than {grace_s // 86_400} days "
            "ago; ask the operator for a new token and run: edge-client join TOKEN"
        )
    _newest(session, authority, log, device, now_unix_s)
    return device


def _newest(session: Session, authority: Authority, log: TransparencyLog, device: Device, now_unix_s: int) -> bytes:
    """The certificate of the row, after making it anew where that is due."""
    present = read_device_certificate(device.certificate)
    if now_unix_s >= present.renewal_due_unix_s:
        continues = now_unix_s <= present.not_after_unix_s
        early = max(present.not_before_unix_s, now_unix_s - CONTINUITY_S) if continues else None
        certificate = authority.issue_device_certificate(present.public_key, now_unix_s, not_before_unix_s=early)
        certify(session, log, device, certificate, now_unix_s)
    return device.certificate


def _require_key_of(identity: bytes, request_der: bytes) -> ec.EllipticCurvePublicKey:
    key = requested_key(request_der)
    if device_id(key) != identity:
        raise MalformedError("the signing request is for another key; a device renews with the key that it joined with")
    return key
