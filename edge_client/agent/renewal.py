"""A new certificate for the same key, before the old one ends, or after.

In time, over mutual TLS, once two thirds of the certificate's life are over.
The device keeps both until a call with the new one has worked: at no moment
does it hold only a certificate that it never used. An expired one cannot pass
mutual TLS any more; then the device proves on the join listener that it still
holds the enrolled key, within the coordinator's grace period.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edge_client import ledger
from edge_client.agent.session import Session
from edge_client.connection import CALL_DEADLINE_S, Connection, connect, connect_to_join, join_call
from edge_client.identity import Identity, Membership, update_membership
from nightshift.host.clock import now_unix_s
from nightshift.host.failpoints import failpoint
from nightshift.protocol.errors import DeclinedError, UnreachableError, VerificationError

if TYPE_CHECKING:
    from nightshift.protocol.certificates import DeviceCertificate

CLOCK_TOLERANCE_S = 24 * 3600


def usable_membership(session: Session) -> Membership:
    """The membership with a certificate that is valid now; an expired one is renewed late, also in a dry run.

    Raises:
        DeclinedError: the clock shows a time before the certificate begins, or far from the coordinator's.
        RevokedError: the coordinator renews it no more; says what to do.
        UnreachableError: nobody answers.
        VerificationError: what came back is not a certificate of this coordinator for this key.
    """
    from nightshift.protocol.certificates import read_device_certificate

    membership, now = session.membership, session.now_unix_s
    present = read_device_certificate(membership.certificate)
    if now < present.not_before_unix_s:
        raise DeclinedError(
            "not now: this device's clock shows a time before it joined; set the clock, or wait until it is in step"
        )
    if now <= present.not_after_unix_s:
        return membership
    unused = membership.next_certificate
    if unused and now <= read_device_certificate(unused).not_after_unix_s:
        return update_membership(session.home, certificate=unused, next_certificate=b"")
    return _renew_late(session)


def renewal_is_due(session: Session) -> bool:
    """Whether a pass should ask for the next certificate, or has one that it never used."""
    from nightshift.protocol.certificates import read_device_certificate

    present = read_device_certificate(session.membership.certificate)
    return bool(session.membership.next_certificate) or session.now_unix_s >= present.renewal_due_unix_s


def renew(session: Session) -> None:
    """Ask for the next certificate, keep it beside the present one, and change over once it has worked.

    Raises:
        NightshiftError: it was refused; the present certificate stays in use.
    """
    membership = session.membership
    if not membership.next_certificate:
        certificate = ask_for_certificate(session, session.connection)
        failpoint("device.renewal.answered")
        _verified(session.identity, membership, certificate)
        membership = update_membership(session.home, next_certificate=certificate)
        failpoint("device.renewal.saved")
    trial = replace(membership, certificate=membership.next_certificate)
    try:
        with connect(session.identity, trial) as connection:
            ask_for_certificate(session, connection)
    except UnreachableError as error:
        session.notes.append(f"the renewed certificate did not work, the present one stays in use for now: {error}")
        return
    failpoint("device.renewal.confirmed")
    update_membership(session.home, certificate=membership.next_certificate, next_certificate=b"")
    session.notes.append("this device's certificate has been renewed")


def ask_for_certificate(session: Session, connection: Connection) -> bytes:
    """This device's newest certificate, not verified yet; that it came shows that certificate and address work.

    Raises:
        NightshiftError: what the coordinator said, or why it could not be reached.
    """
    from nightshift.v1 import device_pb2

    request = device_pb2.RenewCertificateRequest(certificate_request=session.identity.certificate_request())
    response: device_pb2.RenewCertificateResponse = connection.call(
        lambda: connection.stub.RenewCertificate(request, timeout=CALL_DEADLINE_S)
    )
    _enter(session, connection.address, request.ByteSize())
    return response.certificate


def _renew_late(session: Session) -> Membership:
    from nightshift.protocol.renewal import prove
    from nightshift.v1 import join_pb2

    identity, membership = session.identity, session.membership
    address = membership.join_address
    begin = join_pb2.BeginRenewalRequest(device_id=identity.device_id)
    try:
        with connect_to_join(address, membership.root) as stub:
            challenge = join_call(lambda: stub.BeginRenewal(begin, timeout=CALL_DEADLINE_S), address)
            end = prove(
                challenge, identity.device_id, identity.certificate_request(), sign=identity.sign, trust=session.trust
            )
            _require_clock(session.now_unix_s, challenge.time_unix_s)
            response = join_call(lambda: stub.EndRenewal(end, timeout=CALL_DEADLINE_S), address)
    except UnreachableError as error:
        raise UnreachableError(f"this device's certificate has expired and must be renewed first: {error}") from error
    _enter(session, address, begin.ByteSize() + end.ByteSize())
    failpoint("device.late-renewal.answered")
    _verified(identity, membership, response.certificate)
    renewed = update_membership(session.home, certificate=response.certificate, next_certificate=b"")
    failpoint("device.late-renewal.saved")
    session.notes.append("this device's certificate had expired and has been renewed")
    return renewed


def _require_clock(own_unix_s: int, coordinators_unix_s: int) -> None:
    """Tell a certificate that has expired from a clock that is ahead; the coordinator's time is signed."""
    if abs(own_unix_s - coordinators_unix_s) > CLOCK_TOLERANCE_S:
        raise DeclinedError(
            f"not now: this device's clock says {ledger.readable_time(own_unix_s)}, its coordinator's "
            f"{ledger.readable_time(coordinators_unix_s)}; set the clock, or wait until it is in step"
        )


def _verified(identity: Identity, membership: Membership, certificate: bytes) -> DeviceCertificate:
    """A certificate of this device's key by its coordinator, valid now.

    Raises:
        VerificationError: of another authority, for another purpose, or for another key.
        RevokedError: not valid now.
    """
    from nightshift.protocol.certificates import load_certificate, verify_device_certificate

    found = verify_device_certificate(certificate, load_certificate(membership.root), now_unix_s())
    if found.device_id != identity.device_id:
        raise VerificationError("the certificate that came back is for another device's key; it was not kept")
    return found


def _enter(session: Session, recipient: str, size_bytes: int) -> None:
    ledger.renewed(session.store, now_unix_s=session.now_unix_s, recipient=recipient, size_bytes=size_bytes)
