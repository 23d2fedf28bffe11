"""A coordinator that lies: the real service with all its keys, whose replies are altered before they leave.

`python -m tests.support.lying_coordinator --data DIR serve` serves like
`coordinator`. Before every reply it reads the name of a lie from the file that
`NIGHTSHIFT_LIE` names; an absent file or an empty name is the honest
coordinator. A lie has every key that the coordinator has: whatever can be
signed is signed, whatever can be logged is logged, so that only the check in
question can refuse it.

Lies that a coordinator tells by its rows alone are in `lying_rows`.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import grpc
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from sqlalchemy import select
from sqlalchemy.orm import Session

from coordinator.deployment import Deployment
from coordinator.log import LogSnapshot
from coordinator.releases import decisions, publication, repository
from coordinator.rounds.prekeys import signed
from coordinator.rounds.transitions import unfinished
from coordinator.service import listeners
from coordinator.service.device import DeviceServicer
from coordinator.storage import artefacts
from coordinator.storage.rows import DecisionRow, LogEntryRow, PrekeyRow, ReleaseRow
from nightshift.host.clock import now_unix_s
from nightshift.protocol.decision import decision_id, sign_decision
from nightshift.protocol.errors import NotFoundError
from nightshift.protocol.identity import DeviceId
from nightshift.protocol.log import MerkleTree, checkpoint_body, parse_checkpoint_body, sign_checkpoint, task_subject
from nightshift.protocol.plan import committee_seed, plan_hash, pool_digest, prekey_to_proto, sign_plan
from nightshift.protocol.release import release_id, sign_release
from nightshift.protocol.revocation import sign_revocation
from nightshift.protocol.secagg.committee import committee_size, draw
from nightshift.protocol.secagg.parameters import CohortParameters
from nightshift.v1 import device_pb2, log_pb2, plan_pb2, release_pb2
from tests.support.authority import Authority
from tests.support.lying_metadata import AT_METADATA
from tests.support.plans import EnrolledDevice, make_device

VARIABLE = "NIGHTSHIFT_LIE"
ROOT = Path(__file__).parents[2]
PROGRAM = (sys.executable, "-m", "tests.support.lying_coordinator")

Reply = device_pb2.CheckInResponse
CheckInLie = Callable[[Deployment, device_pb2.CheckInRequest, Callable[[], Reply]], Reply]
Edit = Callable[[plan_pb2.Plan], object]


# Told at the check-in.


def plan_byte(deployment: Deployment, request: device_pb2.CheckInRequest, honest: Callable[[], Reply]) -> Reply:
    """One bit of the plan is another one."""
    reply = honest()
    if reply.HasField("plan"):
        changed = bytearray(reply.plan.plan)
        changed[len(changed) // 2] ^= 1
        reply.plan.plan = bytes(changed)
    return reply


def plan_not_logged(deployment: Deployment, request: device_pb2.CheckInRequest, honest: Callable[[], Reply]) -> Reply:
    """A plan that is signed anew after it was logged: it now asks for one step more."""
    reply = honest()
    if reply.HasField("plan"):
        plan = plan_pb2.Plan.FromString(reply.plan.plan)
        plan.training.steps += 1
        reply.plan.plan = plan.SerializeToString(deterministic=True)
        reply.plan.signature = sign_plan(reply.plan.plan, deployment.authority.sign)
    return reply


def forged_plan(edit: Edit) -> CheckInLie:
    """An edited copy of the open plan, drawn, signed and logged in the honest order."""

    def lie(deployment: Deployment, request: device_pb2.CheckInRequest, honest: Callable[[], Reply]) -> Reply:
        if request.no_plan:
            return honest()
        with deployment.database.transaction() as session:
            plan, signature, position = _log_forged(session, deployment, edit)
        reply = honest()
        with deployment.database.reading() as session:
            snapshot = deployment.log.snapshot(session)
            assert reply.checkpoint.body == snapshot.checkpoint().body, "something else was logged meanwhile"
            reply.plan.CopyFrom(_offer(session, snapshot, plan, signature, position))
        return reply

    return lie


def _log_forged(session: Session, deployment: Deployment, edit: Edit) -> tuple[plan_pb2.Plan, bytes, int]:
    (honest,) = unfinished(session)
    plan = plan_pb2.Plan.FromString(honest.plan)
    edit(plan)
    now = now_unix_s()
    deployment.log.append(
        session,
        log_pb2.LOG_ENTRY_KIND_POOL,
        time_unix_s=now,
        subject=plan.cohort_id,
        digest=pool_digest(list(plan.pool)),
    )
    seed = deployment.log.snapshot(session)
    plan.seed_log_size, plan.seed_log_root = seed.size, seed.root
    members = {member.prekey.device_id: member for member in plan.committee}
    pool = [DeviceId(identity) for identity in plan.pool]
    drawn = draw(committee_seed(seed.size, seed.root, plan.cohort_id), plan.cohort_id, pool, committee_size(len(pool)))
    ordered = [
        plan_pb2.CommitteeMember.FromString(members[identity].SerializeToString())
        for identity in drawn
        if identity in members
    ]
    for index, member in enumerate(ordered, start=1):
        member.index = index
    del plan.committee[:]
    plan.committee.extend(ordered)
    data = plan.SerializeToString(deterministic=True)
    position = deployment.log.append(
        session,
        log_pb2.LOG_ENTRY_KIND_PLAN,
        time_unix_s=now,
        subject=plan.cohort_id,
        digest=plan_hash(data),
    )
    return plan, sign_plan(data, deployment.authority.sign), position


def _offer(
    session: Session, snapshot: LogSnapshot, plan: plan_pb2.Plan, signature: bytes, position: int
) -> device_pb2.PlanOffer:
    return device_pb2.PlanOffer(
        plan=plan.SerializeToString(deterministic=True),
        signature=signature,
        plan_proof=snapshot.proof(session, position),
        pool_proof=snapshot.proof(session, position - 1),
        seed_path=snapshot.consistency_path(plan.seed_log_size),
        member_enrolments=[_enrolment(session, snapshot, member) for member in plan.committee],
    )


def _enrolment(session: Session, snapshot: LogSnapshot, member: plan_pb2.CommitteeMember) -> log_pb2.LogProof:
    """The log's entry about a member's certificate; about one that it made up there is none."""
    digest = hashlib.sha256(member.certificate).digest()
    for row in session.scalars(select(LogEntryRow)):
        if digest in row.entry:
            return snapshot.proof(session, row.position)
    return log_pb2.LogProof()


def committee_of_two(plan: plan_pb2.Plan) -> None:
    """Two members, of whom both must answer."""
    plan.cohort_id = secrets.token_bytes(32)
    del plan.committee[2:]
    plan.threshold = 2


def weaker_threshold(plan: plan_pb2.Plan) -> None:
    """One answer less than the table wants."""
    plan.cohort_id = secrets.token_bytes(32)
    plan.threshold -= 1


def sum_of_two(plan: plan_pb2.Plan) -> None:
    """A sum over two devices may be opened."""
    plan.cohort_id = secrets.token_bytes(32)
    plan.n_min = 2


def substituted_prekey(plan: plan_pb2.Plan) -> None:
    """The coordinator's own key in the place of a member's: shares sealed to it would open here."""
    plan.cohort_id = secrets.token_bytes(32)
    plan.committee[0].prekey.public_key = X25519PrivateKey.generate().public_key().public_bytes_raw()


def sybil_member(plan: plan_pb2.Plan) -> None:
    """A member that the coordinator made up: its prekey is signed, its certificate is of no known authority."""
    _seat(plan, make_device(Authority.make(), now_unix_s=now_unix_s()))


def _seat(plan: plan_pb2.Plan, sybil: EnrolledDevice) -> None:
    plan.cohort_id = secrets.token_bytes(32)
    plan.pool.append(sybil.device_id)
    plan.pool.sort()
    parameters = CohortParameters.derive(
        n_max=plan.n_max, value_bits=plan.encoding.value_bits, committee_size=len(plan.committee) + 1
    )
    plan.threshold = parameters.threshold
    plan.committee.append(plan_pb2.CommitteeMember(prekey=prekey_to_proto(sybil.prekey), certificate=sybil.certificate))


def unlogged_member(deployment: Deployment, request: device_pb2.CheckInRequest, honest: Callable[[], Reply]) -> Reply:
    """A member that the coordinator made up and certified with its own authority, and told nobody of."""

    sybil = make_device(Authority.make(), now_unix_s=now_unix_s())
    certificate = deployment.authority.issue_device_certificate(sybil.key.public_key(), now_unix_s())
    certified = replace(sybil, certificate=certificate)
    return forged_plan(lambda plan: _seat(plan, certified))(deployment, request, honest)


def same_prekeys(plan: plan_pb2.Plan) -> None:
    """Another cohort, for the same parent, that names the same one-time keys."""
    plan.cohort_id = secrets.token_bytes(32)


def same_cohort(plan: plan_pb2.Plan) -> None:
    """Another plan under the same cohort id."""
    plan.training.steps += 1


def log_fork(deployment: Deployment, request: device_pb2.CheckInRequest, honest: Callable[[], Reply]) -> Reply:
    """Another tree: the last entry that the device has seen says something else. All proofs are for that tree."""
    reply = honest()
    with deployment.database.reading() as session:
        leaves = list(session.scalars(select(LogEntryRow.leaf_hash).order_by(LogEntryRow.position)))
    size = parse_checkpoint_body(reply.checkpoint.body, deployment.log.origin).size
    leaves[request.log_size - 1] = secrets.token_bytes(32)
    fork = MerkleTree(leaves[:size])
    reply.checkpoint.CopyFrom(_checkpoint(deployment, fork, size))
    del reply.consistency_path[:]
    reply.consistency_path.extend(fork.consistency_path(request.log_size, size))
    proofs = [release.proof for release in reply.releases]
    if reply.HasField("plan"):
        proofs += [reply.plan.plan_proof, reply.plan.pool_proof]
    for proof in proofs:
        del proof.path[:]
        proof.path.extend(fork.inclusion_path(proof.index, size))
    return reply


def log_shrink(deployment: Deployment, request: device_pb2.CheckInRequest, honest: Callable[[], Reply]) -> Reply:
    """The log as it was one entry before what the device has seen; it knows of no plan yet."""
    reply = honest()
    with deployment.database.reading() as session:
        leaves = session.scalars(select(LogEntryRow.leaf_hash).order_by(LogEntryRow.position)).all()
        size = request.log_size - 1
        tree = MerkleTree(leaves[:size])
        reply.checkpoint.CopyFrom(_checkpoint(deployment, tree, size))
        first = session.scalars(select(ReleaseRow).order_by(ReleaseRow.number)).first()
        assert first is not None
        past = LogSnapshot(deployment.log.origin, tree, size, deployment.authority.sign)
        offer = publication.offer(session, past, first)
    del reply.consistency_path[:]
    reply.ClearField("plan")
    del reply.releases[:]
    reply.releases.append(offer)
    return reply


def _checkpoint(deployment: Deployment, tree: MerkleTree, size: int) -> log_pb2.Checkpoint:
    return sign_checkpoint(checkpoint_body(deployment.log.origin, size, tree.root(size)), deployment.authority.sign)


def release_rolled_back(
    deployment: Deployment, request: device_pb2.CheckInRequest, honest: Callable[[], Reply]
) -> Reply:
    """Release 0, signed and logged, is said to be the newest."""
    reply = honest()
    reply.ClearField("plan")
    with deployment.database.reading() as session:
        first = session.scalars(select(ReleaseRow).order_by(ReleaseRow.number)).first()
        assert first is not None
        offer = publication.offer(session, deployment.log.snapshot(session), first)
    del reply.releases[:]
    reply.releases.append(offer)
    return reply


def decision_rolled_back(
    deployment: Deployment, request: device_pb2.CheckInRequest, honest: Callable[[], Reply]
) -> Reply:
    """The first decision, by which release 0 is served, is said to be the newest."""
    reply = honest()
    reply.ClearField("plan")
    with deployment.database.reading() as session:
        first = session.scalars(select(DecisionRow).order_by(DecisionRow.number)).first()
        assert first is not None
        offer = decisions.offer(session, deployment.log.snapshot(session), first)
    del reply.decisions[:]
    reply.decisions.append(offer)
    return reply


def decision_in_two_versions(
    deployment: Deployment, request: device_pb2.CheckInRequest, honest: Callable[[], Reply]
) -> Reply:
    """The newest decision's number once more, for another reason; signed and logged."""
    if request.no_plan:
        return honest()
    with deployment.database.transaction() as session:
        newest = session.scalars(select(DecisionRow).order_by(DecisionRow.number.desc())).first()
        assert newest is not None
        message = release_pb2.Decision.FromString(newest.document)
        message.reason = "another reason"
        document = message.SerializeToString(deterministic=True)
        position = deployment.log.append(
            session,
            log_pb2.LOG_ENTRY_KIND_DECISION,
            time_unix_s=now_unix_s(),
            subject=task_subject(message.task),
            digest=decision_id(document),
        )
    reply = honest()
    reply.ClearField("plan")
    del reply.decisions[:]
    with deployment.database.reading() as session:
        proof = deployment.log.snapshot(session).proof(session, position)
    signature = sign_decision(document, deployment.authority.sign)
    reply.decisions.append(device_pb2.DecisionOffer(decision=document, signature=signature, proof=proof))
    return reply


