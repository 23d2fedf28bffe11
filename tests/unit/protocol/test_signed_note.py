"""Checkpoints as other programs read them: two logs' published notes, and ours in the same form."""

from __future__ import annotations

import base64
import hashlib

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from nightshift.protocol.domains import Domain, frame
from nightshift.protocol.errors import MalformedError, SignatureInvalidError, UsageError
from nightshift.protocol.identity import load_public_key, spki
from nightshift.protocol.log import checkpoint_note
from nightshift.protocol.signed_note import SignedNote, key_id, parse, render, verifier_key, verify
from tests.support.plans import ORIGIN, World

# Published checkpoints with the verifier keys of their logs (Sigstore's Rekor and the Pixel 6 log), from
# the test data of transparency-dev/formats, note/note_verifier_test.go.
PUBLISHED = [
    pytest.param(
        "rekor.sigstore.dev+c0d23d6a+AjBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABNhtmPtrWm3U1eQXBogSMdGvXwBcK5AW5i0hrZLOC96l"
        "+smGNM7nwZ4QvFK/4sueRoVj//QP22Ni4Qt9DPfkWLc=",
        "Rekor\n798034\nf+7CoKgXKE/tNys9TTXcr/ad6U/K3xvznmzew9y6SP0=\n\n— rekor.sigstore.dev wNI9ajBEAiARInWIWyCdyG27"
        "CO6LPnPekyw20qO0YJfoaPaowGp/XgIgc+qEHS3+GKVClgqq20uDLet7MCoTURUCRdxwWBHHufk=\n",
        id="rekor",
    ),
    pytest.param(
        "pixel6_transparency_log+91c16e30+AjBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABN+4x0Jk1yTwvLFI9A4NDdGZcX0aiWVdWM5XJVy0"
        "M4VWD3AvyW5Q6Hs9A0mcDkpUoYgn+KKPNzFC0H3nN3q6JQ8=",
        "DEFAULT\n10\nbsWRucJU5xJPHb5eBdOm6+DM+VelCZBuvtI3sHERJ9Y=\n\n— pixel6_transparency_log kcFuMDBFAiEAhqMAP8P6qf6"
        "QxtUJhzMhbN+MbZ9dwfUHzGQJmffJHtoCIGD0cNe47dHWBoPwYdgBCepB06/+g5O1FmYjXl06owL4\n",
        id="pixel 6",
    ),
]


def key_of(verifier: str) -> tuple[str, ec.EllipticCurvePublicKey]:
    """Name and key of a verifier key, read by hand."""
    name, _, material = verifier.split("+", 2)
    return name, load_public_key(base64.b64decode(material)[1:])


@pytest.mark.parametrize(("verifier", "text"), PUBLISHED)
def test_the_published_notes(verifier: str, text: str) -> None:
    name, key = key_of(verifier)
    assert verifier_key(name, key) == verifier
    note = parse(text.encode())
    verify(note, name=name, public_key=key)
    altered = SignedNote(note.text.replace(b"\n", b"1\n", 2), note.signatures)
    with pytest.raises(SignatureInvalidError, match="not of this text"):
        verify(altered, name=name, public_key=key)


@pytest.mark.parametrize(("verifier", "text"), PUBLISHED)
def test_the_published_notes_by_another_name_or_key(verifier: str, text: str) -> None:
    name, key = key_of(verifier)
    note = parse(text.encode())
    with pytest.raises(SignatureInvalidError, match="carries no signature by other"):
        verify(note, name="other", public_key=key)
    with pytest.raises(SignatureInvalidError, match="carries no signature by"):
        verify(note, name=name, public_key=ec.generate_private_key(ec.SECP256R1()).public_key())


def test_our_checkpoints_are_notes_that_a_program_of_another_hand_verifies() -> None:
    """Written from the format's text: split at the empty line, the first four bytes name the key, the rest is DER."""
    world = World.make(devices=3)
    note = checkpoint_note(world.checkpoint(), world.trust)
    text, signatures = note.decode().split("\n\n")
    assert text.splitlines() == [ORIGIN, "3", base64.b64encode(world.tree.root()).decode()]
    dash, name, encoded = signatures.removesuffix("\n").split(" ")
    data = base64.b64decode(encoded)
    key = world.authority.signing_key.public_key()
    assert (dash, name, data[:4]) == ("—", ORIGIN, hashlib.sha256(spki(key)).digest()[:4])
    key.verify(data[4:], f"{text}\n".encode(), ec.ECDSA(hashes.SHA256()))
    with pytest.raises(InvalidSignature):
        key.verify(data[4:], text.encode(), ec.ECDSA(hashes.SHA256()))


def test_a_note_with_witnesses_under_it_is_read_past_them() -> None:
    world = World.make(devices=3)
    key = world.authority.signing_key.public_key()
    note = checkpoint_note(world.checkpoint(), world.trust)
    witness = base64.b64encode(b"wit1" + bytes(72)).decode()
    both = parse(note + f"— witness.example {witness}\n".encode())
    assert [each.name for each in both.signatures] == [ORIGIN, "witness.example"]
    verify(both, name=ORIGIN, public_key=key)


def test_no_message_of_this_protocol_passes_for_a_checkpoint() -> None:
    """The text is signed without a domain string. Every other signed message begins with a zero byte."""
    assert {frame(domain, b"field")[:1] for domain in Domain} == {b"\0"}
    assert ORIGIN.isprintable()


@pytest.mark.parametrize(
    ("note", "message"),
    [
        (b"", "no empty line"),
        (b"origin\n1\nroot\n", "no empty line"),
        (b"text\n\n", "no signature; expected"),
        (b"text\n\n- name AAAAAAAA\n", "no signature; expected"),
        ("text\n\n— name\n".encode(), "no signature; expected"),
        ("text\n\n— name !!!!\n".encode(), "not base64"),
        ("text\n\n— name AAAA\n".encode(), "too short"),
        (b"text\n\n\xff\n", "not UTF-8"),
        (b"text\n\n" + "— name AAAAAAAA\n".encode() * 33, "32 signatures, got 33"),
        (b"x" * 20_000, "may have 16384 bytes"),
    ],
)
def test_what_is_no_note_is_refused(note: bytes, message: str) -> None:
    with pytest.raises(MalformedError, match=message):
        parse(note)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\tb", "bell\x07"])
def test_a_name_that_no_line_can_hold(name: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    with pytest.raises(UsageError, match="no spaces and no plus sign"):
        verifier_key(name, key)
    with pytest.raises(UsageError, match="no spaces and no plus sign"):
        render(b"text\n", name=name, public_key=key, signature=bytes(64))


@pytest.mark.parametrize("text", [b"", b"text", b"text\n\nmore\n"])
def test_a_text_that_no_note_can_hold(text: bytes) -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    with pytest.raises(UsageError, match="ends with a newline"):
        render(text, name="name", public_key=key, signature=bytes(64))
    assert len(key_id(key)) == 4
