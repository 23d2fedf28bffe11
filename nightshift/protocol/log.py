"""The transparency log as both sides see it: entries, checkpoints, and what a proof must show.

The coordinator appends a line for every pool, plan, frozen set, void, release,
enrolment and revocation, and signs checkpoints of the tree (C2SP tlog-checkpoint;
`signed_note` says why no domain string stands before them). A device keeps the last head it saw: `LogView.verify` is
the only way to a view, so whoever holds one knows that the log extends it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from nightshift.protocol.errors import LogInconsistentError
from nightshift.protocol.identity import verify
from nightshift.protocol.merkle import (
    EMPTY_ROOT,
    HASH_BYTES,
    MerkleTree,
    leaf_hash,
    verify_consistency,
    verify_inclusion,
)
from nightshift.protocol.signed_note import render
from nightshift.protocol.trust import Trust
from nightshift.v1 import log_pb2

MAX_ENTRY_BYTES = 4096
MAX_CHECKPOINT_BYTES = 1024
MAX_NOTE_CHARACTERS = 500

__all__ = [
    "LogHead",
    "LogView",
    "MerkleTree",
    "checkpoint_body",
    "checkpoint_note",
    "leaf_hash",
    "make_entry",
    "parse_checkpoint_body",
    "sign_checkpoint",
    "task_subject",
]


@dataclass(frozen=True, slots=True)
class LogHead:
    """What a device remembers of the log: its size and 32-byte root."""

    size: int
    root: bytes


EMPTY_HEAD = LogHead(0, EMPTY_ROOT)


def task_subject(task: str) -> bytes:
    """The subject under which a task's releases are logged: SHA-256 of its name."""
    return hashlib.sha256(task.encode()).digest()


def make_entry(kind: log_pb2.LogEntryKind, *, time_unix_s: int, subject: bytes, digest: bytes, note: str = "") -> bytes:
    """One entry's bytes.

    Args:
        kind: what is recorded.
        time_unix_s: when.
        subject: 32 bytes that say of what.
        digest: 32 bytes that fix the content.
        note: a few plain words, cut at 500 characters.
    """
    if len(subject) != HASH_BYTES or len(digest) != HASH_BYTES:
        raise ValueError("a log entry's subject and digest take 32 bytes each")
    entry = log_pb2.LogEntry(
        kind=kind, time_unix_s=time_unix_s, subject=subject, digest=digest, note=note[:MAX_NOTE_CHARACTERS]
    )
    return entry.SerializeToString(deterministic=True)


def checkpoint_body(origin: str, size: int, root: bytes) -> bytes:
    """The text that is signed: origin, size in decimal, base64 of the root, a line each."""
    return f"{origin}\n{size}\n{base64.b64encode(root).decode('ascii')}\n".encode()


def parse_checkpoint_body(body: bytes, origin: str) -> LogHead:
    """Read a checkpoint's text.

    Raises:
        LogInconsistentError: not a checkpoint, or of another log.
    """
    lines = body[:MAX_CHECKPOINT_BYTES].split(b"\n")
    try:
        if len(body) > MAX_CHECKPOINT_BYTES or len(lines) < 4 or lines[0].decode() != origin:
            raise LogInconsistentError(f"a checkpoint is malformed or of another log; expected origin {origin!r}")
        size_text = lines[1].decode("ascii")
        root = base64.b64decode(lines[2], validate=True)
        size = int(size_text)
    except (ValueError, binascii.Error) as error:
        raise LogInconsistentError("a checkpoint's size or root cannot be read") from error
    if len(root) != HASH_BYTES or size < 0 or size_text != str(size) or size >= 1 << 63:
        raise LogInconsistentError("a checkpoint's size or root is out of range")
    return LogHead(size, root)


def sign_checkpoint(body: bytes, sign: Callable[[bytes], bytes]) -> log_pb2.Checkpoint:
    """Sign a checkpoint's text with the coordinator's signing key."""
    return log_pb2.Checkpoint(body=body, signature=sign(body))


def checkpoint_note(checkpoint: log_pb2.Checkpoint, trust: Trust) -> bytes:
    """A verified checkpoint as other programs read it."""
    return render(checkpoint.body, name=trust.log_origin, public_key=trust.signing_key, signature=checkpoint.signature)


@dataclass(frozen=True, slots=True)
class LogView:
    """A log head whose signature is good and which extends the last head seen."""

    head: LogHead

    @classmethod
    def verify(
        cls,
        checkpoint: log_pb2.Checkpoint,
        *,
        trust: Trust,
        last: LogHead | None,
        consistency_path: Sequence[bytes],
    ) -> LogView:
        """Check a checkpoint against what this device saw before.

        Raises:
            SignatureInvalidError: the signing key did not make it.
            LogInconsistentError: malformed, of another log, shrunk, or forked.
        """
        verify(
            trust.signing_key,
            checkpoint.signature,
            checkpoint.body,
            what="the log checkpoint's signature",
        )
        head = parse_checkpoint_body(checkpoint.body, trust.log_origin)
        seen = last or EMPTY_HEAD
        verify_consistency(seen.size, seen.root, head.size, head.root, list(consistency_path))
        return cls(head)

    def require(
        self, proof: log_pb2.LogProof, *, kind: log_pb2.LogEntryKind, subject: bytes, digest: bytes
    ) -> log_pb2.LogEntry:
        """Check that the log holds one certain statement, and return its entry.

        Raises:
            LogInconsistentError: not in the log, or in it with another meaning.
        """
        name = log_pb2.LogEntryKind.Name(kind).removeprefix("LOG_ENTRY_KIND_").lower()
        if len(proof.entry) > MAX_ENTRY_BYTES:
            raise LogInconsistentError(f"the log entry for the {name} is larger than {MAX_ENTRY_BYTES} bytes")
        try:
            entry = log_pb2.LogEntry.FromString(proof.entry)
        except DecodeError as error:
            raise LogInconsistentError(f"the log entry for the {name} cannot be read") from error
        if entry.kind != kind or entry.subject != subject or entry.digest != digest:
            raise LogInconsistentError(f"the log entry offered for the {name} records something else")
        verify_inclusion(leaf_hash(proof.entry), proof.index, self.head.size, list(proof.path), self.head.root)
        return entry
