"""The Merkle tree against published vectors, and against RFC 6962 written out naively."""

from __future__ import annotations

import hashlib

import pytest

from nightshift.protocol.errors import LogInconsistentError
from nightshift.protocol.merkle import (
    EMPTY_ROOT,
    MAX_PATH,
    MerkleTree,
    leaf_hash,
    verify_consistency,
    verify_inclusion,
)

# The test data of the certificate-transparency project (transparency-dev/merkle, testonly/constants.go).
LEAVES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
INCLUSION = {
    (0, 1): [],
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    (1, 5): [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
CONSISTENCY = {
    (1, 1): [],
    (1, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
    (6, 7): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
}


def decoded(path: list[str]) -> list[bytes]:
    return [bytes.fromhex(step) for step in path]


@pytest.fixture
def published() -> MerkleTree:
    tree = MerkleTree()
    for leaf in LEAVES:
        tree.append(leaf)
    return tree


@pytest.mark.parametrize("size", range(9))
def test_the_published_roots(published: MerkleTree, size: int) -> None:
    assert published.root(size).hex() == ROOTS[size]
    fresh = MerkleTree(leaf_hash(leaf) for leaf in LEAVES[:size])
    assert (fresh.size, fresh.root().hex()) == (size, ROOTS[size])


@pytest.mark.parametrize(("index", "size"), INCLUSION)
def test_the_published_inclusion_proofs(published: MerkleTree, index: int, size: int) -> None:
    path = decoded(INCLUSION[index, size])
    assert published.inclusion_path(index, size) == path
    verify_inclusion(leaf_hash(LEAVES[index]), index, size, path, bytes.fromhex(ROOTS[size]))


@pytest.mark.parametrize(("old", "new"), CONSISTENCY)
def test_the_published_consistency_proofs(published: MerkleTree, old: int, new: int) -> None:
    path = decoded(CONSISTENCY[old, new])
    assert published.consistency_path(old, new) == path
    verify_consistency(old, bytes.fromhex(ROOTS[old]), new, bytes.fromhex(ROOTS[new]), path)


# RFC 6962, sections 2.1 to 2.1.2, as written there: D[a:b] are Python slices, k the
# largest power of two smaller than n.


def naive_root(entries: list[bytes]) -> bytes:
    if not entries:
        return hashlib.sha256().digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    k = split(len(entries))
    return hashlib.sha256(b"\x01" + naive_root(entries[:k]) + naive_root(entries[k:])).digest()


def naive_path(m: int, entries: list[bytes]) -> list[bytes]:
    if len(entries) == 1:
        return []
    k = split(len(entries))
    if m < k:
        return [*naive_path(m, entries[:k]), naive_root(entries[k:])]
    return [*naive_path(m - k, entries[k:]), naive_root(entries[:k])]


def naive_subproof(m: int, entries: list[bytes], *, complete: bool) -> list[bytes]:
    if m == len(entries):
        return [] if complete else [naive_root(entries)]
    k = split(len(entries))
    if m <= k:
        return [*naive_subproof(m, entries[:k], complete=complete), naive_root(entries[k:])]
    return [*naive_subproof(m - k, entries[k:], complete=False), naive_root(entries[:k])]


def split(n: int) -> int:
    k = 1
    while 2 * k < n:
        k *= 2
    return k


ENTRIES = [b"entry %d" % number for number in range(70)]
NAIVE_ROOTS = [naive_root(ENTRIES[:size]) for size in range(71)]


@pytest.fixture(scope="module")
def tree() -> MerkleTree:
    return MerkleTree(leaf_hash(entry) for entry in ENTRIES)


def test_the_naive_reading_gives_the_published_roots() -> None:
    assert [naive_root(LEAVES[:size]).hex() for size in range(9)] == ROOTS


def test_roots_of_all_sizes_up_to_70(tree: MerkleTree) -> None:
    assert [tree.root(size) for size in range(71)] == NAIVE_ROOTS


def test_inclusion_of_every_entry_in_every_size_up_to_70(tree: MerkleTree) -> None:
    for size in range(1, 71):
        for index in range(size):
            path = tree.inclusion_path(index, size)
            if size in (1, 2, 3, 5, 8, 13, 31, 32, 33, 64, 70):
                assert path == naive_path(index, ENTRIES[:size])
            verify_inclusion(leaf_hash(ENTRIES[index]), index, size, path, NAIVE_ROOTS[size])


def test_consistency_of_every_pair_of_sizes_up_to_70(tree: MerkleTree) -> None:
    for new in range(71):
        for old in range(new + 1):
            path = tree.consistency_path(old, new)
            if old and new in (1, 2, 3, 5, 8, 13, 31, 32, 33, 64, 70):
                assert path == naive_subproof(old, ENTRIES[:new], complete=True)
            verify_consistency(old, NAIVE_ROOTS[old], new, NAIVE_ROOTS[new], path)


def test_a_tree_forgets_nothing_as_it_grows() -> None:
    grown = MerkleTree()
    for size, entry in enumerate(ENTRIES):
        assert grown.append(entry) == size
        assert grown.root() == NAIVE_ROOTS[size + 1]
        assert grown.root(size // 2) == NAIVE_ROOTS[size // 2]


def test_a_leaf_cannot_pass_for_a_node() -> None:
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    two = MerkleTree([left, right])
    assert MerkleTree([leaf_hash(left + right)]).root() != two.root()
    assert MerkleTree([leaf_hash(b"\x01" + left + right)]).root() != two.root()


def test_an_unknown_size_or_index_is_refused(tree: MerkleTree) -> None:
    for attempt in (
        lambda: tree.root(71),
        lambda: tree.root(-1),
        lambda: tree.inclusion_path(70),
        lambda: tree.inclusion_path(-1),
        lambda: tree.inclusion_path(5, 5),
        lambda: tree.inclusion_path(0, 71),
        lambda: tree.consistency_path(8, 7),
        lambda: tree.consistency_path(-1, 7),
        lambda: tree.consistency_path(7, 71),
    ):
        with pytest.raises(LogInconsistentError):
            attempt()


def test_a_log_that_shrank_is_refused(tree: MerkleTree) -> None:
    with pytest.raises(LogInconsistentError, match="shrank from 9 to 8"):
        verify_consistency(9, tree.root(9), 8, tree.root(8), [])


def test_a_log_that_changed_its_past_is_refused(tree: MerkleTree) -> None:
    """The fork is honest from entry 5 on, so only the proof can give it away."""
    fork = MerkleTree(leaf_hash(b"rewritten" if number == 4 else entry) for number, entry in enumerate(ENTRIES))
    for old in range(5, 70):
        with pytest.raises(LogInconsistentError, match="forked"):
            verify_consistency(old, tree.root(old), 70, fork.root(), fork.consistency_path(old))
    for old in range(1, 5):
        verify_consistency(old, tree.root(old), 70, fork.root(), fork.consistency_path(old))


def test_equal_sizes_with_different_roots_are_a_fork() -> None:
    one, two = leaf_hash(b"one"), leaf_hash(b"two")
    verify_consistency(1, one, 1, one, [])
    for path in ([], [one], [two]):
        with pytest.raises(LogInconsistentError):
            verify_consistency(1, one, 1, two, path)
    with pytest.raises(LogInconsistentError):
        verify_consistency(1, one, 1, one, [one])


def test_an_empty_past_must_have_the_root_of_nothing(tree: MerkleTree) -> None:
    verify_consistency(0, EMPTY_ROOT, 70, tree.root(), [])
    with pytest.raises(LogInconsistentError):
        verify_consistency(0, tree.root(1), 70, tree.root(), [])
    with pytest.raises(LogInconsistentError):
        verify_consistency(0, EMPTY_ROOT, 70, tree.root(), [tree.root()])
    with pytest.raises(LogInconsistentError):
        verify_consistency(0, EMPTY_ROOT, 0, tree.root(1), [])


def test_a_proof_of_hashes_of_another_length_is_refused(tree: MerkleTree) -> None:
    path = tree.inclusion_path(3)
    for step in (path[0][:31], path[0] + b"\0", b""):
        with pytest.raises(LogInconsistentError, match="malformed"):
            verify_inclusion(leaf_hash(ENTRIES[3]), 3, 70, [step, *path[1:]], tree.root())
        with pytest.raises(LogInconsistentError, match="malformed"):
            verify_consistency(3, tree.root(3), 70, tree.root(), [step, *tree.consistency_path(3)[1:]])


def test_an_endless_proof_is_refused_before_it_is_hashed(tree: MerkleTree) -> None:
    endless = [bytes(32)] * (MAX_PATH + 1)
    with pytest.raises(LogInconsistentError, match="malformed"):
        verify_inclusion(leaf_hash(ENTRIES[3]), 3, 70, endless, tree.root())
    with pytest.raises(LogInconsistentError, match="malformed"):
        verify_consistency(3, tree.root(3), 70, tree.root(), endless)
