"""A contribution taken apart, to be put together wrongly: signed, hashed and sealed as the honest device does.

A hostile device has its own key, so nothing that it says can be told from an
honest device's by a signature. What it can get wrong is what it encrypts, what
it shares, and what it seals. `Innards` holds these as a real `contribute` made
them; a test changes one, and `body` seals and signs the rest honestly.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from nightshift.protocol.plan_checks import VerifiedPlan
from nightshift.protocol.secagg import packing, sharing
from nightshift.protocol.secagg.parameters import RING_DIMENSION, CohortParameters
from nightshift.protocol.secagg.public_matrix import PublicMatrix
from nightshift.protocol.secagg.ring import Multiplier
from nightshift.protocol.secagg.sealing import seal, seal_info
from nightshift.protocol.upload import pack, unpack
from tests.support.scripted_device import Prepared, ScriptedDevice, signed_contribution


@dataclass
class Innards:
    """What is inside one contribution, to be changed in place.

    Attributes:
        device: whose it is.
        plan: that it is for.
        values: uint64[D], what the ciphertext adds to the sum.
        secret: int64[N], the key s.
        coefficients: uint64[P, N], the ciphertext modulo 2^Q.
        shares: uint64[C, N], row i - 1 for member i.
        sealed: for each member what it is sent instead of its sealed share, if anything.
    """

    device: ScriptedDevice
    plan: VerifiedPlan
    values: NDArray[np.uint64]
    secret: NDArray[np.int64]
    coefficients: NDArray[np.uint64]
    shares: NDArray[np.uint64]
    sealed: dict[int, bytes]

    @classmethod
    def of(cls, device: ScriptedDevice, plan: VerifiedPlan, values: NDArray[np.uint64]) -> Innards:
        """An honest contribution of these values."""
        split = sharing.split
        seen: list[tuple[NDArray[np.int64], NDArray[np.uint64]]] = []

        def remember(secret: NDArray[np.int64], parameters: CohortParameters, randomness: object) -> NDArray[np.uint64]:
            shares = split(secret, parameters, randomness)  # type: ignore[arg-type]  # passed through as it came
            seen.append((secret.copy(), shares.copy()))
            return shares

        with mock.patch.object(sharing, "split", remember):
            prepared = device.encrypt(plan, values)
        ((secret, shares),) = seen
        document = plan.document
        contribution = unpack(document.parameters, document.vector.length, prepared.body)
        words = document.parameters.words(document.vector.length)
        coefficients = packing.unpack(contribution.ciphertext, words).reshape(-1, RING_DIMENSION)
        return cls(device, plan, values, secret, coefficients, shares, {})

    @property
    def parameters(self) -> CohortParameters:
        """Of the cohort."""
        return self.plan.document.parameters

    def change_key(self, by: NDArray[np.int64]) -> None:
        """Encrypt under s + by, int64[N], and share that."""
        uniform = PublicMatrix(self.plan.plan_hash).take(len(self.coefficients))
        self.coefficients += Multiplier(by, self.parameters.modulus_bits).times(uniform)
        prime = self.parameters.field_prime
        self.shares = (self.shares + np.mod(by, prime).astype(np.uint64)) % np.uint64(prime)
        self.secret = self.secret + by

    def share_with_degree(self, degree: int) -> None:
        """Add a random polynomial of this degree that is zero at 0, so that the shares are of the same key."""
        prime = self.parameters.field_prime
        rng = np.random.default_rng()
        for exponent in range(1, degree + 1):
            coefficient = rng.integers(1, prime, RING_DIMENSION, dtype=np.uint64)
            for index in range(1, len(self.shares) + 1):
                term = coefficient * np.uint64(pow(index, exponent, prime)) % np.uint64(prime)
                self.shares[index - 1] = (self.shares[index - 1] + term) % np.uint64(prime)

    def change_share(self, index: int) -> None:
        """Give one member a share that does not fit the others', sealed and signed like any."""
        prime = self.parameters.field_prime
        self.shares[index - 1] = np.random.default_rng().integers(0, prime, RING_DIMENSION, dtype=np.uint64)

    def seal_bytes(self, index: int, plaintext: bytes) -> None:
        """Seal any bytes to a member as if they were its share."""
        member = self.plan.member_keys()[index - 1]
        info = seal_info(self.plan.plan_hash, self.device.device_id, member.device_id)
        self.sealed[index] = seal(plaintext, member.prekey, info)

    def body(self) -> Prepared:
        """Seal what was not sealed otherwise, sign everything, and make it ready to be sent."""
        members = self.plan.member_keys()
        for member in members:
            if member.index not in self.sealed:
                self.seal_bytes(member.index, sharing.to_bytes(self.shares[member.index - 1], self.parameters))
        words = self.parameters.words(self.plan.document.vector.length)
        contribution = signed_contribution(
            self.device,
            self.plan,
            ciphertext=packing.pack(self.coefficients.reshape(-1), words),
            sealed=[self.sealed[member.index] for member in members],
        )
        return Prepared(self.plan, self.values, pack(contribution))


def random_values(plan: VerifiedPlan) -> NDArray[np.uint64]:
    """An honest vector: a delta over the whole range, a weight of one, small metrics."""
    vector = plan.document.vector
    delta = np.random.default_rng().uniform(-vector.encoding.clip, vector.encoding.clip, vector.delta_length)
    return vector.encode(delta.astype(np.float32), 1.0, dict.fromkeys(vector.metrics, 1.0), os.urandom)
