"""A complete honest world for tests of plans, releases and bundles, built on nightshift.protocol only.

One coordinator (root, signing key, log) and a number of devices with
certificates and prekeys. `World.open_cohort` runs the honest order: pool
logged, committee drawn, plan signed and logged. A test that tells a lie edits
the plan on the way, or takes the steps one by one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec

from nightshift.protocol import identity
from nightshift.protocol.adapters.layout import AdapterLayout, Side, Target
from nightshift.protocol.decision import DecisionKind, decision_id, sign_decision
from nightshift.protocol.identity import DeviceId
from nightshift.protocol.log import (
    LogHead,
    LogView,
    MerkleTree,
    checkpoint_body,
    make_entry,
    sign_checkpoint,
    task_subject,
)
from nightshift.protocol.plan import (
    PlanDocument,
    committee_seed,
    layout_to_proto,
    plan_hash,
    pool_digest,
    prekey_to_proto,
    side_to_proto,
    sign_plan,
)
from nightshift.protocol.plan_checks import VerifiedPlan, verify_bundle, verify_bundle_entry, verify_offer
from nightshift.protocol.release import ReleaseDocument, release_id, sign_release
from nightshift.protocol.revocation import sign_revocation
from nightshift.protocol.secagg.committee import USUAL_SIZE, committee_size, draw
from nightshift.protocol.secagg.contribution import Contribution, entry_of
from nightshift.protocol.secagg.contributors import set_hash
from nightshift.protocol.secagg.device import contribute
from nightshift.protocol.secagg.member import Answer, ShareForMember, answer
from nightshift.protocol.secagg.parameters import CohortParameters
from nightshift.protocol.secagg.prekeys import SignedPrekey, new_prekey
from nightshift.protocol.trust import Trust
from nightshift.v1 import device_pb2, log_pb2, plan_pb2, release_pb2
from tests.support.authority import DAY_S, HOUR_S, NOW_UNIX_S, Authority, new_key

ORIGIN = "test.example/log"
LAYOUT = AdapterLayout(layers=1, targets=(Target("q_proj", 8, 8),), rank=2, alpha=4.0)
"""Side B of it has 16 values: one polynomial, so that cohorts cost milliseconds."""


@dataclass(frozen=True, slots=True)
class EnrolledDevice:
    """A device: key, certificate, one prekey with its private half."""

    key: ec.EllipticCurvePrivateKey
    certificate: bytes
    prekey_private: bytes
    prekey: SignedPrekey

    @property
    def device_id(self) -> DeviceId:
        """32 bytes."""
        return self.prekey.device_id

    def sign(self, message: bytes) -> bytes:
        """The device's signature."""
        return identity.sign(self.key, message)

    def prekey_with(self, *, serial: int = 2, epoch: int = 1, not_after: int) -> SignedPrekey:
        """Another prekey of the same device."""
        return new_prekey(
            device=self.device_id,
            serial=serial,
            epoch=epoch,
            not_after=not_after,
            sign=self.sign,
            randomness=os.urandom,
        )[1]


def make_device(authority: Authority, *, now_unix_s: int = NOW_UNIX_S) -> EnrolledDevice:
    """An enrolled device whose prekey lasts ten days."""
    key = new_key()
    device = identity.device_id(key.public_key())
    private, prekey = new_prekey(
        device=device,
        serial=1,
        epoch=1,
        not_after=now_unix_s + 10 * DAY_S,
        sign=lambda message: identity.sign(key, message),
        randomness=os.urandom,
    )
    return EnrolledDevice(key, authority.issue(key.public_key()), private, prekey)


