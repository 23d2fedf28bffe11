"""Serving as a committee member: verify, persist the answer and erase the prekey, then send.

A device answers a cohort once. Asked again about the same frozen set it sends the
same bytes; shown another set, or another plan under the same cohort, it refuses,
because two answers would open the difference of two sums. Where a contributor's share
does not open, it says so in the place of the answer, also once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from edge_client import ledger, policy
from edge_client.agent import members_word
from edge_client.agent.refusals import refuse
from edge_client.agent.session import Session
from edge_client.connection import STREAM_DEADLINE_S
from edge_client.store.answers import Kind, StoredAnswer
from nightshift.host.failpoints import failpoint
from nightshift.protocol.errors import DeclinedError, EquivocationError, MalformedError, StateConflictError

if TYPE_CHECKING:
    from edge_client.store.prekeys import StoredPrekey
    from nightshift.protocol.log import LogView
    from nightshift.protocol.plan_checks import VerifiedPlan
    from nightshift.protocol.secagg.member import Answer, ShareForMember
    from nightshift.v1 import device_pb2


def serve(session: Session, cohort_id: bytes) -> StoredAnswer:
    """Answer one cohort, or say that a contributor's share cannot be used.

    Args:
        session: of this pass.
        cohort_id: 32 bytes, from the check-in.

    Returns:
        What was said: an answer or a refusal.

    Raises:
        EquivocationError: a second plan or set for this cohort, one that was void before, or a prekey named in
            two plans.
        VerificationError: the plan, the log, the set or a share is not what it must be.
        DeclinedError: the owner's policy says no, or the key for it is gone.
        StateConflictError: the time for answers has passed.
        UnreachableError: the coordinator does not answer; a stored answer is sent next time.
    """
    from nightshift.v1 import device_pb2

    if len(cohort_id) != 32:
        raise MalformedError(f"a duty names a cohort by 32 bytes, got {len(cohort_id)}")
    connection = session.connection
    request = device_pb2.GetBundleRequest(cohort_id=cohort_id, log_size=session.log_size)
    replies = connection.stream(lambda: connection.stub.GetBundle(request, timeout=STREAM_DEADLINE_S))
    try:
        answer = _stored_or_new(session, cohort_id, replies)
    finally:
        close = getattr(replies, "close", None)
        if close is not None:
            close()
    members_word.send(session, answer)
    return answer


def _stored_or_new(session: Session, cohort_id: bytes, replies: Iterator[device_pb2.GetBundleResponse]) -> StoredAnswer:
    from nightshift.protocol.plan import plan_hash

    first = next(replies, None)
    if first is None or first.WhichOneof("part") != "header":
        raise MalformedError("a bundle must begin with its header")
    header = first.header
    stored = session.store.answers.find(cohort_id)
    if stored is None:
        return _answer(session, cohort_id, header, replies)
    if plan_hash(header.plan) != stored.plan_hash:
        raise EquivocationError(f"cohort {cohort_id.hex()[:16]} was answered, and now comes with another plan")
    if stored.kind is Kind.ERASURE:
        raise EquivocationError(
            f"cohort {cohort_id.hex()[:16]} was void by the log, and now asks for an answer; its key is erased"
        )
    if header.set_hash != stored.set_hash:
        raise EquivocationError(
            f"cohort {cohort_id.hex()[:16]} was answered, and now comes with a second set of contributors; refusing"
        )
    return stored


def _answer(
    session: Session,
    cohort_id: bytes,
    header: device_pb2.BundleHeader,
    replies: Iterator[device_pb2.GetBundleResponse],
) -> StoredAnswer:
    from nightshift.protocol.plan_checks import verify_bundle
    from nightshift.protocol.secagg import member
    from nightshift.protocol.secagg.errors import SharesUnusableError

    view = session.advance_log(header.checkpoint, list(header.consistency_path))
    prekey = _own_prekey(session, header.plan)
    plan, index = verify_bundle(
        header,
        cohort_id=cohort_id,
        view=view,
        trust=session.trust,
        member=session.identity.device_id,
        prekey=prekey.public_key,
    )
    document = plan.document
    session.store.answers.see_cohort(cohort_id, plan.plan_hash, session.now_unix_s)
    session.store.prekeys.bind(prekey.public_key, plan.plan_hash, until_unix_s=document.answer_deadline_unix_s)
    if session.now_unix_s > document.answer_deadline_unix_s:
        raise StateConflictError(f"the time to answer cohort {cohort_id.hex()[:16]} has passed; nothing was sent")
    settings = session.configuration.policy
    policy.check_duty(settings, contributors=header.contributors, committee=len(document.committee))
    try:
        given = member.answer(
            parameters=document.parameters,
            plan_hash=plan.plan_hash,
            set_hash=header.set_hash,
            index=index,
            member=session.identity.device_id,
            prekey_private=prekey.private_key,
            shares=_shares(session, plan, view, header, replies),
            sign=session.identity.sign,
            minimum=max(document.n_min, settings.minimum_cohort),
        )
    except SharesUnusableError as error:
        session.notes.append(str(error))
        return refuse(session, plan, prekey_public=prekey.public_key, set_hash=header.set_hash, shares=error.shares)
    return _persist(session, plan, prekey, header, given)


def _own_prekey(session: Session, plan_bytes: bytes) -> StoredPrekey:
    """The prekey under which an unverified plan names this device; only a look-up."""
    from nightshift.protocol.plan import PlanDocument

    document = PlanDocument.parse(plan_bytes)
    for place in document.committee:
        if place.prekey.device_id == session.identity.device_id:
            prekey = session.store.prekeys.find(place.prekey.public)
            if prekey is not None:
                return prekey
            raise DeclinedError(
                f"cannot answer cohort {document.cohort_id.hex()[:16]}: the one-time key that it names is no longer "
                "here (expired, or lost with an earlier store); the other members can open the sum without this one"
            )
    raise MalformedError("a duty's plan does not name this device in its committee")


def _shares(
    session: Session,
    plan: VerifiedPlan,
    view: LogView,
    header: device_pb2.BundleHeader,
    replies: Iterator[device_pb2.GetBundleResponse],
) -> Iterator[ShareForMember]:
    """The contributors' shares as they arrive, exactly as many as the header said."""
    from nightshift.protocol.plan_checks import verify_bundle_entry

    count, received = header.contributors, 0
    for reply in replies:
        if reply.WhichOneof("part") != "entry" or received == count:
            raise MalformedError(f"a bundle for {count} contributors must hold exactly as many entries")
        received += 1
        yield verify_bundle_entry(
            reply.entry, plan=plan, trust=session.trust, view=view, set_position=header.set_proof.index
        )
    if received != count:
        raise MalformedError(f"the bundle ended after {received} of {count} contributors")


def _persist(
    session: Session,
    plan: VerifiedPlan,
    prekey: StoredPrekey,
    header: device_pb2.BundleHeader,
    given: Answer,
) -> StoredAnswer:
    from nightshift.v1 import device_pb2

    cohort_id = plan.document.cohort_id
    message = device_pb2.AnswerRequest(
        cohort_id=cohort_id,
        set_hash=header.set_hash,
        index=given.index,
        vector=given.vector,
        signature=given.signature,
    ).SerializeToString(deterministic=True)
    answer = StoredAnswer(
        cohort_id, plan.plan_hash, Kind.ANSWER, header.set_hash, message, plan.document.answer_deadline_unix_s, None
    )
    with session.store.database.transaction():
        session.store.answers.record(answer, prekey_public=prekey.public_key, now_unix_s=session.now_unix_s)
        ledger.answered(
            session.store,
            plan.document,
            contributors=header.contributors,
            message=message,
            now_unix_s=session.now_unix_s,
            recipient=session.connection.address,
        )
    failpoint("device.answer.durable")
    return answer