def release_in_two_versions(
    deployment: Deployment, request: device_pb2.CheckInRequest, honest: Callable[[], Reply]
) -> Reply:
    """The newest release's number once more, with the parent's adapter in it; signed and logged."""
    if request.no_plan:
        return honest()
    with deployment.database.transaction() as session:
        oldest, *_, newest = session.scalars(select(ReleaseRow).order_by(ReleaseRow.number))
        message = release_pb2.Release.FromString(newest.document)
        message.adapter_sha256 = oldest.adapter_sha256
        document = message.SerializeToString(deterministic=True)
        position = deployment.log.append(
            session,
            log_pb2.LOG_ENTRY_KIND_RELEASE,
            time_unix_s=now_unix_s(),
            subject=task_subject(message.task),
            digest=release_id(document),
        )
    reply = honest()
    reply.ClearField("plan")
    del reply.releases[:]
    with deployment.database.reading() as session:
        snapshot = deployment.log.snapshot(session)
        reply.releases.append(
            device_pb2.ReleaseOffer(
                release=document,
                signature=sign_release(document, deployment.authority.sign),
                proof=snapshot.proof(session, position),
            )
        )
    return reply


def parent_of_nobody(deployment: Deployment, request: device_pb2.CheckInRequest, honest: Callable[[], Reply]) -> Reply:
    """A parent that no release has, in a plan that names other one-time keys than the honest one."""

    def edit(plan: plan_pb2.Plan) -> None:
        plan.cohort_id = secrets.token_bytes(32)
        plan.parent_release = secrets.token_bytes(32)
        with deployment.database.reading() as session:
            for member in plan.committee:
                unspent = select(PrekeyRow).where(
                    PrekeyRow.device_id == member.prekey.device_id, PrekeyRow.spent_on.is_(None)
                )
                member.prekey.CopyFrom(prekey_to_proto(signed(session.scalars(unspent).first())))

    return forged_plan(edit)(deployment, request, honest)