@dataclass(slots=True)
class World:
    """The coordinator, its log and the devices."""

    authority: Authority
    devices: list[EnrolledDevice]
    now_unix_s: int = NOW_UNIX_S
    tree: MerkleTree = field(default_factory=MerkleTree)
    entries: list[bytes] = field(default_factory=list)

    @classmethod
    def make(cls, devices: int = 12) -> World:
        """A world whose devices are enrolled and logged; with 12 of them, 10 sit on a committee."""
        authority = Authority.make()
        world = cls(authority, [make_device(authority) for _ in range(devices)])
        for device in world.devices:
            world.enrol(device)
        return world

    @property
    def trust(self) -> Trust:
        """What a device of this world believes."""
        return Trust(self.authority.root, self.authority.signing_key.public_key(), ORIGIN)

    @property
    def head(self) -> LogHead:
        """The log now."""
        return LogHead(self.tree.size, self.tree.root())

    def device(self, device_id: bytes) -> EnrolledDevice:
        """The device of that id."""
        return next(device for device in self.devices if device.device_id == device_id)

    def enrolment(self, certificate: bytes) -> log_pb2.LogProof:
        """That a certificate was logged when it was issued; the empty proof if it never was."""
        digest = hashlib.sha256(certificate).digest()
        for index, entry in enumerate(self.entries):
            if digest in entry:
                return self.proof(index)
        return log_pb2.LogProof()

    def enrol(self, device: EnrolledDevice, certificate: bytes | None = None) -> int:
        """Log a certificate of a device; returns the entry's index."""
        digest = hashlib.sha256(certificate or device.certificate).digest()
        return self.append(log_pb2.LOG_ENTRY_KIND_ENROLMENT, subject=device.device_id, digest=digest)

    def append(
        self,
        kind: log_pb2.LogEntryKind,
        *,
        subject: bytes,
        digest: bytes,
        time_unix_s: int | None = None,
        note: str = "",
    ) -> int:
        """Append an entry to the log; returns its index."""
        time = self.now_unix_s if time_unix_s is None else time_unix_s
        self.entries.append(make_entry(kind, time_unix_s=time, subject=subject, digest=digest, note=note))
        return self.tree.append(self.entries[-1])

    def proof(self, index: int) -> log_pb2.LogProof:
        """That an entry is in the log as it is now."""
        return log_pb2.LogProof(entry=self.entries[index], index=index, path=self.tree.inclusion_path(index))

    def checkpoint(self) -> log_pb2.Checkpoint:
        """The log as it is now, signed."""
        return sign_checkpoint(checkpoint_body(ORIGIN, self.tree.size, self.tree.root()), self.authority.sign)

    def view(self, last: LogHead | None = None) -> LogView:
        """What a device that remembers `last` concludes from the honest checkpoint."""
        seen = last.size if last else 0
        path = self.tree.consistency_path(seen) if seen <= self.tree.size else []
        return LogView.verify(self.checkpoint(), trust=self.trust, last=last, consistency_path=path)

    def revocation(self, number: int, revoked: Sequence[DeviceId]) -> device_pb2.RevocationList:
        """A signed list."""
        return sign_revocation(number, revoked, self.authority.sign)

    def publish(
        self,
        *,
        task: str = "notes",
        number: int = 0,
        parent: bytes = b"",
        edit: Callable[[release_pb2.Release], object] | None = None,
    ) -> Publication:
        """Sign and log a release."""
        release = release_pb2.Release(
            task=task,
            number=number,
            parent=parent,
            base_model=hashlib.sha256(b"base model").digest(),
            layout=layout_to_proto(LAYOUT),
            adapter_sha256=hashlib.sha256(b"adapter").digest(),
            adapter_size_bytes=4096,
            time_unix_s=self.now_unix_s,
        )
        if edit is not None:
            edit(release)
        data = release.SerializeToString(deterministic=True)
        index = self.append(log_pb2.LOG_ENTRY_KIND_RELEASE, subject=task_subject(release.task), digest=release_id(data))
        return Publication(self, data, sign_release(data, self.authority.sign), index)

    def decide(
        self,
        served: Publication,
        *,
        number: int = 1,
        kind: DecisionKind = DecisionKind.UNGATED,
        next_parent: Publication | None = None,
        edit: Callable[[release_pb2.Decision], object] | None = None,
    ) -> Decided:
        """Sign and log a decision that a release is served."""
        document = ReleaseDocument.parse(served.release)
        decision = release_pb2.Decision(
            task=document.task,
            number=number,
            kind=kind.value,
            served=served.release_id,
            served_number=document.number,
            judged=served.release_id,
            next_parent=(next_parent or served).release_id,
            time_unix_s=self.now_unix_s,
            reason="decided by a test",
        )
        if edit is not None:
            edit(decision)
        data = decision.SerializeToString(deterministic=True)
        index = self.append(
            log_pb2.LOG_ENTRY_KIND_DECISION, subject=task_subject(decision.task), digest=decision_id(data)
        )
        return Decided(self, data, sign_decision(data, self.authority.sign), index)

    def log_pool(self, cohort_id: bytes, pool: Sequence[bytes]) -> int:
        """Log a pool snapshot; returns its index."""
        return self.append(log_pb2.LOG_ENTRY_KIND_POOL, subject=cohort_id, digest=pool_digest(pool))

    def draft(
        self,
        parent: Publication,
        cohort_id: bytes,
        pool: Sequence[DeviceId],
        *,
        n_max: int = 16,
        n_min: int = 3,
        committee: int = USUAL_SIZE,
    ) -> plan_pb2.Plan:
        """An unsigned plan whose seed is the log as it is now, with the committee that it draws."""
        size = committee_size(len(pool), committee)
        parameters = CohortParameters.derive(n_max=n_max, value_bits=8, committee_size=size)
        plan = plan_pb2.Plan(
            protocol_version=1,
            cohort_id=cohort_id,
            round=1,
            task="notes",
            base_model=hashlib.sha256(b"base model").digest(),
            parent_release=parent.release_id,
            layout=layout_to_proto(LAYOUT),
            side=side_to_proto(Side.B),
            trained_rank=LAYOUT.rank,
            training=plan_pb2.TrainingSettings(
                steps=20,
                batch_size=4,
                learning_rate=1e-3,
                schedule="cosine",
                weight_decay=0.01,
                gradient_clip_norm=1.0,
                max_tokens=256,
                examples_for_full_weight=50,
            ),
            encoding=plan_pb2.VectorEncoding(
                delta_length=LAYOUT.vector_length(Side.B),
                metrics=["loss_before", "loss_after", "tokens"],
                value_bits=8,
                value_clip=0.125,
                clip_norm=1.0,
            ),
            n_max=n_max,
            n_min=n_min,
            pool=sorted(pool),
            threshold=parameters.threshold,
            upload_deadline_unix_s=self.now_unix_s + 8 * HOUR_S,
            latest_upload_deadline_unix_s=self.now_unix_s + 10 * HOUR_S,
            answer_deadline_unix_s=self.now_unix_s + 2 * DAY_S,
            seed_log_size=self.tree.size,
            seed_log_root=self.tree.root(),
        )
        self.seat(plan, size)
        return plan

    def seat(self, plan: plan_pb2.Plan, size: int | None = None) -> None:
        """Replace a plan's committee by the one that its seed draws from its pool."""
        pool = [DeviceId(item) for item in plan.pool]
        seed = committee_seed(plan.seed_log_size, plan.seed_log_root, plan.cohort_id)
        members = draw(seed, plan.cohort_id, pool, committee_size(len(pool)) if size is None else size)
        del plan.committee[:]
        plan.committee.extend(self.member(index, self.device(each)) for index, each in enumerate(members, start=1))

    def member(self, index: int, device: EnrolledDevice) -> plan_pb2.CommitteeMember:
        """A device's place on a committee."""
        return plan_pb2.CommitteeMember(
            index=index, prekey=prekey_to_proto(device.prekey), certificate=device.certificate
        )

    def commit(self, plan: plan_pb2.Plan, pool_index: int, *, time_unix_s: int | None = None) -> Cohort:
        """Sign a plan and log it."""
        data = plan.SerializeToString(deterministic=True)
        index = self.append(
            log_pb2.LOG_ENTRY_KIND_PLAN, subject=plan.cohort_id, digest=plan_hash(data), time_unix_s=time_unix_s
        )
        return Cohort(self, data, sign_plan(data, self.authority.sign), pool_index, index)

    def open_cohort(
        self,
        *,
        parent: Publication | None = None,
        edit: Callable[[plan_pb2.Plan], object] | None = None,
        n_max: int = 16,
        n_min: int = 3,
        committee: int = USUAL_SIZE,
    ) -> Cohort:
        """Everything from the pool to the logged plan.

        Args:
            parent: release to train on from; a new release 0 by default.
            edit: changes the plan before it is signed and logged.
            n_max: most contributors.
            n_min: fewest contributors.
            committee: members wanted; fewer where the pool is smaller.
        """
        parent = parent or self.publish()
        cohort_id = os.urandom(32)
        pool = sorted(device.device_id for device in self.devices)
        pool_index = self.log_pool(cohort_id, pool)
        plan = self.draft(parent, cohort_id, pool, n_max=n_max, n_min=n_min, committee=committee)
        if edit is not None:
            edit(plan)
        return self.commit(plan, pool_index)


