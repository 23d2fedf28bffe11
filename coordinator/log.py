"""The transparency log's keeper: appends entries, signs checkpoints, proves.

The rows are the log; the Merkle tree over them is only a cache of this
process and is brought up to date from the rows at each use, so that several
processes can append to one log. An entry is appended inside the transaction
of the change that it records: both are there, or neither.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from coordinator.storage.rows import LogEntryRow
from nightshift.protocol.errors import LogInconsistentError
from nightshift.protocol.log import MerkleTree, checkpoint_body, leaf_hash, make_entry, sign_checkpoint
from nightshift.protocol.merkle import RunningTree
from nightshift.v1 import log_pb2

_PENDING = "nightshift_log_pending"
ROWS_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class LogSnapshot:
    """The log at one size, as one transaction sees it."""

    origin: str
    tree: MerkleTree
    size: int
    sign: Callable[[bytes], bytes]

    @property
    def root(self) -> bytes:
        """32 bytes."""
        return self.tree.root(self.size)

    def checkpoint(self) -> log_pb2.Checkpoint:
        """Size and root, signed."""
        return sign_checkpoint(checkpoint_body(self.origin, self.size, self.root), self.sign)

    def consistency_path(self, old_size: int) -> list[bytes]:
        """Proof that this log extends the one of `old_size`; empty where there is nothing to prove.

        A device that claims a larger log than this gets no proof: it will see
        for itself that the checkpoint is older than what it knows.
        """
        return self.tree.consistency_path(old_size, self.size) if old_size <= self.size else []

    def proof(self, session: Session, position: int) -> log_pb2.LogProof:
        """That the entry at a position is in this log."""
        row = session.get_one(LogEntryRow, position)
        path = self.tree.inclusion_path(position, self.size)
        return log_pb2.LogProof(entry=row.entry, index=position, path=path)


class TransparencyLog:
    """Appends to the log and reads it.

    Args:
        origin: first line of every checkpoint.
        sign: the signing key's signature over bytes.
    """

    def __init__(self, origin: str, sign: Callable[[bytes], bytes]) -> None:
        self.origin = origin
        self._sign = sign
        self._tree = MerkleTree()
        self._lock = threading.Lock()

    def append(
        self,
        session: Session,
        kind: log_pb2.LogEntryKind,
        *,
        time_unix_s: int,
        subject: bytes,
        digest: bytes,
        note: str = "",
    ) -> int:
        """Append one entry in the session's transaction; returns its position."""
        entry = make_entry(kind, time_unix_s=time_unix_s, subject=subject, digest=digest, note=note)
        row = LogEntryRow(position=_size(session), entry=entry, leaf_hash=leaf_hash(entry))
        session.add(row)
        session.flush()
        session.info.setdefault(_PENDING, []).append(row.leaf_hash)
        return row.position

    def snapshot(self, session: Session) -> LogSnapshot:
        """The log as this session sees it, with what it has itself appended."""
        size = _size(session)
        pending: list[bytes] = session.info.get(_PENDING, [])
        committed = size - len(pending)
        with self._lock:
            if self._tree.size < committed:
                rows = select(LogEntryRow.leaf_hash).where(
                    LogEntryRow.position >= self._tree.size, LogEntryRow.position < committed
                )
                for leaf in session.scalars(rows.order_by(LogEntryRow.position)):
                    self._tree.append_hash(leaf)
            tree = self._tree
        if pending:
            # What is not committed may still be rolled back: it stays out of the shared tree.
            tree = copy.deepcopy(tree)
            for leaf in pending:
                tree.append_hash(leaf)
        return LogSnapshot(self.origin, tree, size, self._sign)


# Built once: at each check-in, making a statement took as long as running it.
_LAST = select(func.max(LogEntryRow.position))


def _size(session: Session) -> int:
    last = session.scalar(_LAST)
    return 0 if last is None else last + 1


def entries(session: Session, first: int, end: int) -> list[bytes]:
    """The entries from one position up to another, which is not among them."""
    rows = select(LogEntryRow.entry).where(LogEntryRow.position >= first, LogEntryRow.position < end)
    return list(session.scalars(rows.order_by(LogEntryRow.position)))


def checked_entries(session: Session) -> Iterator[bytes]:
    """Every entry in its order, hashed again.

    Raises:
        LogInconsistentError: an entry is missing or was altered.
    """
    rows = select(LogEntryRow).order_by(LogEntryRow.position).execution_options(yield_per=ROWS_AT_ONCE)
    for position, row in enumerate(session.scalars(rows)):
        if row.position != position or leaf_hash(row.entry) != row.leaf_hash:
            raise LogInconsistentError(
                f"log entry {position} is missing or altered; restore the database from a backup"
            )
        yield row.entry


def verify_rows(session: Session) -> tuple[int, bytes]:
    """Hash every entry again; `coordinator.log_audit` also compares them with what they are about.

    Returns:
        The log's size and its 32-byte root.

    Raises:
        LogInconsistentError: an entry is missing or was altered.
    """
    tree = RunningTree()
    for entry in checked_entries(session):
        tree.append(entry)
    return tree.size, tree.root()
