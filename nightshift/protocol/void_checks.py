"""What a committee member proves to itself before it lays a void cohort to rest.

The coordinator's word is not enough: a member that erased its prekey for a false void would have
been robbed of its answer, and a contributor that believed it would give a second delta. So the plan
must be signed and logged, and the void must be logged after it, for the same cohort and H.
"""

from __future__ import annotations

from dataclasses import dataclass

from nightshift.protocol.certificates import leaf_public_key
from nightshift.protocol.errors import LogInconsistentError, VerificationError
from nightshift.protocol.identity import DeviceId, verify
from nightshift.protocol.log import LogView
from nightshift.protocol.plan import PlanDocument, plan_hash, plan_signature_message
from nightshift.protocol.secagg import prekeys
from nightshift.protocol.secagg.prekeys import SignedPrekey
from nightshift.protocol.trust import Trust
from nightshift.v1 import device_pb2, log_pb2


@dataclass(frozen=True, slots=True)
class VerifiedVoid:
    """A cohort that ended without a sum, by the log.

    Attributes:
        plan_hash: H, 32 bytes.
        document: the plan's meaning.
        index: the member's, 1..C.
        prekey: under which the plan names the member.
    """

    plan_hash: bytes
    document: PlanDocument
    index: int
    prekey: SignedPrekey


def verify_void_of_member(
    response: device_pb2.GetVoidResponse, *, cohort_id: bytes, view: LogView, trust: Trust, member: DeviceId
) -> VerifiedVoid:
    """Check that a cohort is void and that this device was a member of its committee.

    Args:
        response: as received.
        cohort_id: the cohort that was asked for, 32 bytes.
        view: the log, already shown to extend what this device saw before.
        trust: the coordinator as the join token introduced it.
        member: this device.

    Raises:
        SignatureInvalidError: the plan was not signed by the coordinator, or the prekey in it by this device.
        MalformedError: the plan cannot be read, or names this device with another key.
        LogInconsistentError: the plan or the void is not in the log, or in the wrong order.
        VerificationError: another cohort, or no place for this device in it.
    """
    verify(trust.signing_key, response.signature, plan_signature_message(response.plan), what="the plan's signature")
    document = PlanDocument.parse(response.plan)
    if document.cohort_id != cohort_id:
        raise VerificationError("the proof of a void is for another cohort than the one asked for")
    identifier = plan_hash(response.plan)
    view.require(response.plan_proof, kind=log_pb2.LOG_ENTRY_KIND_PLAN, subject=cohort_id, digest=identifier)
    view.require(response.void_proof, kind=log_pb2.LOG_ENTRY_KIND_VOID, subject=cohort_id, digest=identifier)
    if response.void_proof.index <= response.plan_proof.index:
        raise LogInconsistentError("the cohort was logged as void before its plan")
    for place in document.committee:
        if place.prekey.device_id == member:
            # What its serial and epoch say about this device's store, only the device itself can have said.
            prekeys.verify(place.prekey, leaf_public_key(place.certificate))
            return VerifiedVoid(identifier, document, place.index, place.prekey)
    raise VerificationError("this device was no member of the void cohort's committee; it has nothing to state")
