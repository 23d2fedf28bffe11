"""The published vectors: reproduced where that is possible, opened and verified where it is not."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from make_secagg_cohort import DEVICES, METRICS, PATH, SEED, cohort, layout, small_parts
from secagg_cohort import Cohort, Upload, total

from nightshift.protocol.domains import Domain
from nightshift.protocol.secagg.contribution import Contribution
from nightshift.protocol.secagg.member import Answer, verify_answer


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    return json.loads(PATH.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def made() -> tuple[Cohort, list[Upload]]:
    remade = cohort()
    return remade, [remade.upload(number) for number in DEVICES]


def published_uploads(published: dict[str, Any], uploads: list[Upload]) -> list[Upload]:
    """The published bytes in the reproduced identities."""
    return [
        Upload(
            plan_hash=upload.plan_hash,
            sender=upload.sender,
            values=np.frombuffer(base64.b64decode(entry["values"]), dtype=np.uint8).astype(np.uint64),
            contribution=Contribution(
                ciphertext=base64.b64decode(entry["ciphertext"]),
                sealed=tuple(base64.b64decode(sealed) for sealed in entry["sealed"]),
                signature=bytes.fromhex(entry["signature_hex"]),
            ),
        )
        for entry, upload in zip(published["contributors"], uploads, strict=True)
    ]


def test_parameters_domains_and_small_parts(published: dict[str, Any], made: tuple[Cohort, list[Upload]]) -> None:
    remade, _ = made
    assert published["seed"] == SEED
    assert published["domains"].items() <= {domain.name: domain.value for domain in Domain}.items()
    for name, value in published["parameters"].items():
        assert value == (remade.length if name == "length" else getattr(remade.parameters, name)), name
    assert layout().length == remade.length == 4_000 + 4 * (1 + len(METRICS))
    assert published["plan_hash_hex"] == remade.plan_hash.hex()
    parts = small_parts(remade.plan_hash)
    rotated = "rotated_0_to_10"
    assert {k: v for k, v in published["small_parts"].items() if k != rotated} == {
        k: v for k, v in parts.items() if k != rotated
    }
    np.testing.assert_allclose(published["small_parts"][rotated], parts[rotated], rtol=1e-12)


def test_keys_and_ciphertexts_are_reproduced(published: dict[str, Any], made: tuple[Cohort, list[Upload]]) -> None:
    remade, uploads = made
    for entry, member in zip(published["members"], remade.members, strict=True):
        assert entry["identity_private_scalar"] == str(member.identity.key.private_numbers().private_value)
        assert entry["device_id_hex"] == member.identity.device_id.hex()
        assert entry["prekey_private_hex"] == member.prekey_private.hex()
        assert entry["prekey_public_hex"] == member.prekey.public.hex()
        assert entry["prekey_signature_hex"] == member.prekey.signature.hex()
    for entry, upload in zip(published["contributors"], uploads, strict=True):
        assert entry["device_id_hex"] == upload.sender.device_id.hex()
        assert base64.b64decode(entry["values"]) == bytes(upload.values.astype(np.uint8))
        assert base64.b64decode(entry["ciphertext"]) == upload.contribution.ciphertext
        assert entry["ciphertext_tag_hex"] == upload.entry.ciphertext_tag.hex()


def test_published_shares_lead_to_the_published_answers_and_sum(
    published: dict[str, Any], made: tuple[Cohort, list[Upload]]
) -> None:
    remade, uploads = made
    theirs = published_uploads(published, uploads)
    for upload in theirs:
        remade.verify(upload.sender, upload.contribution)
    assert published["set_hash_hex"] == remade.set_hash(theirs).hex()
    answers = []
    for entry in published["answers"]:
        answer = Answer(entry["index"], base64.b64decode(entry["vector"]), bytes.fromhex(entry["signature_hex"]))
        # Signatures are deterministic, so a member gives the very same answer.
        assert remade.answer(entry["index"], theirs) == answer
        verify_answer(
            parameters=remade.parameters,
            plan_hash=remade.plan_hash,
            set_hash=remade.set_hash(theirs),
            answer=answer,
            public_key=remade.members[entry["index"] - 1].identity.public_key,
        )
        answers.append(answer)
    opened = remade.open(theirs, answers)
    assert published["opened"] == opened.values.tolist() == total(uploads).tolist()
