"""The body of a contribution: one right length, and nothing to stretch."""

from __future__ import annotations

import pytest

from nightshift.protocol.errors import MalformedError
from nightshift.protocol.secagg.contribution import Contribution, verify_contribution
from nightshift.protocol.secagg.parameters import CohortParameters
from nightshift.protocol.upload import pack, signature_of, unpack, upload_size_bytes
from tests.support.plans import Cohort, World

WORLD = World.make(devices=5)
COHORT: Cohort = WORLD.open_cohort()
PARAMETERS = COHORT.document.parameters
LENGTH = COHORT.document.vector.length
CONTRIBUTION: Contribution = COHORT.contribute(WORLD.devices[0])


def test_what_was_packed_is_unpacked() -> None:
    body = pack(CONTRIBUTION)
    assert unpack(PARAMETERS, LENGTH, body) == CONTRIBUTION
    assert pack(unpack(PARAMETERS, LENGTH, body)) == body


def test_what_was_unpacked_verifies() -> None:
    sender = WORLD.devices[0]
    plan = COHORT.verify()
    verify_contribution(
        parameters=PARAMETERS,
        length=LENGTH,
        plan_hash=plan.plan_hash,
        sender=sender.device_id,
        public_key=sender.key.public_key(),
        contribution=unpack(PARAMETERS, LENGTH, pack(CONTRIBUTION)),
    )


def test_the_size_follows_from_the_plan() -> None:
    share = 4096 * 2 + 32 + 16  # field elements, encapsulated key, tag
    ciphertext = PARAMETERS.ciphertext_bytes(LENGTH)
    assert upload_size_bytes(PARAMETERS, LENGTH) == ciphertext + 5 * share + 64 == len(pack(CONTRIBUTION))


def test_the_signature_stands_last() -> None:
    assert signature_of(pack(CONTRIBUTION)) == CONTRIBUTION.signature


@pytest.mark.parametrize("change", [-100_000, -64, -1, 1, 64, 8304, 1 << 20])
def test_any_other_length_is_refused(change: int) -> None:
    body = pack(CONTRIBUTION)
    wrong = body + bytes(change) if change > 0 else body[: max(0, len(body) + change)]
    assert len(wrong) != len(body)
    with pytest.raises(MalformedError, match=f"has {len(body)} bytes, got {len(wrong)}"):
        unpack(PARAMETERS, LENGTH, wrong)


def test_the_body_of_another_cohort_is_refused() -> None:
    body = pack(CONTRIBUTION)
    other = CohortParameters.derive(n_max=16, value_bits=8, committee_size=6)
    with pytest.raises(MalformedError):
        unpack(other, LENGTH, body)
    with pytest.raises(MalformedError):
        unpack(PARAMETERS, 200_000, body)
