"""The list of devices that no longer count."""

from __future__ import annotations

import os

import pytest

from nightshift.protocol.domains import Domain, frame, u64
from nightshift.protocol.errors import MalformedError, SignatureInvalidError, VerificationError
from nightshift.protocol.identity import DeviceId, sign
from nightshift.protocol.revocation import sign_revocation, verify_revocation
from nightshift.v1 import device_pb2
from tests.support.authority import new_key
from tests.support.plans import World

WORLD = World.make(devices=3)
IDS = sorted(DeviceId(os.urandom(32)) for _ in range(4))


def signed_as_it_is(number: int, ids: list[bytes]) -> device_pb2.RevocationList:
    """A list that the coordinator signed without putting it into order."""
    message = frame(Domain.REVOCATION_LIST, u64(number), *ids)
    return device_pb2.RevocationList(number=number, device_ids=ids, signature=WORLD.authority.sign(message))


def test_an_honest_list_in_any_order_of_its_maker() -> None:
    message = WORLD.revocation(4, IDS[::-1])
    assert list(message.device_ids) == IDS
    assert verify_revocation(message, trust=WORLD.trust) == frozenset(IDS)
    assert verify_revocation(message, trust=WORLD.trust, last_number=4) == frozenset(IDS)
    assert verify_revocation(WORLD.revocation(0, []), trust=WORLD.trust) == frozenset()
    assert verify_revocation(signed_as_it_is(4, list(IDS)), trust=WORLD.trust) == frozenset(IDS)


def test_an_older_list_than_one_seen_is_refused() -> None:
    with pytest.raises(VerificationError, match="list 4 is older than list 5"):
        verify_revocation(WORLD.revocation(4, IDS), trust=WORLD.trust, last_number=5)


@pytest.mark.parametrize(
    "ids",
    [
        pytest.param(IDS[::-1], id="unsorted"),
        pytest.param([IDS[0], IDS[0], IDS[1]], id="a device twice"),
        pytest.param([IDS[0], IDS[1][:31]], id="a short id"),
        pytest.param([IDS[0] + IDS[1]], id="two ids in one"),
        pytest.param([b""], id="an empty id"),
    ],
)
def test_ids_that_are_malformed_are_refused_though_signed(ids: list[bytes]) -> None:
    with pytest.raises(MalformedError):
        verify_revocation(signed_as_it_is(4, ids), trust=WORLD.trust)


def test_a_list_of_another_signer_or_content_is_refused() -> None:
    stranger = new_key()
    foreign = sign_revocation(4, IDS, lambda message: sign(stranger, message))
    shorter = WORLD.revocation(4, IDS)
    del shorter.device_ids[1]
    renumbered = WORLD.revocation(4, IDS)
    renumbered.number = 5
    unsigned = WORLD.revocation(4, IDS)
    unsigned.signature = b""
    for message in (foreign, shorter, renumbered, unsigned, device_pb2.RevocationList()):
        with pytest.raises(SignatureInvalidError):
            verify_revocation(message, trust=WORLD.trust)
