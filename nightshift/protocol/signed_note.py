"""Checkpoints as other programs read them: signed notes of the C2SP (signed-note, tlog-checkpoint).

A note is text, an empty line, and a line for each signature::

    — NAME BASE64(key id ‖ signature)

The signature covers the text with its last newline and nothing else. Ours are of type 0x02, ECDSA on P-256
over SHA-256 in DER, as Sigstore's Rekor and the Pixel log make them; the key id is the first four bytes of
the SHA-256 of the SubjectPublicKeyInfo. A witness is configured with the log's verifier key (`verifier_key`).

No domain string stands before the text, since other programs must agree on it. It cannot be taken for a message
of this protocol, each of which begins with the length of its domain string: a zero byte, which no origin begins with.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from nightshift.protocol.errors import MalformedError, SignatureInvalidError, UsageError
from nightshift.protocol.identity import SIGNATURE_BYTES, spki

ECDSA_TYPE = 0x02
KEY_ID_BYTES = 4
MAX_NOTE_BYTES = 16_384
MAX_SIGNATURES = 32
_DASH = "\N{EM DASH} "


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One line under a note; nothing is proved of it yet."""

    name: str
    key_id: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class SignedNote:
    """Text, with its last newline, and the signatures under it."""

    text: bytes
    signatures: tuple[NoteSignature, ...]


def key_id(public_key: ec.EllipticCurvePublicKey) -> bytes:
    """Four bytes by which a signature's line names its key."""
    return hashlib.sha256(spki(public_key)).digest()[:KEY_ID_BYTES]


def verifier_key(name: str, public_key: ec.EllipticCurvePublicKey) -> str:
    """What a witness is told of a log: NAME+KEY ID+BASE64(type ‖ key)."""
    material = base64.b64encode(bytes([ECDSA_TYPE]) + spki(public_key)).decode("ascii")
    return f"{_checked_name(name)}+{key_id(public_key).hex()}+{material}"


def render(text: bytes, *, name: str, public_key: ec.EllipticCurvePublicKey, signature: bytes) -> bytes:
    """A note with one signature.

    Args:
        text: what was signed; ends with a newline.
        name: of the key; for a checkpoint the log's origin.
        public_key: P-256.
        signature: 64 bytes r ‖ s over the text.

    Raises:
        UsageError: a name, text or signature that no note can hold.
    """
    if not text.endswith(b"\n") or b"\n\n" in text:
        raise UsageError("a note's text ends with a newline and has no empty line")
    if len(signature) != SIGNATURE_BYTES:
        raise UsageError(f"a signature has {SIGNATURE_BYTES} bytes, got {len(signature)}")
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    line = base64.b64encode(key_id(public_key) + encode_dss_signature(r, s)).decode("ascii")
    return text + f"\n{_DASH}{_checked_name(name)} {line}\n".encode()


def parse(note: bytes) -> SignedNote:
    """Read a note, without believing it.

    Raises:
        MalformedError: not a signed note; says what is missing.
    """
    if len(note) > MAX_NOTE_BYTES:
        raise MalformedError(f"a signed note may have {MAX_NOTE_BYTES} bytes, got {len(note)}")
    text, gap, lines = note.rpartition(b"\n\n")
    if not gap:
        raise MalformedError("this is no signed note: there is no empty line before the signatures")
    try:
        shown = lines.decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise MalformedError("this is no signed note: its signatures are not UTF-8 text") from error
    if len(shown) > MAX_SIGNATURES:
        raise MalformedError(f"a signed note may have {MAX_SIGNATURES} signatures, got {len(shown)}")
    return SignedNote(text + b"\n", tuple(_signature(line) for line in shown))


def verify(note: SignedNote, *, name: str, public_key: ec.EllipticCurvePublicKey) -> None:
    """Check that a key signed a note; signatures by other keys are passed over, as the format wants it.

    Raises:
        SignatureInvalidError: the key's line is missing, or its signature is of another text.
    """
    wanted = key_id(public_key)
    mine = [each for each in note.signatures if each.name == name and each.key_id == wanted]
    if not mine:
        raise SignatureInvalidError(f"the note carries no signature by {name}, key {wanted.hex()}")
    try:
        public_key.verify(mine[0].signature, note.text, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise SignatureInvalidError(f"the note's signature by {name} is not of this text") from error


def _signature(line: str) -> NoteSignature:
    name, space, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not space:
        raise MalformedError("a line under a signed note is no signature; expected an em dash, a name and base64")
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedError("a signature under a signed note is not base64") from error
    if len(data) <= KEY_ID_BYTES:
        raise MalformedError("a signature under a signed note is too short to name its key")
    return NoteSignature(name, data[:KEY_ID_BYTES], data[KEY_ID_BYTES:])


def _checked_name(name: str) -> str:
    if not name or "+" in name or not name.isprintable() or any(character.isspace() for character in name):
        raise UsageError(f"a key's name has no spaces and no plus sign, got {name!r}")
    return name
