"""Checkpoints and entries: what a device refuses to take for the log it knows."""

from __future__ import annotations

import base64
import hashlib

import pytest

from nightshift.protocol.domains import Domain, frame
from nightshift.protocol.errors import LogInconsistentError, SignatureInvalidError
from nightshift.protocol.identity import sign
from nightshift.protocol.log import (
    MAX_CHECKPOINT_BYTES,
    MAX_ENTRY_BYTES,
    MAX_NOTE_CHARACTERS,
    LogHead,
    LogView,
    checkpoint_body,
    leaf_hash,
    make_entry,
    parse_checkpoint_body,
    sign_checkpoint,
    task_subject,
)
from nightshift.protocol.trust import Trust
from nightshift.v1 import log_pb2
from tests.support.authority import NOW_UNIX_S, new_key
from tests.support.plans import ORIGIN, World

POOL = log_pb2.LOG_ENTRY_KIND_POOL
PLAN = log_pb2.LOG_ENTRY_KIND_PLAN
SUBJECT, DIGEST = bytes(range(32)), bytes(range(32, 64))


@pytest.fixture
def world() -> World:
    """A world with a log of three enrolments and four pools."""
    world = World.make(devices=3)
    for number in range(4):
        world.append(POOL, subject=bytes([number]) * 32, digest=DIGEST)
    return world


def look(world: World, body: bytes, *, trust: Trust | None = None, last: LogHead | None = None) -> LogView:
    checkpoint = sign_checkpoint(body, world.authority.sign)
    path = world.tree.consistency_path(last.size) if last else []
    return LogView.verify(checkpoint, trust=trust or world.trust, last=last, consistency_path=path)


def body_of(world: World) -> bytes:
    return checkpoint_body(ORIGIN, world.tree.size, world.tree.root())


def test_the_text_of_a_checkpoint_is_the_c2sp_form() -> None:
    root = bytes(range(32))
    expected = "example.com/log\n17\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"
    assert checkpoint_body("example.com/log", 17, root) == expected.encode()
    assert parse_checkpoint_body(expected.encode(), "example.com/log") == LogHead(17, root)


def test_a_first_look_and_a_later_one(world: World) -> None:
    first = world.view()
    assert first.head == LogHead(7, world.tree.root())
    world.append(POOL, subject=SUBJECT, digest=DIGEST)
    assert world.view(last=first.head).head == LogHead(8, world.tree.root())
    assert world.view(last=world.head).head == world.head


def test_a_checkpoint_signed_by_another_key_is_refused(world: World) -> None:
    stranger = new_key()
    checkpoint = sign_checkpoint(body_of(world), lambda message: sign(stranger, message))
    with pytest.raises(SignatureInvalidError, match="checkpoint"):
        LogView.verify(checkpoint, trust=world.trust, last=None, consistency_path=[])


def test_a_signature_of_another_domain_is_refused(world: World) -> None:
    body = body_of(world)
    checkpoint = log_pb2.Checkpoint(body=body, signature=world.authority.sign(frame(Domain.PLAN_SIGNATURE, body)))
    with pytest.raises(SignatureInvalidError):
        LogView.verify(checkpoint, trust=world.trust, last=None, consistency_path=[])


def test_every_altered_byte_of_a_checkpoint_is_refused(world: World) -> None:
    good = world.checkpoint()
    for place in range(len(good.body)):
        body = bytearray(good.body)
        body[place] ^= 1
        bad = log_pb2.Checkpoint(body=bytes(body), signature=good.signature)
        with pytest.raises(SignatureInvalidError):
            LogView.verify(bad, trust=world.trust, last=None, consistency_path=[])


def test_another_origin_is_refused(world: World) -> None:
    look(world, body_of(world))
    for origin in ("other.example/log", ORIGIN + " ", ORIGIN.upper(), ""):
        with pytest.raises(LogInconsistentError, match="origin"):
            look(world, checkpoint_body(origin, world.tree.size, world.tree.root()))