@dataclass(frozen=True, slots=True)
class Publication:
    """A release as the coordinator keeps it."""

    world: World
    release: bytes
    signature: bytes
    index: int

    @property
    def release_id(self) -> bytes:
        """32 bytes."""
        return release_id(self.release)

    def offer(self) -> device_pb2.ReleaseOffer:
        """As it travels, proved against the log as it is now."""
        return device_pb2.ReleaseOffer(
            release=self.release, signature=self.signature, proof=self.world.proof(self.index)
        )


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision as the coordinator keeps it."""

    world: World
    decision: bytes
    signature: bytes
    index: int

    @property
    def decision_id(self) -> bytes:
        """32 bytes."""
        return decision_id(self.decision)

    def offer(self) -> device_pb2.DecisionOffer:
        """As it travels, proved against the log as it is now."""
        return device_pb2.DecisionOffer(
            decision=self.decision, signature=self.signature, proof=self.world.proof(self.index)
        )


@dataclass(frozen=True, slots=True)
class Cohort:
    """A logged plan as the coordinator keeps it."""

    world: World
    plan: bytes
    signature: bytes
    pool_index: int
    plan_index: int

    @property
    def plan_hash(self) -> bytes:
        """H."""
        return plan_hash(self.plan)

    @property
    def message(self) -> plan_pb2.Plan:
        """The plan, read without any check."""
        return plan_pb2.Plan.FromString(self.plan)

    @property
    def document(self) -> PlanDocument:
        """The plan, parsed."""
        return PlanDocument.parse(self.plan)

    def offer(self) -> device_pb2.PlanOffer:
        """As it travels, proved against the log as it is now."""
        return device_pb2.PlanOffer(
            plan=self.plan,
            signature=self.signature,
            plan_proof=self.world.proof(self.plan_index),
            pool_proof=self.world.proof(self.pool_index),
            seed_path=self.world.tree.consistency_path(self.message.seed_log_size),
            member_enrolments=[self.world.enrolment(member.certificate) for member in self.message.committee],
        )

    def verify(
        self,
        offer: device_pb2.PlanOffer | None = None,
        *,
        revoked: Sequence[DeviceId] = (),
        now_unix_s: int | None = None,
    ) -> VerifiedPlan:
        """What a contributor that has seen nothing before concludes."""
        return verify_offer(
            offer or self.offer(),
            view=self.world.view(),
            trust=self.world.trust,
            revoked=frozenset(revoked),
            now_unix_s=self.world.now_unix_s if now_unix_s is None else now_unix_s,
        )

    def contribute(self, device: EnrolledDevice, delta: float = 0.05, weight: float = 1.0) -> Contribution:
        """An honest contribution whose delta has the same value everywhere."""
        verified = self.verify()
        vector = verified.document.vector
        values = vector.encode(
            np.full(vector.delta_length, delta, dtype=np.float32),
            weight,
            dict.fromkeys(vector.metrics, 2.0),
            os.urandom,
        )
        return contribute(
            parameters=verified.document.parameters,
            plan_hash=verified.plan_hash,
            sender=device.device_id,
            members=verified.member_keys(),
            values=values,
            sign=device.sign,
            randomness=os.urandom,
        )

    def freeze(self, contributions: Mapping[DeviceId, Contribution]) -> FrozenSet:
        """Freeze the set and log its hash."""
        contributors = [entry_of(self.plan_hash, device, each) for device, each in sorted(contributions.items())]
        digest = set_hash(self.plan_hash, contributors)
        index = self.world.append(log_pb2.LOG_ENTRY_KIND_SET, subject=self.message.cohort_id, digest=digest)
        return FrozenSet(self, dict(contributions), digest, index)


@dataclass(frozen=True, slots=True)
class FrozenSet:
    """A cohort's frozen set of contributors."""

    cohort: Cohort
    contributions: Mapping[DeviceId, Contribution]
    set_hash: bytes
    set_index: int

    def header(self) -> device_pb2.BundleHeader:
        """The bundle's first message, for a device that has seen nothing before."""
        world = self.cohort.world
        return device_pb2.BundleHeader(
            plan=self.cohort.plan,
            signature=self.cohort.signature,
            plan_proof=world.proof(self.cohort.plan_index),
            set_hash=self.set_hash,
            set_proof=world.proof(self.set_index),
            checkpoint=world.checkpoint(),
            contributors=len(self.contributions),
        )

    def entries(self, index: int) -> list[device_pb2.BundleEntry]:
        """The bundle's entries for the member of that index."""
        found = []
        for device_id, contribution in sorted(self.contributions.items()):
            entry = entry_of(self.cohort.plan_hash, device_id, contribution)
            certificate = self.cohort.world.device(device_id).certificate
            found.append(
                device_pb2.BundleEntry(
                    certificate=certificate,
                    enrolment=self.cohort.world.enrolment(certificate),
                    ciphertext_tag=entry.ciphertext_tag,
                    sealed_sha256=entry.sealed_sha256,
                    sealed=contribution.sealed[index - 1],
                    signature=contribution.signature,
                )
            )
        return found

    def member(self, index: int) -> EnrolledDevice:
        """The committee member of that index."""
        return self.cohort.world.device(self.cohort.message.committee[index - 1].prekey.device_id)

    def verify(
        self,
        index: int,
        header: device_pb2.BundleHeader | None = None,
        *,
        cohort_id: bytes | None = None,
        member: EnrolledDevice | None = None,
    ) -> tuple[VerifiedPlan, int]:
        """What the member of that index concludes from a header."""
        member = member or self.member(index)
        return verify_bundle(
            header or self.header(),
            cohort_id=cohort_id or self.cohort.message.cohort_id,
            view=self.cohort.world.view(),
            trust=self.cohort.world.trust,
            member=member.device_id,
            prekey=member.prekey.public,
        )

    def verify_entry(self, entry: device_pb2.BundleEntry, *, plan: VerifiedPlan) -> ShareForMember:
        """What a member concludes from an entry, against the log as it is now."""
        world = self.cohort.world
        return verify_bundle_entry(entry, plan=plan, trust=world.trust, view=world.view(), set_position=self.set_index)

    def answer(self, index: int) -> Answer:
        """The answer of the honest member of that index, after all its checks."""
        member = self.member(index)
        plan, place = self.verify(index)
        return answer(
            parameters=plan.document.parameters,
            plan_hash=plan.plan_hash,
            set_hash=self.set_hash,
            index=place,
            member=member.device_id,
            prekey_private=member.prekey_private,
            shares=(self.verify_entry(entry, plan=plan) for entry in self.entries(place)),
            sign=member.sign,
            minimum=plan.document.n_min,
        )
