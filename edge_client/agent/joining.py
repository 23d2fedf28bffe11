"""Joining a coordinator with a token: the key is made here, and stays here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_client import __version__, ledger
from edge_client.agent.check_in import PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN
from edge_client.configuration import Configuration
from edge_client.connection import CALL_DEADLINE_S, connect_to_join, join_call
from edge_client.home import Home
from edge_client.identity import (
    Identity,
    Membership,
    create_identity,
    load_identity,
    load_membership,
    save_membership,
    update_membership,
)
from edge_client.store import open_store
from nightshift.host.clock import now_unix_s
from nightshift.host.failpoints import failpoint
from nightshift.host.files import exclusive_lock
from nightshift.host.tokens import JoinToken
from nightshift.protocol.errors import (
    IncompatibleError,
    MalformedError,
    NightshiftError,
    PartialError,
    UsageError,
    VerificationError,
)

if TYPE_CHECKING:
    from nightshift.v1 import join_pb2

MAX_NAME_CHARACTERS = 64
MAX_ORIGIN_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Joined:
    """The outcome of `join`: the membership, and whether it is new."""

    identity: Identity
    membership: Membership
    new: bool


def join(home: Home, token_text: str, device_name: str) -> Joined:
    """Trade a token for a certificate.

    Joining the same coordinator again takes the token's addresses, and with an
    expired certificate gets a new one for the same key; else it changes nothing.

    Args:
        home: the device's directories; created where absent.
        token_text: what the operator gave.
        device_name: for people; may be empty.

    Raises:
        TokenError: the token is damaged, unknown, used up or expired.
        VerificationError: the server is not the one that the token names.
        UnreachableError: nobody answers.
        UsageError: the name is too long, or this home belongs to another coordinator.
    """
    if len(device_name) > MAX_NAME_CHARACTERS or not (device_name.isprintable() or not device_name):
        raise UsageError(f"a device name has at most {MAX_NAME_CHARACTERS} printable characters")
    token = JoinToken.decode(token_text)
    home.prepare()
    with exclusive_lock(home.lock_file):
        identity, membership = load_identity(home), load_membership(home)
        if identity is not None and membership is not None:
            if membership.root == token.root_der:
                return _join_again(home, identity, membership, token)
            raise UsageError(
                f"this home belongs to the coordinator at {membership.device_address} already; "
                "leave it first with `edge-client leave`, or use another home with --home DIR"
            )
        # A key without a membership is left from a join whose reply was lost: the same key again.
        identity = identity or create_identity(home)
        failpoint("device.join.key")
        membership = _enrol(home, identity, token, device_name)
    return Joined(identity, membership, new=True)


def _join_again(home: Home, identity: Identity, membership: Membership, token: JoinToken) -> Joined:
    """A token of the coordinator that this home belongs to: it may bring new addresses, or a way back in."""
    from nightshift.protocol.certificates import read_device_certificate

    if now_unix_s() > read_device_certificate(membership.certificate).not_after_unix_s:
        return Joined(identity, _enrol(home, identity, token, membership.device_name), new=True)
    addresses = {"join_address": token.join_address, "device_address": token.device_address}
    return Joined(identity, update_membership(home, **addresses), new=False)


def _enrol(home: Home, identity: Identity, token: JoinToken, device_name: str) -> Membership:
    from nightshift.v1 import join_pb2

    request = join_pb2.JoinRequest(
        token_secret=token.secret,
        certificate_request=identity.certificate_request(),
        protocol_version_min=PROTOCOL_VERSION_MIN,
        protocol_version_max=PROTOCOL_VERSION_MAX,
        client_version=__version__,
        device_name=device_name,
    )
    address = token.join_address
    with connect_to_join(address, token.root_der) as stub:
        response = join_call(lambda: stub.Join(request, timeout=CALL_DEADLINE_S), address)
    failpoint("device.join.answered")
    membership = _verified(identity, token, response, device_name)
    # The store begins before the membership: a missing store of a joined device is a lost one.
    with open_store(home) as store:
        ledger.joined(
            store,
            now_unix_s=now_unix_s(),
            recipient=address,
            size_bytes=request.ByteSize(),
            device_name=device_name,
        )
    save_membership(home, membership)
    failpoint("device.join.saved")
    return membership


def _verified(identity: Identity, token: JoinToken, response: join_pb2.JoinResponse, device_name: str) -> Membership:
    from nightshift.protocol.certificates import (
        load_certificate,
        verify_device_certificate,
        verify_signing_certificate,
    )
    from nightshift.protocol.targets import verify_release_root
    from nightshift.protocol.trust import Trust

    if not PROTOCOL_VERSION_MIN <= response.protocol_version <= PROTOCOL_VERSION_MAX:
        raise IncompatibleError(
            f"the coordinator speaks protocol version {response.protocol_version}, this build "
            f"{PROTOCOL_VERSION_MIN} to {PROTOCOL_VERSION_MAX}; upgrade edge-client: scripts/install.sh"
        )
    root = load_certificate(token.root_der)
    certificate = verify_device_certificate(response.certificate, root, now_unix_s())
    if certificate.device_id != identity.device_id:
        raise VerificationError("the certificate that came back is for another device's key; nothing was kept")
    signing_key = verify_signing_certificate(response.signing_certificate, root)
    origin = response.log_origin
    if not (0 < len(origin) <= MAX_ORIGIN_CHARACTERS and origin.isprintable()):
        raise MalformedError("the coordinator's log has no usable name; nothing was kept")
    verify_release_root(response.release_root, response.release_root_signature, trust=Trust(root, signing_key, origin))
    return Membership(
        certificate=response.certificate,
        root=token.root_der,
        signing_certificate=response.signing_certificate,
        join_address=token.join_address,
        device_address=token.device_address,
        log_origin=origin,
        device_name=device_name,
        joined_unix_s=now_unix_s(),
        release_root=response.release_root,
    )


def first_check_in(home: Home, configuration: Configuration) -> None:
    """Publish the first one-time keys, so that this device can be drawn into committees tonight.

    Raises:
        PartialError: joined, but the check-in failed; the next run does it.
    """
    from edge_client.agent.check_in import check_in
    from edge_client.agent.session_opening import open_session

    with open_session(home, configuration) as session:
        try:
            check_in(session, no_plan=True)
        except VerificationError as error:
            session.report(error)
            raise
        except NightshiftError as error:
            raise PartialError(
                f"joined, but the first check-in failed: {error}; `edge-client run` will try again"
            ) from error