def parent_not_logged(deployment: Deployment, request: device_pb2.CheckInRequest, honest: Callable[[], Reply]) -> Reply:
    """A parent that was signed for one device alone, shown with the log's proof of the real one."""
    told_to: list[device_pb2.ReleaseOffer] = []

    def train_on_it(plan: plan_pb2.Plan) -> None:
        plan.cohort_id = secrets.token_bytes(32)
        with deployment.database.reading() as session:
            row = session.get_one(ReleaseRow, plan.parent_release)
            offer = publication.offer(session, deployment.log.snapshot(session), row)
        message = release_pb2.Release.FromString(offer.release)
        message.number += 1
        offer.release = message.SerializeToString(deterministic=True)
        offer.signature = sign_release(offer.release, deployment.authority.sign)
        plan.parent_release = release_id(offer.release)
        told_to.append(offer)

    reply = forged_plan(train_on_it)(deployment, request, honest)
    if told_to:
        with deployment.database.reading() as session:
            snapshot = deployment.log.snapshot(session)
            told_to[0].proof.CopyFrom(snapshot.proof(session, told_to[0].proof.index))
        reply.releases.append(told_to[0])
    return reply


def revocations_rolled_back(
    deployment: Deployment, request: device_pb2.CheckInRequest, honest: Callable[[], Reply]
) -> Reply:
    """The list from before the first revocation, signed."""
    reply = honest()
    reply.revocation.CopyFrom(sign_revocation(0, [], deployment.authority.sign))
    return reply


