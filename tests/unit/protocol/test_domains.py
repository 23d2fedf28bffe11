"""Domain strings: distinct, and framed by length."""

from __future__ import annotations

import hashlib

import pytest

from nightshift.protocol import domains
from nightshift.protocol.domains import Domain, digest, frame, u32, u64


def test_all_values_are_distinct() -> None:
    # An Enum folds equal values into one member, so count the names as written.
    assert list(Domain.__members__) == [domain.name for domain in Domain]
    assert len({domain.value for domain in Domain}) == len(Domain.__members__)


def test_every_value_names_the_project_and_its_protocol_version() -> None:
    for domain in Domain:
        assert domain.value.startswith("nightshift/v1/"), domain
        assert domain.value.isascii()


def test_a_frame_is_length_and_bytes_field_by_field() -> None:
    framed = frame(Domain.ANSWER, b"", b"ab")
    assert framed == b"\x00\x00\x00\x14nightshift/v1/answer" + b"\x00\x00\x00\x00" + b"\x00\x00\x00\x02ab"


def test_a_digest_is_sha_256_over_the_frame() -> None:
    framed = b"\x00\x00\x00\x17nightshift/v1/plan-hash\x00\x00\x00\x01x"
    assert digest(Domain.PLAN_HASH, b"x") == hashlib.sha256(framed).digest()


def test_numbers_are_big_endian() -> None:
    assert u32(0x01020304) == b"\x01\x02\x03\x04"
    assert u64(0x0102030405060708) == b"\x01\x02\x03\x04\x05\x06\x07\x08"


def test_a_field_that_a_u32_cannot_measure_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(domains, "MAX_FIELD_BYTES", 1000)
    frame(Domain.ANSWER, bytes(1000))
    with pytest.raises(ValueError, match="1000 bytes"):
        frame(Domain.ANSWER, bytes(1001))
