"""What a device proves to itself about a plan before it contributes or answers.

The order is fixed: signature, meaning, log, committee, time. The two roles
share `_verify_plan`; a contributor looks at the committee it will seal to, a
member at its own place in it and at the frozen set. The owner's policy comes
after, and can only refuse more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from nightshift.protocol.certificates import verify_device_certificate
from nightshift.protocol.errors import (
    LogInconsistentError,
    MalformedError,
    MemberRevokedError,
    RevokedError,
    StateConflictError,
    VerificationError,
)
from nightshift.protocol.identity import SIGNATURE_BYTES, DeviceId, verify
from nightshift.protocol.log import LogView
from nightshift.protocol.merkle import verify_consistency
from nightshift.protocol.plan import (
    HASH_BYTES,
    PlanDocument,
    committee_seed,
    plan_hash,
    plan_signature_message,
    pool_digest,
)
from nightshift.protocol.release import VerifiedRelease
from nightshift.protocol.secagg import committee, prekeys
from nightshift.protocol.secagg.contributors import Contributor, check_entry
from nightshift.protocol.secagg.device import MemberKey, check_members
from nightshift.protocol.secagg.member import ShareForMember
from nightshift.protocol.trust import Trust
from nightshift.v1 import device_pb2, log_pb2


@dataclass(frozen=True, slots=True)
class VerifiedPlan:
    """A plan that was signed, logged and checked for one role.

    Attributes:
        document: its meaning.
        plan_hash: H, 32 bytes.
        plan_bytes: as received.
        logged_unix_s: when the log says it was appended; certificates are judged at this time.
    """

    document: PlanDocument
    plan_hash: bytes
    plan_bytes: bytes
    logged_unix_s: int

    def member_keys(self) -> list[MemberKey]:
        """Whom a contributor seals its shares to."""
        return [
            MemberKey(member.index, member.prekey.device_id, member.prekey.public) for member in self.document.committee
        ]


def verify_offer(
    offer: device_pb2.PlanOffer,
    *,
    view: LogView,
    trust: Trust,
    revoked: AbstractSet[DeviceId],
    now_unix_s: int,
) -> VerifiedPlan:
    """Check a plan as a contributor must.

    Args:
        offer: as received.
        view: the log, already shown to extend what this device saw before.
        trust: the coordinator as the join token introduced it.
        revoked: devices that no longer count.
        now_unix_s: this device's clock.

    Raises:
        SignatureInvalidError: plan, certificate or prekey not made by the right key.
        MalformedError: a field out of range.
        LogInconsistentError: plan or pool not in the log, or the seed is not the log before the plan.
        VerificationError: the committee is not the one that the seed draws, or a member may not serve.
        LogInconsistentError: a member was not enrolled in sight of the log before the pool was.
        StateConflictError: the plan's uploads have ended.
    """
    plan = _verify_plan(offer.plan, offer.signature, offer.plan_proof, view=view, trust=trust)
    document = plan.document
    verify_consistency(
        document.seed_log_size, document.seed_log_root, view.head.size, view.head.root, list(offer.seed_path)
    )
    view.require(
        offer.pool_proof,
        kind=log_pb2.LOG_ENTRY_KIND_POOL,
        subject=document.cohort_id,
        digest=pool_digest(document.pool),
    )
    if offer.pool_proof.index >= offer.plan_proof.index:
        raise LogInconsistentError("the pool was logged after the plan that draws from it")
    _verify_committee(plan, trust=trust, revoked=revoked, now_unix_s=now_unix_s)
    _verify_enrolments(document, offer.member_enrolments, view=view, before=offer.pool_proof.index)
    if now_unix_s > document.latest_upload_deadline_unix_s:
        raise StateConflictError("the plan's uploads have ended; the next check-in brings a later plan")
    return plan


def verify_parent(plan: VerifiedPlan, parent: VerifiedRelease) -> None:
    """Check that a plan trains on from the release at hand: same task, base model and shape.

    Args:
        plan: from `verify_offer`.
        parent: from `verify_release`, the release whose adapter this device would train.

    Raises:
        VerificationError: another release, or one that does not fit the plan; names what differs.
    """
    document, release = plan.document, parent.document
    if parent.release_id != document.parent_release:
        raise VerificationError(
            f"the plan's parent is release {document.parent_release.hex()[:16]}, "
            f"this is release {parent.release_id.hex()[:16]}"
        )
    for what, planned, released in (
        ("task", document.task, release.task),
        ("base model", document.base_model, release.base_model),
        ("adapter layout", document.layout, release.layout),
    ):
        if planned != released:
            raise VerificationError(f"the plan's {what} is not that of its parent release; refusing the plan")


def verify_served(plan: VerifiedPlan, served: VerifiedRelease) -> None:
    """Check that what a plan wants compared with its parent is a release of the same task on the same base model.

    Args:
        plan: from `verify_offer`; names a served release.
        served: from `verify_release`, the release whose loss this device would measure.

    Raises:
        VerificationError: another release, or one of another task or base model.
    """
    document, release = plan.document, served.document
    if served.release_id != document.served_release or (release.task, release.base_model) != (
        document.task,
        document.base_model,
    ):
        raise VerificationError(
            f"the plan would compare its parent with release {served.release_id.hex()[:16]}, which is not the one it "
            "names, or of another task or base model; refusing the plan"
        )


def verify_bundle(
    header: device_pb2.BundleHeader, *, cohort_id: bytes, view: LogView, trust: Trust, member: DeviceId, prekey: bytes
) -> tuple[VerifiedPlan, int]:
    """Check the head of a committee member's bundle.

    Args:
        header: as received.
        cohort_id: the cohort that was asked for.
        view: the log, already shown to extend what this device saw before.
        trust: the coordinator as the join token introduced it.
        member: this device.
        prekey: X25519 public key, 32 bytes, that this device bound to this cohort or holds unspent.

    Returns:
        The plan, and this device's index in its committee.

    Raises:
        SignatureInvalidError, MalformedError: as for a contributor.
        LogInconsistentError: as for a contributor, or the set is not in the log after the plan.
        VerificationError: another cohort, no place for this device in it, or too small a set.
    """
    plan = _verify_plan(header.plan, header.signature, header.plan_proof, view=view, trust=trust)
    document = plan.document
    if document.cohort_id != cohort_id:
        raise VerificationError("the bundle is of another cohort than the one asked for")
    own = [place for place in document.committee if place.prekey.device_id == member]
    if len(own) != 1 or own[0].prekey.public != prekey:
        raise VerificationError("this device, with that prekey, is not a member of the bundle's committee")
    if len(header.set_hash) != HASH_BYTES:
        raise MalformedError(f"the set hash has {len(header.set_hash)} bytes, expected {HASH_BYTES}")
    view.require(header.set_proof, kind=log_pb2.LOG_ENTRY_KIND_SET, subject=cohort_id, digest=header.set_hash)
    if header.set_proof.index <= header.plan_proof.index:
        raise LogInconsistentError("the frozen set was logged before the plan that it belongs to")
    if not document.n_min <= header.contributors <= document.n_max:
        raise VerificationError(
            f"the frozen set has {header.contributors} contributors; "
            f"the plan allows {document.n_min} to {document.n_max}"
        )
    return plan, own[0].index


def verify_bundle_entry(
    entry: device_pb2.BundleEntry, *, plan: VerifiedPlan, trust: Trust, view: LogView, set_position: int
) -> ShareForMember:
    """Check one contributor of a bundle; its signature is checked where the share is opened.

    Args:
        entry: as received.
        plan: from `verify_bundle`.
        trust: the coordinator as the join token introduced it.
        view: the log that the bundle's header was proved against.
        set_position: where the frozen set stands in it.

    Raises:
        MalformedError: a tag, hash, share or signature of the wrong length, or not one hash for each member.
        VerificationError: the contributor was not certified when the plan was logged.
        LogInconsistentError: it was not enrolled in sight of the log before the set was frozen.
    """
    parameters = plan.document.parameters
    if len(entry.sealed) != parameters.sealed_share_bytes:
        raise MalformedError(f"a sealed share has {len(entry.sealed)} bytes, expected {parameters.sealed_share_bytes}")
    if len(entry.signature) != SIGNATURE_BYTES:
        raise MalformedError(f"a contributor's signature has {len(entry.signature)} bytes, expected {SIGNATURE_BYTES}")
    try:
        certificate = verify_device_certificate(entry.certificate, trust.root, plan.logged_unix_s)
    except RevokedError as error:
        # RevokedError would say that this device is the one that no longer counts.
        raise VerificationError(f"a contributor was not certified when the plan was logged: {error}") from error
    _require_enrolled(
        view, entry.enrolment, certificate.device_id, entry.certificate, before=set_position, what="contributor"
    )
    contributor = Contributor(certificate.device_id, entry.ciphertext_tag, tuple(entry.sealed_sha256))
    check_entry(contributor, parameters.committee_size)
    return ShareForMember(
        contributor=contributor,
        public_key=certificate.public_key,
        sealed=entry.sealed,
        signature=entry.signature,
    )


def _verify_plan(
    plan_bytes: bytes, signature: bytes, proof: log_pb2.LogProof, *, view: LogView, trust: Trust
) -> VerifiedPlan:
    verify(trust.signing_key, signature, plan_signature_message(plan_bytes), what="the plan's signature")
    document = PlanDocument.parse(plan_bytes)
    identifier = plan_hash(plan_bytes)
    entry = view.require(proof, kind=log_pb2.LOG_ENTRY_KIND_PLAN, subject=document.cohort_id, digest=identifier)
    if proof.index != document.seed_log_size:
        raise LogInconsistentError(
            f"the plan names the log of size {document.seed_log_size} as its seed but stands at entry "
            f"{proof.index}; the seed must be the log right before the plan"
        )
    if not 0 < entry.time_unix_s <= document.latest_upload_deadline_unix_s:
        raise LogInconsistentError(
            f"the log says that the plan was appended at Unix time {entry.time_unix_s}, after its uploads ended; "
            "certificates cannot be judged at such a time"
        )
    return VerifiedPlan(document, identifier, plan_bytes, entry.time_unix_s)


def _verify_committee(plan: VerifiedPlan, *, trust: Trust, revoked: AbstractSet[DeviceId], now_unix_s: int) -> None:
    document = plan.document
    expected = committee.draw(
        committee_seed(document.seed_log_size, document.seed_log_root, document.cohort_id),
        document.cohort_id,
        document.pool,
        len(document.committee),
    )
    if [member.prekey.device_id for member in document.committee] != expected:
        raise VerificationError("the committee is not the one that the log's seed draws from the pool; refusing")
    for member in document.committee:
        name = member.prekey.device_id.hex()[:16]
        if member.prekey.device_id in revoked:
            raise MemberRevokedError(f"committee member {name} is revoked; refusing the plan")
        try:
            certificate = verify_device_certificate(member.certificate, trust.root, now_unix_s)
        except RevokedError as error:
            raise MemberRevokedError(str(error)) from error
        if certificate.device_id != member.prekey.device_id:
            raise VerificationError(f"committee member {name} comes with the certificate of another device")
        prekeys.verify(member.prekey, certificate.public_key, now=now_unix_s)
        if member.prekey.not_after < document.answer_deadline_unix_s:
            raise VerificationError(f"the prekey of committee member {name} expires before the answer deadline")
    check_members(document.parameters, plan.member_keys())


def _verify_enrolments(
    document: PlanDocument, proofs: Sequence[log_pb2.LogProof], *, view: LogView, before: int
) -> None:
    if len(proofs) != len(document.committee):
        raise LogInconsistentError(
            f"the plan comes with proofs of enrolment for {len(proofs)} of its {len(document.committee)} committee "
            "members; a member that nobody saw being enrolled holds no share of this device's key"
        )
    for member, proof in zip(document.committee, proofs, strict=True):
        _require_enrolled(
            view, proof, member.prekey.device_id, member.certificate, before=before, what="committee member"
        )


def _require_enrolled(
    view: LogView, proof: log_pb2.LogProof, device: DeviceId, certificate: bytes, *, before: int, what: str
) -> None:
    """Whoever counts was certified in sight of everyone: a device made up for one cohort is in the log for good."""
    view.require(
        proof,
        kind=log_pb2.LOG_ENTRY_KIND_ENROLMENT,
        subject=device,
        digest=hashlib.sha256(certificate).digest(),
    )
    if proof.index >= before:
        raise LogInconsistentError(
            f"{what} {device.hex()[:16]} was enrolled at entry {proof.index} of the log, after entry {before} that "
            "already counts on it"
        )