def revocation_taken_back(
    deployment: Deployment, request: device_pb2.CheckInRequest, honest: Callable[[], Reply]
) -> Reply:
    """A list under a new number that revokes nobody, signed."""
    reply = honest()
    reply.revocation.CopyFrom(sign_revocation(reply.revocation.number + 1, [], deployment.authority.sign))
    return reply


AT_CHECK_IN: dict[str, CheckInLie] = {
    "plan byte": plan_byte,
    "plan not logged": plan_not_logged,
    "committee of two": forged_plan(committee_of_two),
    "weaker threshold": forged_plan(weaker_threshold),
    "sum of two": forged_plan(sum_of_two),
    "substituted prekey": forged_plan(substituted_prekey),
    "sybil member": forged_plan(sybil_member),
    "unlogged member": unlogged_member,
    "parent of nobody": parent_of_nobody,
    "parent not logged": parent_not_logged,
    "same prekeys": forged_plan(same_prekeys),
    "same cohort": forged_plan(same_cohort),
    "log fork": log_fork,
    "log shrink": log_shrink,
    "release rolled back": release_rolled_back,
    "release in two versions": release_in_two_versions,
    "decision rolled back": decision_rolled_back,
    "decision in two versions": decision_in_two_versions,
    "revocations rolled back": revocations_rolled_back,
    "revocation taken back": revocation_taken_back,
}
OTHER_BYTES = {"other adapter bytes": "adapter", "other model bytes": "model"}
"""Lie -> kind of the artefacts of which one byte is another one."""


