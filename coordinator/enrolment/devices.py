"""Devices: how one is enrolled, recognised, and revoked."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache

from cryptography import x509
from sqlalchemy import bindparam, func, select, update
from sqlalchemy.orm import Session

from coordinator.enrolment.authority import Authority, requested_key
from coordinator.enrolment.tokens import find_token, has_used, redeem
from coordinator.log import TransparencyLog
from coordinator.storage.rows import Device, DeviceState, Revocation
from nightshift.protocol.certificates import RENEWAL_BEFORE_END_S, read_device_certificate, verify_device_certificate
from nightshift.protocol.errors import ClonedIdentityError, NotFoundError, RevokedError
from nightshift.protocol.identity import DeviceId, device_id
from nightshift.protocol.readable_ids import LEAST_DIGITS, normalised, readable_id
from nightshift.protocol.revocation import sign_revocation
from nightshift.v1 import device_pb2, log_pb2

MAX_NAME_CHARACTERS = 64
CERTIFICATES_REMEMBERED = 2048
_NEW_KEY = "make a new key: edge-client leave, then edge-client join TOKEN"
_UNKNOWN = "this coordinator does not know the device; join it with a new token"
CLONED = (
    "this device's key is in use twice: a copy of it has checked in, or this one was restored from an older copy. "
    f"Leave the copy switched off and {_NEW_KEY}; if there is no copy, ask the operator to run: "
    "coordinator device clear ID"
)

# Built once: at each check-in, making a statement took as long as running it.
_CHANGED = (
    "state",
    "held_unix_s",
    "nonce_before",
    "nonce",
    "prekey_epoch",
    "last_seen_unix_s",
    "client_version",
    "rank_limit",
)
_READ = select(Device.__table__).where(Device.device_id == bindparam("of"))
_WRITE = update(Device).where(Device.device_id == bindparam("of"))  # what it sets are its parameters


def enrol(
    session: Session,
    authority: Authority,
    log: TransparencyLog,
    *,
    secret: bytes,
    request_der: bytes,
    name: str,
    client_version: str,
    now_unix_s: int,
) -> Device:
    """Trade a token and a signing request for an enrolled device.

    The same key with the same token is the same device again: a reply that
    was lost costs no second use, and an ageing certificate is renewed.

    Raises:
        MalformedError: the request is not a signing request of a P-256 key.
        TokenError: unknown, revoked, expired or used-up token.
        RevokedError: this key was revoked.
        ClonedIdentityError: this key is in use twice.
    """
    key = requested_key(request_der)
    identity = device_id(key)
    token = find_token(session, secret)
    device = session.get(Device, identity)
    if device is not None:
        _require_in_standing(device)
    known = device is not None and has_used(session, token, identity)
    if device is not None and known and device.certificate_not_after_unix_s > now_unix_s + RENEWAL_BEFORE_END_S:
        return device
    certificate = authority.issue_device_certificate(key, now_unix_s)
    if device is None:
        device = Device(
            device_id=identity,
            state=DeviceState.ENROLLED,
            name=printable(name, MAX_NAME_CHARACTERS),
            certificate=certificate,
            certificate_not_after_unix_s=read_device_certificate(certificate).not_after_unix_s,
            enrolled_unix_s=now_unix_s,
            client_version=printable(client_version, MAX_NAME_CHARACTERS),
        )
        session.add(device)
        session.flush()
    if not known:
        redeem(session, token, identity, now_unix_s)
    certify(session, log, device, certificate, now_unix_s)
    return device


def certify(session: Session, log: TransparencyLog, device: Device, certificate: bytes, now_unix_s: int) -> None:
    """Give a device a certificate: kept and logged together, for everyone to see."""
    device.certificate = certificate
    device.certificate_not_after_unix_s = read_device_certificate(certificate).not_after_unix_s
    device.certificate_position = log.append(
        session,
        log_pb2.LOG_ENTRY_KIND_ENROLMENT,
        time_unix_s=now_unix_s,
        subject=device.device_id,
        digest=hashlib.sha256(certificate).digest(),
    )


def require_enrolled(session: Session, identity: DeviceId) -> Device:
    """The row of a device that may speak.

    Raises:
        RevokedError: unknown here, or revoked.
        ClonedIdentityError: held, because its identity seems to exist twice.
    """
    device = session.get(Device, identity)
    if device is None:
        raise RevokedError(_UNKNOWN)
    _require_in_standing(device)
    return device


def checking_in(session: Session, identity: DeviceId) -> Device:
    """The same, for the one call that is made hundreds of times a second.

    It takes a fifth of the time that a mapped object takes, because the session does not watch what is returned:
    what the call changes of it is written by `checked_in`.

    Raises:
        RevokedError: unknown here, or revoked.
        ClonedIdentityError: held, because its identity seems to exist twice.
    """
    row = session.connection().execute(_READ, {"of": identity}).one_or_none()
    if row is None:
        raise RevokedError(_UNKNOWN)
    device = Device(**row._mapping)
    _require_in_standing(device)
    return device


def checked_in(session: Session, device: Device) -> None:
    """Write what a check-in may have changed of a device from `checking_in`."""
    session.connection().execute(_WRITE, {"of": device.device_id} | {name: getattr(device, name) for name in _CHANGED})


def _require_in_standing(device: Device) -> None:
    if device.state is DeviceState.REVOKED:
        raise RevokedError(f"the device was revoked by the operator; {_NEW_KEY}")
    if device.state is DeviceState.HELD:
        raise ClonedIdentityError(CLONED)


def certified_at(device: Device, root: x509.Certificate, unix_s: int) -> bool:
    """Whether the device's certificate was valid at a time.

    Committee members judge every contributor's certificate at the time at
    which the plan was logged, and refuse the whole set for one that was not.
    """
    return _valid_at(device.certificate, root, unix_s)


@lru_cache(maxsize=CERTIFICATES_REMEMBERED)
def _valid_at(certificate: bytes, root: x509.Certificate, unix_s: int) -> bool:
    # Two signatures, and the same at every check-in while a round runs.
    try:
        verify_device_certificate(certificate, root, unix_s)
    except RevokedError:
        return False
    return True


def find_device(session: Session, prefix: str) -> Device:
    """A device by the first digits of its id, in hex or in the groups that the device shows.

    Raises:
        NotFoundError: none or several begin so, or it is too short to mean one: an empty variable of a script.
    """
    digits, letters = prefix.lower(), normalised(prefix)
    if len(letters) < LEAST_DIGITS:
        raise NotFoundError(f"{prefix!r} names no device; write at least {LEAST_DIGITS} digits of its id")
    rows = [
        device
        for device in list_devices(session)
        if device.device_id.hex().startswith(digits) or normalised(readable_id(device.device_id)).startswith(letters)
    ]
    if len(rows) != 1:
        found = "no device" if not rows else f"{len(rows)} devices"
        raise NotFoundError(f"{found} with an id that begins with {prefix!r}; see `coordinator device list`")
    return rows[0]


def list_devices(session: Session) -> Sequence[Device]:
    """All devices, in the order of enrolment."""
    return session.scalars(select(Device).order_by(Device.enrolled_unix_s, Device.device_id)).all()


def revoke(session: Session, log: TransparencyLog, device: Device, *, reason: str, now_unix_s: int) -> Revocation:
    """Take a device's right to speak, for good; it stays in every set it was in before."""
    existing = session.scalar(select(Revocation).where(Revocation.device_id == device.device_id))
    if existing is not None:
        return existing
    device.state = DeviceState.REVOKED
    last = session.scalar(select(func.max(Revocation.number))) or 0
    revocation = Revocation(
        number=last + 1, device_id=device.device_id, time_unix_s=now_unix_s, reason=printable(reason, 200)
    )
    session.add(revocation)
    log.append(
        session,
        log_pb2.LOG_ENTRY_KIND_REVOCATION,
        time_unix_s=now_unix_s,
        subject=device.device_id,
        digest=device.device_id,
        note=revocation.reason,
    )
    return revocation


def revocation_list(session: Session, authority: Authority) -> device_pb2.RevocationList:
    """Everyone who is revoked, signed."""
    rows = session.execute(select(Revocation.number, Revocation.device_id)).all()
    number = max((row.number for row in rows), default=0)
    return sign_revocation(number, [DeviceId(row.device_id) for row in rows], authority.sign)


def printable(text: str, limit: int) -> str:
    """Text from the other side, made harmless to show: no control characters, a bounded length."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text[:limit])
