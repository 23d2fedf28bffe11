"""Writes secagg-cohort.json: one small cohort, whole, for a second implementation to check itself against.

    python tests/vectors/make_secagg_cohort.py

Everything but HPKE's ephemeral keys comes from one seeded source, so that all but the sealed
shares is reproduced by `tests/unit/secagg/test_vectors.py`; the sealed shares are opened there.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import numpy as np
from secagg_cohort import Cohort, seeded

from nightshift.protocol.domains import Domain
from nightshift.protocol.secagg.committee import committee_seed, draw
from nightshift.protocol.secagg.encoding import Encoding, VectorLayout
from nightshift.protocol.secagg.parameters import CohortParameters
from nightshift.protocol.secagg.public_matrix import PublicMatrix
from nightshift.protocol.secagg.rotation import rotate, rotation_seed

SEED = 2026
DEVICES = (0, 1, 2)
METRICS = {"loss": 2.5, "tokens": 1200.0}
PATH = Path(__file__).with_name("secagg-cohort.json")
READ_ME = [
    "Bytes are base64 unless the name ends in _hex. Integers are decimal.",
    "randomness: n bytes are the next n of the ChaCha20 keystream under key = seed as 32 bytes little endian, nonce 0.",
    "Drawn in this order: 32 bytes plan hash; per member 32 bytes prekey (private); per contributor, in order: "
    "32 KiB for the key s (u64 little endian, low 42 bits), 32 bytes as ChaCha20 key for the noise e "
    "(8 bytes a coefficient, likewise), then u16 field elements by rejection.",
    "One rejection draw for m missing elements takes m + m div 2048 + 16 u16 values and keeps the first m below p.",
    "Identity keys are P-256 with the private scalar given. Signatures are deterministic (RFC 6979), low s.",
    "sealed[i - 1], for member i, cannot be reproduced (HPKE draws its own ephemeral key): open it with i's prekey.",
]


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def layout() -> VectorLayout:
    return VectorLayout(4_000, tuple(METRICS), Encoding(clip=0.02, value_bits=8, n_max=5))


def cohort() -> Cohort:
    parameters = CohortParameters.derive(n_max=5, value_bits=8, committee_size=3)
    return Cohort(parameters, length=layout().length, seed=SEED)


def small_parts(plan_hash: bytes) -> dict[str, object]:
    pool = [hashlib.sha256(bytes([number])).digest() for number in range(12)]
    seed = committee_seed(b"checkpoint", b"cohort")
    delta = np.linspace(-0.03, 0.03, 11, dtype=np.float32)
    encoding = Encoding(clip=0.02, value_bits=8, n_max=5)
    return {
        "public_matrix_first": [int(x) for x in PublicMatrix(plan_hash).take(1)[0, :4]],
        "public_matrix_second_polynomial": [int(x) for x in PublicMatrix(plan_hash, first=1).take(1)[0, :4]],
        "committee_pool_hex": [device.hex() for device in pool],
        "committee_seed_hex": seed.hex(),
        "committee_drawn_hex": [device.hex() for device in draw(seed, b"cohort", pool, 5)],
        "encoded_linspace_11_clip_0.02_b_8_seed_1": [int(x) for x in encoding.encode(delta, seeded(1))],
        "rotated_0_to_10": [float(x) for x in rotate(np.arange(11, dtype=np.float64), rotation_seed(plan_hash))],
    }


def document() -> dict[str, object]:
    made = cohort()
    p = made.parameters
    members = [
        {
            "index": index,
            "identity_private_scalar": str(member.identity.key.private_numbers().private_value),
            "device_id_hex": member.identity.device_id.hex(),
            "prekey_private_hex": member.prekey_private.hex(),
            "prekey_public_hex": member.prekey.public.hex(),
            "prekey_signature_hex": member.prekey.signature.hex(),
        }
        for index, member in enumerate(made.members, start=1)
    ]
    uploads = [made.upload(number) for number in DEVICES]
    contributors = [
        {
            "identity_private_scalar": str(upload.sender.key.private_numbers().private_value),
            "device_id_hex": upload.sender.device_id.hex(),
            "values": b64(bytes(int(value) for value in upload.values)),
            "ciphertext": b64(upload.contribution.ciphertext),
            "ciphertext_tag_hex": upload.entry.ciphertext_tag.hex(),
            "sealed": [b64(sealed) for sealed in upload.contribution.sealed],
            "signature_hex": upload.contribution.signature.hex(),
        }
        for upload in uploads
    ]
    answers = [made.answer(index, uploads) for index in range(1, p.committee_size + 1)]
    opened = made.open(uploads, answers)
    return {
        "read_me": READ_ME,
        "domains": {domain.name: domain.value for domain in Domain},
        "seed": SEED,
        "parameters": {
            "n_max": p.n_max,
            "value_bits": p.value_bits,
            "committee_size": p.committee_size,
            "slot_bits": p.slot_bits,
            "noise_bits": p.noise_bits,
            "values_per_coefficient": p.values_per_coefficient,
            "modulus_bits": p.modulus_bits,
            "field_prime": p.field_prime,
            "threshold": p.threshold,
            "length": made.length,
        },
        "plan_hash_hex": made.plan_hash.hex(),
        "small_parts": small_parts(made.plan_hash),
        "members": members,
        "contributors": contributors,
        "set_hash_hex": made.set_hash(uploads).hex(),
        "answers": [
            {"index": answer.index, "vector": b64(answer.vector), "signature_hex": answer.signature.hex()}
            for answer in answers
        ],
        "opened": [int(value) for value in opened.values],
    }


if __name__ == "__main__":
    PATH.write_text(json.dumps(document(), indent=1) + "\n", encoding="utf-8")
