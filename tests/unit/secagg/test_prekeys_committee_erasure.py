from __future__ import annotations

import os
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from secagg_cohort import Identity

from nightshift.protocol.errors import (
    DeclinedError,
    MalformedError,
    SignatureInvalidError,
    UsageError,
    VerificationError,
)
from nightshift.protocol.secagg import committee, erasure, prekeys
from nightshift.protocol.secagg.parameters import CohortParameters

NOW = 1_700_000_000
DEVICE = Identity.numbered(1)


def issue(identity: Identity = DEVICE, not_after: int = NOW + 3600) -> tuple[bytes, prekeys.SignedPrekey]:
    return prekeys.new_prekey(
        device=identity.device_id, serial=7, epoch=2, not_after=not_after, sign=identity.sign, randomness=os.urandom
    )


def test_a_prekey_verifies_and_its_halves_belong_together() -> None:
    private, prekey = issue()
    prekeys.verify(prekey, DEVICE.public_key, NOW)
    assert X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw() == prekey.public
    assert issue()[1].public != prekey.public


@pytest.mark.parametrize(
    "changes", [{"serial": 8}, {"epoch": 3}, {"not_after": NOW + 3601}, {"public": bytes(31) + b"\x09"}]
)
def test_no_field_of_a_prekey_can_be_changed(changes: dict[str, object]) -> None:
    _, prekey = issue()
    with pytest.raises(SignatureInvalidError, match="a prekey's signature"):
        prekeys.verify(replace(prekey, **changes), DEVICE.public_key, NOW)


def test_prekeys_of_others_are_refused() -> None:
    _, prekey = issue()
    with pytest.raises(MalformedError, match="another device's"):
        prekeys.verify(prekey, Identity.numbered(2).public_key, NOW)
    with pytest.raises(SignatureInvalidError):
        prekeys.verify(replace(prekey, device_id=Identity.numbered(2).device_id), Identity.numbered(2).public_key, NOW)


def test_prekeys_expire_and_cannot_be_hoarded() -> None:
    _, prekey = issue()
    prekeys.verify(prekey, DEVICE.public_key, NOW + 3599)
    with pytest.raises(VerificationError, match="expired"):
        prekeys.verify(prekey, DEVICE.public_key, NOW + 3600)
    prekeys.verify(prekey, DEVICE.public_key)
    limit = NOW + 14 * 24 * 3600
    prekeys.verify(issue(not_after=limit)[1], DEVICE.public_key, NOW)
    with pytest.raises(VerificationError, match="more than"):
        prekeys.verify(issue(not_after=limit + 1)[1], DEVICE.public_key, NOW)


def test_a_signed_low_order_point_is_still_refused() -> None:
    point = (1).to_bytes(32, "little")
    message = prekeys.prekey_message(DEVICE.device_id, 1, 1, NOW, point)
    prekey = prekeys.SignedPrekey(DEVICE.device_id, 1, 1, NOW, point, DEVICE.sign(message))
    with pytest.raises(MalformedError, match="low-order"):
        prekeys.verify(prekey, DEVICE.public_key)


@pytest.mark.parametrize("number", [-1, 2**64])
def test_numbers_that_do_not_fit_are_refused(number: int) -> None:
    _, prekey = issue()
    with pytest.raises(MalformedError, match="fit 64 bits"):
        prekeys.verify(replace(prekey, serial=number), DEVICE.public_key)


POOL = [Identity.numbered(number).device_id for number in range(40)]


def test_committee_sizes() -> None:
    assert [committee.committee_size(pool) for pool in (3, 9, 10, 11, 1_000_000)] == [3, 9, 10, 10, 10]
    assert [committee.committee_size(20, wanted) for wanted in (3, 19, 20, 21, 31)] == [3, 19, 20, 20, 20]
    with pytest.raises(UsageError, match="the pool has 2"):
        committee.committee_size(2)
    for wanted in (2, 32):
        with pytest.raises(UsageError, match=f"3 to 31 members, {wanted} were asked for"):
            committee.committee_size(40, wanted)