ROOT_TEXT = base64.b64encode(bytes(32))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(ORIGIN.encode(), id="origin only"),
        pytest.param(b"%s\n7\n" % ORIGIN.encode(), id="no root"),
        pytest.param(b"%s\n7\n%s" % (ORIGIN.encode(), ROOT_TEXT), id="no last newline"),
        pytest.param(b"%s\n07\n%s\n" % (ORIGIN.encode(), ROOT_TEXT), id="leading zero"),
        pytest.param(b"%s\n+7\n%s\n" % (ORIGIN.encode(), ROOT_TEXT), id="sign"),
        pytest.param(b"%s\n-7\n%s\n" % (ORIGIN.encode(), ROOT_TEXT), id="negative"),
        pytest.param(b"%s\n 7\n%s\n" % (ORIGIN.encode(), ROOT_TEXT), id="space"),
        pytest.param(b"%s\n1_0\n%s\n" % (ORIGIN.encode(), ROOT_TEXT), id="underscore"),
        pytest.param(b"%s\n0x7\n%s\n" % (ORIGIN.encode(), ROOT_TEXT), id="hexadecimal"),
        pytest.param(b"%s\n\xd9\xa7\n%s\n" % (ORIGIN.encode(), ROOT_TEXT), id="Arabic digit"),
        pytest.param(b"%s\n%d\n%s\n" % (ORIGIN.encode(), 1 << 63, ROOT_TEXT), id="size beyond 63 bits"),
        pytest.param(b"%s\n%s\n%s\n" % (ORIGIN.encode(), b"9" * 900, ROOT_TEXT), id="size of 900 digits"),
        pytest.param(b"%s\n7\n%s\n" % (ORIGIN.encode(), ROOT_TEXT[:-4]), id="short root"),
        pytest.param(b"%s\n7\n%s\n" % (ORIGIN.encode(), ROOT_TEXT[:-1]), id="bad padding"),
        pytest.param(b"%s\n7\n*%s\n" % (ORIGIN.encode(), ROOT_TEXT), id="not base64"),
        pytest.param(b"%s\n7\n%s\n" % (ORIGIN.encode(), base64.b64encode(bytes(33))), id="long root"),
        pytest.param(b"\xff\n7\n%s\n" % ROOT_TEXT, id="origin not UTF-8"),
        pytest.param(b"%s\n7\n%s\n%s" % (ORIGIN.encode(), ROOT_TEXT, bytes(MAX_CHECKPOINT_BYTES)), id="oversize"),
    ],
)
def test_a_signed_text_that_is_no_checkpoint_is_refused(world: World, body: bytes) -> None:
    with pytest.raises(LogInconsistentError):
        look(world, body)


def test_a_size_below_zero_is_out_of_range() -> None:
    with pytest.raises(LogInconsistentError, match="out of range"):
        parse_checkpoint_body(b"o\n-7\n%s\n" % ROOT_TEXT, "o")


def test_a_log_that_shrinks_is_refused(world: World) -> None:
    seen = world.head
    shorter = checkpoint_body(ORIGIN, seen.size - 1, world.tree.root(seen.size - 1))
    look(world, shorter)
    with pytest.raises(LogInconsistentError, match="shrank from 7 to 6"):
        look(world, shorter, last=seen)


def test_a_log_that_forks_is_refused(world: World) -> None:
    before, other = world.head, World(world.authority, world.devices, entries=[])
    for entry in world.entries[:-1]:
        other.entries.append(entry)
        other.tree.append(entry)
    other.append(POOL, subject=SUBJECT, digest=DIGEST)
    other.append(POOL, subject=SUBJECT, digest=DIGEST)
    other.view()
    with pytest.raises(LogInconsistentError, match="forked"):
        other.view(last=before)
    # Growing honestly afterwards heals nothing.
    for _ in range(20):
        other.append(POOL, subject=SUBJECT, digest=DIGEST)
        with pytest.raises(LogInconsistentError, match="forked"):
            other.view(last=before)


def test_a_missing_or_foreign_consistency_proof_is_refused(world: World) -> None:
    seen = world.head
    for _ in range(5):
        world.append(POOL, subject=SUBJECT, digest=DIGEST)
    good = world.tree.consistency_path(seen.size)
    for path in ([], good[:-1], good[1:], [*good, bytes(32)], world.tree.consistency_path(seen.size - 1)):
        with pytest.raises(LogInconsistentError):
            LogView.verify(world.checkpoint(), trust=world.trust, last=seen, consistency_path=path)


