"""Laying a void cohort to rest, as a member of its committee.

Devices that contributed to a void cohort may give the same parent another contribution only when
the first sum can never be opened. A member that did not answer helps them: it erases its prekey
and says so, over its signature. Before that it sees the void in the log; a coordinator that says
"void" to get rid of a member's key, or to be given a second delta, is caught there.

Nothing is stated about a cohort that this device answered, nor where it cannot know whether it did:
after a lost store, or from an old copy of one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_client import ledger
from edge_client.agent import members_word
from edge_client.agent.session import Session
from edge_client.connection import CALL_DEADLINE_S
from edge_client.store.answers import Kind, StoredAnswer
from nightshift.host.failpoints import failpoint
from nightshift.protocol.errors import ClonedIdentityError, DeclinedError, MalformedError

if TYPE_CHECKING:
    from nightshift.protocol.void_checks import VerifiedVoid


def lay_to_rest(session: Session, cohort_id: bytes) -> StoredAnswer:
    """State that this device never answered a void cohort and no longer can.

    Args:
        session: of this pass.
        cohort_id: 32 bytes, from the check-in.

    Returns:
        What was said about the cohort: the statement, or a refusal made earlier, which carries one.

    Raises:
        LogInconsistentError: the void, or the plan, is not in the log.
        VerificationError: the plan is not the coordinator's, or has no place for this device.
        ClonedIdentityError: the plan names a key of this device that its store has not made yet: an old copy.
        EquivocationError: a second plan for this cohort, or its prekey was named in another plan.
        DeclinedError: this device answered the cohort, or cannot know whether it did.
        UnreachableError: the coordinator does not answer; a stored statement is sent next time.
    """
    if len(cohort_id) != 32:
        raise MalformedError(f"a void cohort is named by 32 bytes, got {len(cohort_id)}")
    said = session.store.answers.find(cohort_id)
    if said is None:
        said = _state(session, _prove(session, cohort_id))
    elif said.kind is Kind.ANSWER:
        raise DeclinedError(
            f"cohort {cohort_id.hex()[:16]} is void, but this device had answered it; it states nothing"
        )
    members_word.send(session, said)
    return said


def _prove(session: Session, cohort_id: bytes) -> VerifiedVoid:
    """See the void in the log, and that this device is in a position to speak about it."""
    from nightshift.protocol.void_checks import verify_void_of_member
    from nightshift.v1 import device_pb2

    connection = session.connection
    request = device_pb2.GetVoidRequest(cohort_id=cohort_id, log_size=session.log_size)
    response = connection.call(lambda: connection.stub.GetVoid(request, timeout=CALL_DEADLINE_S))
    view = session.advance_log(response.checkpoint, list(response.consistency_path))
    void = verify_void_of_member(
        response, cohort_id=cohort_id, view=view, trust=session.trust, member=session.identity.device_id
    )
    if void.prekey.epoch != session.store.database.epoch:
        raise DeclinedError(
            f"cohort {cohort_id.hex()[:16]} names a key of a store that was lost; this device cannot know whether it "
            "answered, and states nothing"
        )
    if void.prekey.serial >= session.store.prekeys.next_serial():
        raise ClonedIdentityError(
            f"cohort {cohort_id.hex()[:16]} names a key that this store has not made yet: the store is an old copy; "
            "make a new key (leave, then join again)"
        )
    session.store.answers.see_cohort(cohort_id, void.plan_hash, session.now_unix_s)
    # A key that is bound to another plan is not given up for this one.
    session.store.prekeys.bind(void.prekey.public, void.plan_hash, until_unix_s=void.document.answer_deadline_unix_s)
    return void


def _state(session: Session, void: VerifiedVoid) -> StoredAnswer:
    from nightshift.protocol.secagg.erasure import sign_erasure
    from nightshift.v1 import device_pb2

    cohort_id = void.document.cohort_id
    statement = sign_erasure(
        plan_hash=void.plan_hash,
        cohort_id=cohort_id,
        member=session.identity.device_id,
        sign=session.identity.sign,
    )
    message = device_pb2.StateErasureRequest(cohort_id=cohort_id, signature=statement.signature).SerializeToString(
        deterministic=True
    )
    said = StoredAnswer(
        cohort_id, void.plan_hash, Kind.ERASURE, None, message, void.document.answer_deadline_unix_s, None
    )
    with session.store.database.transaction():
        session.store.answers.record(said, prekey_public=void.prekey.public, now_unix_s=session.now_unix_s)
        ledger.erased(
            session.store,
            cohort_id=cohort_id,
            size_bytes=len(message),
            now_unix_s=session.now_unix_s,
            recipient=session.connection.address,
        )
    failpoint("device.erasure.durable")
    return said