def test_anybody_draws_the_same_committee() -> None:
    seed = committee.committee_seed(b"checkpoint", b"cohort")
    drawn = committee.draw(seed, b"cohort", POOL, 10)
    assert drawn == committee.draw(seed, b"cohort", POOL[::-1], 10)
    assert len(set(drawn)) == 10
    assert drawn[:5] == committee.draw(seed, b"cohort", POOL, 5)
    # A device that was not drawn cannot change who was.
    rest = [device for device in POOL if device not in drawn]
    assert committee.draw(seed, b"cohort", [*drawn, *rest[:3]], 10) == drawn


def test_checkpoint_and_cohort_change_the_draw() -> None:
    seeds = [committee.committee_seed(c, i) for c in (b"a", b"b") for i in (b"a", b"b")]
    assert len({tuple(committee.draw(seed, b"x", POOL, 10)) for seed in seeds}) == 4


def test_draws_are_fair() -> None:
    counts = dict.fromkeys(POOL, 0)
    for number in range(400):
        for device in committee.draw(
            committee.committee_seed(b"c", bytes([number % 256, number // 256])), b"", POOL, 10
        ):
            counts[device] += 1
    # 400 draws of 10 out of 40: each device 100 times, standard deviation sqrt(400 * 1/4 * 3/4) = 8.7.
    assert all(abs(count - 100) < 5 * 8.7 for count in counts.values())


def test_impossible_draws_are_refused() -> None:
    with pytest.raises(UsageError, match="stands twice"):
        committee.draw(b"s", b"c", [*POOL, POOL[0]], 10)
    with pytest.raises(UsageError, match="committee of 41 from a pool of 40"):
        committee.draw(b"s", b"c", POOL, 41)
    with pytest.raises(UsageError, match="committee of 2"):
        committee.draw(b"s", b"c", POOL, 2)


def test_pinned_peers() -> None:
    parameters = CohortParameters.derive(n_max=10, value_bits=8, committee_size=10)
    drawn = POOL[:10]
    assert committee.peers_required(parameters) == 3
    committee.check_peers(parameters, drawn, POOL[7:20])
    with pytest.raises(DeclinedError, match=r"2 of its 10 .* by name, 3 are needed"):
        committee.check_peers(parameters, drawn, POOL[8:20])


COMMITTEE = [Identity.numbered(100 + index) for index in range(10)]
KEYS = {member.device_id: member.public_key for member in COMMITTEE}
PARAMETERS = CohortParameters.derive(n_max=10, value_bits=8, committee_size=10)


def statement(member: Identity, plan_hash: bytes = b"h" * 32, cohort_id: bytes = b"c") -> erasure.ErasureStatement:
    return erasure.sign_erasure(plan_hash=plan_hash, cohort_id=cohort_id, member=member.device_id, sign=member.sign)


def void(statements: list[erasure.ErasureStatement]) -> None:
    erasure.verify_void(
        required=PARAMETERS.erasures_required,
        plan_hash=b"h" * 32,
        cohort_id=b"c",
        committee=KEYS,
        statements=statements,
    )


def test_enough_erasures_lay_a_cohort_to_rest() -> None:
    assert PARAMETERS.erasures_required == 6
    void([statement(member) for member in COMMITTEE[:6]])
    with pytest.raises(VerificationError, match=r"5 members stated .* expected 6"):
        void([statement(member) for member in COMMITTEE[:5]])
    with pytest.raises(VerificationError, match="5 members stated"):
        void([statement(COMMITTEE[i % 5]) for i in range(20)])


def test_false_erasures_are_refused() -> None:
    good = [statement(member) for member in COMMITTEE[:5]]
    liar = COMMITTEE[5]
    for bad, error, message in (
        (statement(liar, plan_hash=bytes(32)), MalformedError, "another cohort"),
        (statement(liar, cohort_id=b"d"), MalformedError, "another cohort"),
        (statement(Identity.numbered(1)), MalformedError, "no member"),
        (replace(statement(COMMITTEE[0]), member=liar.device_id), SignatureInvalidError, "an erasure statement"),
        (replace(statement(liar), signature=bytes(64)), SignatureInvalidError, "low-s"),
    ):
        with pytest.raises(error, match=message):
            void([*good, bad])
    with pytest.raises(MalformedError, match="another device's"):
        erasure.verify_erasure(statement(liar), COMMITTEE[0].public_key)