def test_an_entry_is_found_under_what_it_records(world: World) -> None:
    index = world.append(POOL, subject=SUBJECT, digest=DIGEST, note="ten devices", time_unix_s=NOW_UNIX_S + 5)
    entry = world.view().require(world.proof(index), kind=POOL, subject=SUBJECT, digest=DIGEST)
    assert (entry.kind, entry.time_unix_s, entry.note) == (POOL, NOW_UNIX_S + 5, "ten devices")


@pytest.mark.parametrize(
    ("kind", "subject", "digest"),
    [
        pytest.param(PLAN, SUBJECT, DIGEST, id="other kind"),
        pytest.param(POOL, DIGEST, DIGEST, id="other subject"),
        pytest.param(POOL, SUBJECT, SUBJECT, id="other digest"),
        pytest.param(POOL, SUBJECT[:31], DIGEST, id="part of the subject"),
    ],
)
def test_an_entry_that_records_something_else_is_refused(
    world: World, kind: log_pb2.LogEntryKind, subject: bytes, digest: bytes
) -> None:
    index = world.append(POOL, subject=SUBJECT, digest=DIGEST)
    with pytest.raises(LogInconsistentError, match="records something else"):
        world.view().require(world.proof(index), kind=kind, subject=subject, digest=digest)


def test_an_entry_that_is_not_in_the_log_is_refused(world: World) -> None:
    index = world.append(POOL, subject=SUBJECT, digest=DIGEST)
    proof = world.proof(index)
    forged = make_entry(POOL, time_unix_s=NOW_UNIX_S + 1, subject=SUBJECT, digest=DIGEST)
    proof.entry = forged
    with pytest.raises(LogInconsistentError, match="is not in the log"):
        world.view().require(proof, kind=POOL, subject=SUBJECT, digest=DIGEST)


def test_an_entry_logged_after_the_checkpoint_is_refused(world: World) -> None:
    view = world.view()
    index = world.append(POOL, subject=SUBJECT, digest=DIGEST)
    with pytest.raises(LogInconsistentError):
        view.require(world.proof(index), kind=POOL, subject=SUBJECT, digest=DIGEST)


def test_a_proof_at_another_index_is_refused(world: World) -> None:
    index = world.append(POOL, subject=SUBJECT, digest=DIGEST)
    for other in (0, index - 1, index + 1, 2**64 - 1):
        proof = world.proof(index)
        proof.index = other
        with pytest.raises(LogInconsistentError):
            world.view().require(proof, kind=POOL, subject=SUBJECT, digest=DIGEST)


def test_an_oversized_entry_is_refused_before_it_is_read(world: World) -> None:
    big = log_pb2.LogEntry(kind=POOL, time_unix_s=1, subject=SUBJECT, digest=DIGEST, note="x" * MAX_ENTRY_BYTES)
    world.entries.append(big.SerializeToString())
    index = world.tree.append(world.entries[-1])
    with pytest.raises(LogInconsistentError, match="larger than"):
        world.view().require(world.proof(index), kind=POOL, subject=SUBJECT, digest=DIGEST)


def test_an_unreadable_entry_is_refused(world: World) -> None:
    world.entries.append(b"\xff\xff\xff")
    index = world.tree.append(world.entries[-1])
    with pytest.raises(LogInconsistentError, match="cannot be read"):
        world.view().require(world.proof(index), kind=POOL, subject=SUBJECT, digest=DIGEST)


def test_an_entry_has_fixed_widths_and_a_bounded_note() -> None:
    entry = make_entry(POOL, time_unix_s=1, subject=SUBJECT, digest=DIGEST, note="n" * 10_000)
    assert log_pb2.LogEntry.FromString(entry).note == "n" * MAX_NOTE_CHARACTERS
    assert (
        len(make_entry(POOL, time_unix_s=2**62, subject=SUBJECT, digest=DIGEST, note="🌙" * 10_000)) < MAX_ENTRY_BYTES
    )
    for subject, digest in ((SUBJECT[:31], DIGEST), (SUBJECT, DIGEST + b"\0"), (b"", DIGEST)):
        with pytest.raises(ValueError, match="32 bytes"):
            make_entry(POOL, time_unix_s=1, subject=subject, digest=digest)


def test_a_task_is_logged_under_the_hash_of_its_name() -> None:
    assert task_subject("notes") == hashlib.sha256(b"notes").digest()
    assert leaf_hash(b"x") == hashlib.sha256(b"\0x").digest()