class LyingServicer(DeviceServicer):
    """The real servicer, with a lie between it and the wire."""

    def CheckIn(self, request: device_pb2.CheckInRequest, context: grpc.ServicerContext) -> Reply:
        lie = AT_CHECK_IN.get(told())
        if lie is None:
            reply: Reply = super().CheckIn(request, context)
            if told() in AT_METADATA:
                # Else a device that followed the newest metadata asks for none.
                reply.release_metadata.sha256 = secrets.token_bytes(32)
            return reply
        return lie(self._deployment, request, lambda: super(LyingServicer, self).CheckIn(request, context))

    def GetReleaseMetadata(
        self, request: device_pb2.GetReleaseMetadataRequest, context: grpc.ServicerContext
    ) -> device_pb2.GetReleaseMetadataResponse:
        lie = AT_METADATA.get(told())
        if lie is None:
            return super().GetReleaseMetadata(request, context)
        with self._deployment.database.reading() as session:
            try:
                honest = repository.document(session, request.role, request.version)
            except NotFoundError:
                # What a lie named that is not there, or the root after the newest one.
                honest = b""
        document = lie(self._deployment, request.role, honest)
        if not document:
            return super().GetReleaseMetadata(request, context)
        return device_pb2.GetReleaseMetadataResponse(document=document)

    def FetchArtefact(
        self, request: device_pb2.FetchArtefactRequest, context: grpc.ServicerContext
    ) -> Iterator[device_pb2.FetchArtefactResponse]:
        with self._deployment.database.reading() as session:
            spoilt = artefacts.find(session, request.sha256).kind == OTHER_BYTES.get(told())
        for part in super().FetchArtefact(request, context):
            if spoilt:
                part.data = part.data[:-1] + bytes([part.data[-1] ^ 1])
            yield part


def told() -> str:
    """The lie of this moment."""
    path = os.environ.get(VARIABLE)
    try:
        return Path(path).read_text("utf-8") if path else ""
    except FileNotFoundError:
        return ""


def main() -> None:
    """Serve, and lie when told to."""
    from coordinator.cli.main import main as coordinator

    listeners.DeviceServicer = LyingServicer  # type: ignore[misc]  # the one place where the lie is put in
    coordinator()


if __name__ == "__main__":
    main()
