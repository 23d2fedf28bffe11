"""Saying hello: prekeys out; duties, a plan, releases and the log's new head in.

The reply is believed in a fixed order: protocol version, the log's head against
the one seen last, revocations, then what the log says ended without a sum.
Plans and releases are judged later, each for itself, against the view of the log
that this step returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_client import __version__, ledger
from edge_client.agent import nonces, pace, prekeys
from edge_client.agent.moving import follow
from edge_client.agent.session import Session
from edge_client.agent.voids import note_voids
from edge_client.conditions.hours import Hours
from edge_client.conditions.hours_in_utc import in_utc
from edge_client.connection import CALL_DEADLINE_S
from nightshift.host.failpoints import failpoint
from nightshift.protocol.errors import (
    EquivocationError,
    IncompatibleError,
    MalformedError,
    RevokedError,
    UnreachableError,
)
from nightshift.protocol.identity import DEVICE_ID_BYTES

if TYPE_CHECKING:
    from edge_client.store.prekeys import StoredPrekey
    from nightshift.protocol.identity import DeviceId
    from nightshift.protocol.log import LogView
    from nightshift.v1 import device_pb2

PROTOCOL_VERSION_MIN = 1
PROTOCOL_VERSION_MAX = 1
MOST_DUTIES = 64


@dataclass(frozen=True, slots=True)
class CheckedIn:
    """A reply whose log, revocations and voids have been verified.

    Attributes:
        response: as received; its plan and releases are not verified yet.
        view: the log, shown to extend what was seen before.
        revoked: devices that no longer count.
    """

    response: device_pb2.CheckInResponse
    view: LogView
    revoked: frozenset[DeviceId]


def check_in(session: Session, *, no_plan: bool = False) -> CheckedIn:
    """Check in, and once more if the coordinator runs short of this device's prekeys.

    Raises:
        UnreachableError: the coordinator does not answer.
        VerificationError: the log forked, or something is not signed as it must be.
        RevokedError: this device is revoked.
        IncompatibleError: no common protocol version.
    """
    keys = prekeys.pending(session.store, identity=session.identity, now_unix_s=session.now_unix_s)
    checked = _exchange(session, keys, no_plan=no_plan)
    # Not of a `peek`: a person who looked what is on offer has not had this device's turn.
    pace.note_answer(session.store.database, session.now_unix_s, checked.response.next_check_in, draw=pace.draw())
    held = checked.response.prekeys_held
    if held < prekeys.PREKEYS_KEPT:
        more = prekeys.pending(session.store, identity=session.identity, now_unix_s=session.now_unix_s, held=held)
        if more:
            again = _exchange(session, more, no_plan=True)
            # The plan and releases of the first reply are judged against the newest head: their
            # proofs are for the first one, so that view is kept beside them.
            return CheckedIn(checked.response, checked.view, again.revoked)
    return checked


def peek(session: Session, *, without: Sequence[str] = ()) -> CheckedIn:
    """Check in without offering anything, for a dry run or for another plan than the one before.

    Args:
        session: of this pass.
        without: tasks whose plans have been judged and declined.

    Raises:
        NightshiftError: as `check_in`.
    """
    return _exchange(session, [], no_plan=False, without=without)


def _exchange(session: Session, keys: list[StoredPrekey], *, no_plan: bool, without: Sequence[str] = ()) -> CheckedIn:
    from nightshift.v1 import device_pb2, plan_pb2

    request = device_pb2.CheckInRequest(
        protocol_version_min=PROTOCOL_VERSION_MIN,
        protocol_version_max=PROTOCOL_VERSION_MAX,
        client_version=__version__,
        log_size=session.log_size,
        prekeys=[plan_pb2.Prekey.FromString(key.message) for key in keys],
        epoch=session.store.database.epoch,
        no_plan=no_plan,
        without_tasks=without,
        last_nonce=nonces.presented(session.store.database),
        next_nonce=nonces.proposed(session.store.database),
        rank_limit=session.configuration.training.rank,
        night_hours=_night_hours(session),
    )
    failpoint("device.check-in.prepared")
    response = _send(session, request)
    nonces.answered(session.store.database, request.next_nonce)
    failpoint("device.check-in.sent")
    if not PROTOCOL_VERSION_MIN <= response.protocol_version <= PROTOCOL_VERSION_MAX:
        raise IncompatibleError(
            f"the coordinator speaks protocol version {response.protocol_version}, this build "
            f"{PROTOCOL_VERSION_MIN} to {PROTOCOL_VERSION_MAX}; upgrade edge-client: scripts/install.sh"
        )
    view = session.advance_log(response.checkpoint, list(response.consistency_path))
    session.store.prekeys.mark_published(keys)
    revoked = _revoked(session, response.revocation)
    note_voids(session, response, view)
    if response.HasField("addresses"):
        follow(session, response.addresses)
    duties = len(response.duties) + len(response.erasures)
    if duties > MOST_DUTIES:
        raise MalformedError(f"the check-in lists {duties} duties, at most {MOST_DUTIES} are possible")
    return CheckedIn(response, view, revoked)


def _night_hours(session: Session) -> device_pb2.NightHours | None:
    """The owner's hours, coarse, where there are any and they may be told."""
    from nightshift.v1 import device_pb2

    conditions = session.configuration.conditions
    if not conditions.hours or not conditions.tell_hours:
        return None
    told = in_utc(Hours.parse(conditions.hours), session.now_unix_s)
    return device_pb2.NightHours(begin_hour_utc=told.begin_hour, length_h=told.length_h) if told else None


def _send(session: Session, request: device_pb2.CheckInRequest) -> device_pb2.CheckInResponse:
    connection = session.connection
    try:
        response: device_pb2.CheckInResponse = connection.call(
            lambda: connection.stub.CheckIn(request, timeout=CALL_DEADLINE_S)
        )
    except UnreachableError:
        raise
    except Exception:
        _enter(session, request)
        raise
    _enter(session, request)
    return response


def _enter(session: Session, request: device_pb2.CheckInRequest) -> None:
    ledger.checked_in(
        session.store,
        now_unix_s=session.now_unix_s,
        recipient=session.connection.address,
        size_bytes=request.ByteSize(),
        prekeys=len(request.prekeys),
        hours=request.night_hours if request.HasField("night_hours") else None,
    )


def _revoked(session: Session, message: device_pb2.RevocationList) -> frozenset[DeviceId]:
    from nightshift.protocol.revocation import verify_revocation

    database = session.store.database
    last_number = database.number("revocation_number")
    revoked = verify_revocation(message, trust=session.trust, last_number=last_number or 0)
    _require_growth(database.blob("revoked_devices"), revoked, unchanged=message.number == last_number)
    if message.number != last_number:
        database.put(revocation_number=message.number, revoked_devices=b"".join(sorted(revoked)))
    if session.identity.device_id in revoked:
        raise RevokedError(
            "this device's certificate is revoked; ask the operator why. To take part again it needs a new key "
            "and a new token: edge-client leave, then edge-client join TOKEN"
        )
    return revoked


def _require_growth(earlier: bytes | None, revoked: frozenset[DeviceId], *, unchanged: bool) -> None:
    """Refuse a list that takes a revocation back, or says two things under one number."""
    if earlier is None:
        return
    before = {earlier[start : start + DEVICE_ID_BYTES] for start in range(0, len(earlier), DEVICE_ID_BYTES)}
    if not before <= revoked or (unchanged and before != revoked):
        raise EquivocationError(
            f"the list of revoked devices has {len(revoked)} entries and contradicts the {len(before)} seen before; "
            "a revocation is for good"
        )
