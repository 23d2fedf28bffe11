"""The Merkle tree of RFC 6962, section 2.1, with its proofs.

Leaves and inner nodes are hashed under different prefixes, so that no entry
can pass for a node. `MerkleTree` keeps every complete subtree's root by level,
so that appending costs O(1) amortised and a root or proof O(log² n); `RunningTree`
keeps only what the next root needs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from nightshift.protocol.errors import LogInconsistentError

HASH_BYTES = 32
MAX_PATH = 64
EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(entry: bytes) -> bytes:
    """MTH of one entry: SHA-256(0x00 ‖ entry)."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """An inner node: SHA-256(0x01 ‖ left ‖ right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class MerkleTree:
    """An append-only tree of leaf hashes, in memory."""

    def __init__(self, leaf_hashes: Iterable[bytes] = ()) -> None:
        self._levels: list[list[bytes]] = [[]]
        for leaf in leaf_hashes:
            self.append_hash(leaf)

    @property
    def size(self) -> int:
        """Number of entries."""
        return len(self._levels[0])

    def append(self, entry: bytes) -> int:
        """Append an entry; returns its index."""
        return self.append_hash(leaf_hash(entry))

    def append_hash(self, leaf: bytes) -> int:
        """Append an entry by its leaf hash (32 bytes); returns its index."""
        self._levels[0].append(leaf)
        level = 0
        while len(self._levels[level]) % 2 == 0:
            if level + 1 == len(self._levels):
                self._levels.append([])
            left, right = self._levels[level][-2:]
            self._levels[level + 1].append(node_hash(left, right))
            level += 1
        return self.size - 1

    def root(self, size: int | None = None) -> bytes:
        """The root of the first `size` entries (all by default): 32 bytes."""
        return self._subtree(0, self._checked(size))

    def inclusion_path(self, index: int, size: int | None = None) -> list[bytes]:
        """PATH(index, D[size]) of RFC 6962, 2.1.1: from the leaf's sibling upwards.

        Raises:
            LogInconsistentError: no such entry in a tree of that size.
        """
        size = self._checked(size)
        if not 0 <= index < size:
            raise LogInconsistentError(f"the log of size {size} has no entry {index}")
        return self._path(index, 0, size)

    def consistency_path(self, old: int, new: int | None = None) -> list[bytes]:
        """PROOF(old, D[new]) of RFC 6962, 2.1.2; empty if old is 0 or equals new.

        Raises:
            LogInconsistentError: the log is smaller than either size.
        """
        new = self._checked(new)
        if not 0 <= old <= new:
            raise LogInconsistentError(f"a log of size {new} cannot extend one of size {old}")
        return [] if old in (0, new) else self._proof(old, 0, new, whole=True)

    def _checked(self, size: int | None) -> int:
        size = self.size if size is None else size
        if not 0 <= size <= self.size:
            raise LogInconsistentError(f"the log has {self.size} entries, {size} were asked for")
        return size

    def _subtree(self, start: int, end: int) -> bytes:
        width = end - start
        if width == 0:
            return EMPTY_ROOT
        if width & (width - 1) == 0:
            level = width.bit_length() - 1
            return self._levels[level][start >> level]
        split = start + _largest_power_below(width)
        return node_hash(self._subtree(start, split), self._subtree(split, end))

    def _path(self, index: int, start: int, end: int) -> list[bytes]:
        if end - start == 1:
            return []
        split = start + _largest_power_below(end - start)
        if index < split:
            return [*self._path(index, start, split), self._subtree(split, end)]
        return [*self._path(index, split, end), self._subtree(start, split)]

    def _proof(self, old: int, start: int, end: int, *, whole: bool) -> list[bytes]:
        if old == end:
            return [] if whole else [self._subtree(start, end)]
        split = start + _largest_power_below(end - start)
        if old <= split:
            return [*self._proof(old, start, split, whole=whole), self._subtree(split, end)]
        return [*self._proof(old, split, end, whole=False), self._subtree(start, split)]


class RunningTree:
    """The same tree for one pass over its entries: only its size and root, in O(log n) memory."""

    def __init__(self) -> None:
        self.size = 0
        self._complete: list[tuple[int, bytes]] = []  # height and root of each complete subtree, the highest first

    def append(self, entry: bytes) -> None:
        """Append an entry."""
        height, node = 0, leaf_hash(entry)
        while self._complete and self._complete[-1][0] == height:
            height, node = height + 1, node_hash(self._complete.pop()[1], node)
        self._complete.append((height, node))
        self.size += 1

    def root(self) -> bytes:
        """The root of the entries so far: 32 bytes."""
        if not self._complete:
            return EMPTY_ROOT
        root = self._complete[-1][1]
        for _, left in reversed(self._complete[:-1]):
            root = node_hash(left, root)
        return root


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Check an inclusion proof (RFC 9162, section 2.1.3.2).

    Args:
        leaf: the entry's leaf hash.
        index: where the entry stands.
        size: entries under the root.
        path: hashes from the leaf's sibling upwards.
        root: the root of the checkpoint.

    Raises:
        LogInconsistentError: the entry is not there.
    """
    if not 0 <= index < size or len(path) > MAX_PATH or any(len(step) != HASH_BYTES for step in path):
        raise LogInconsistentError(f"a proof for entry {index} of {size} is malformed")
    position, last, node = index, size - 1, leaf
    for step in path:
        if last == 0:
            raise LogInconsistentError("an inclusion proof is longer than the tree is high")
        if position & 1 or position == last:
            node = node_hash(step, node)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            node = node_hash(node, step)
        position, last = position >> 1, last >> 1
    if last != 0 or node != root:
        raise LogInconsistentError(f"entry {index} is not in the log of size {size}")


def verify_consistency(old_size: int, old_root: bytes, new_size: int, new_root: bytes, path: Sequence[bytes]) -> None:
    """Check that one tree extends another (RFC 9162, section 2.1.4.2).

    Raises:
        LogInconsistentError: the log shrank, or what it said before has changed.
    """
    if old_size > new_size:
        raise LogInconsistentError(f"the log shrank from {old_size} to {new_size} entries")
    if len(path) > MAX_PATH or any(len(step) != HASH_BYTES for step in path):
        raise LogInconsistentError("a consistency proof is malformed")
    forked = LogInconsistentError(f"the log of size {new_size} does not extend the one of size {old_size}: it forked")
    if old_size in (0, new_size):
        if path or (old_size == new_size and old_root != new_root) or (old_size == 0 and old_root != EMPTY_ROOT):
            raise forked
        return
    steps = list(path)
    if old_size & (old_size - 1) == 0:
        steps.insert(0, old_root)
    if not steps:
        raise forked
    position, last = old_size - 1, new_size - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    first = second = steps[0]
    for step in steps[1:]:
        if last == 0:
            raise forked
        if position & 1 or position == last:
            first, second = node_hash(step, first), node_hash(step, second)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            second = node_hash(second, step)
        position, last = position >> 1, last >> 1
    if last != 0 or first != old_root or second != new_root:
        raise forked


def _largest_power_below(width: int) -> int:
    return int(1 << ((width - 1).bit_length() - 1))
