"""A whole cohort in memory, driven through the real functions, for tests and for the vectors."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec

from nightshift.protocol.identity import DeviceId, device_id, sign
from nightshift.protocol.secagg.contribution import Contribution, entry_of, verify_contribution
from nightshift.protocol.secagg.contributors import Contributor, set_hash
from nightshift.protocol.secagg.device import MemberKey, contribute
from nightshift.protocol.secagg.keystream import Keystream
from nightshift.protocol.secagg.member import Answer, ShareForMember, answer
from nightshift.protocol.secagg.opener import OpenedVector, RunningSum, open_sum
from nightshift.protocol.secagg.parameters import CohortParameters
from nightshift.protocol.secagg.prekeys import SignedPrekey, new_prekey

NOT_AFTER = 1_800_000_000


def seeded(seed: int) -> Callable[[int], bytes]:
    """A source of bytes that a second implementation can copy: the ChaCha20 keystream of the seed as key."""
    stream = Keystream(seed.to_bytes(32, "little"))
    return lambda size_bytes: stream.take(size_bytes).tobytes()


@dataclass(frozen=True)
class Identity:
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def numbered(cls, number: int) -> Identity:
        return cls(ec.derive_private_key(number + 1, ec.SECP256R1()))

    @cached_property
    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self.key.public_key()

    @cached_property
    def device_id(self) -> DeviceId:
        return device_id(self.public_key)

    def sign(self, message: bytes) -> bytes:
        return sign(self.key, message)


@dataclass(frozen=True)
class Member:
    identity: Identity
    prekey_private: bytes
    prekey: SignedPrekey


@dataclass(frozen=True)
class Upload:
    plan_hash: bytes
    sender: Identity
    values: np.ndarray
    contribution: Contribution

    @cached_property
    def entry(self) -> Contributor:
        return entry_of(self.plan_hash, self.sender.device_id, self.contribution)

    def share(self, index: int) -> ShareForMember:
        return ShareForMember(
            contributor=self.entry,
            public_key=self.sender.public_key,
            sealed=self.contribution.sealed[index - 1],
            signature=self.contribution.signature,
        )


@dataclass
class Cohort:
    """One cohort: the committee with its keys, and what devices uploaded."""

    parameters: CohortParameters
    length: int
    seed: int = 0
    random: bool = False
    members: list[Member] = field(init=False)
    uploads: list[Upload] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.randomness = os.urandom if self.random else seeded(self.seed)
        self.plan_hash = self.randomness(32)
        self.members = []
        for index in range(1, self.parameters.committee_size + 1):
            identity = Identity.numbered(1000 + index)
            private, prekey = new_prekey(
                device=identity.device_id,
                serial=1,
                epoch=1,
                not_after=NOT_AFTER,
                sign=identity.sign,
                randomness=self.randomness,
            )
            self.members.append(Member(identity, private, prekey))

    @cached_property
    def member_keys(self) -> list[MemberKey]:
        return [
            MemberKey(index=index, device_id=member.identity.device_id, prekey=member.prekey.public)
            for index, member in enumerate(self.members, start=1)
        ]

    def vector(self, number: int) -> np.ndarray:
        """The values of device `number`: any that fit, the extremes among them."""
        rng = np.random.default_rng((self.seed, number))
        values = rng.integers(0, 1 << self.parameters.value_bits, self.length, dtype=np.uint64)
        values[0] = (1 << self.parameters.value_bits) - 1
        return values

    def upload(self, number: int, values: np.ndarray | None = None) -> Upload:
        """Device `number` contributes; verified as the coordinator does, not yet folded."""
        sender = Identity.numbered(number)
        values = self.vector(number) if values is None else values
        contribution = contribute(
            parameters=self.parameters,
            plan_hash=self.plan_hash,
            sender=sender.device_id,
            members=self.member_keys,
            values=values,
            sign=sender.sign,
            randomness=self.randomness,
        )
        self.verify(sender, contribution)
        return Upload(plan_hash=self.plan_hash, sender=sender, values=values, contribution=contribution)

    def verify(self, sender: Identity, contribution: Contribution) -> None:
        verify_contribution(
            parameters=self.parameters,
            length=self.length,
            plan_hash=self.plan_hash,
            sender=sender.device_id,
            public_key=sender.public_key,
            contribution=contribution,
        )

    def set_hash(self, uploads: Iterable[Upload]) -> bytes:
        return set_hash(self.plan_hash, [upload.entry for upload in uploads])

    def fold(self, uploads: Iterable[Upload]) -> RunningSum:
        running = RunningSum.new(self.parameters, self.length)
        for upload in uploads:
            running.add(upload.contribution.ciphertext)
        return running

    def answer(self, index: int, uploads: Sequence[Upload], /, **changes: object) -> Answer:
        member = self.members[index - 1]
        arguments: dict[str, object] = {
            "parameters": self.parameters,
            "plan_hash": self.plan_hash,
            "set_hash": self.set_hash(uploads),
            "index": index,
            "member": member.identity.device_id,
            "prekey_private": member.prekey_private,
            "shares": [upload.share(index) for upload in uploads],
            "sign": member.identity.sign,
        }
        return answer(**(arguments | changes))  # type: ignore[arg-type]  # tests change one argument at a time

    def open(self, uploads: Sequence[Upload], answers: Sequence[Answer], **changes: int) -> OpenedVector:
        return open_sum(
            parameters=self.parameters,
            plan_hash=self.plan_hash,
            running=self.fold(uploads),
            answers=answers,
            **changes,
        )


def total(uploads: Iterable[Upload]) -> np.ndarray:
    return np.sum([upload.values for upload in uploads], axis=0, dtype=np.uint64)
