"""No altered proof passes, whatever the alteration."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nightshift.protocol.errors import LogInconsistentError
from nightshift.protocol.merkle import MerkleTree, RunningTree, leaf_hash, verify_consistency, verify_inclusion

TREE = MerkleTree(leaf_hash(b"entry %d" % number) for number in range(300))

hashes = st.one_of(st.binary(min_size=32, max_size=32), st.integers(0, 299).map(TREE.root))


@st.composite
def altered(draw: st.DrawFn, path: list[bytes]) -> list[bytes]:
    """A path with one step flipped, dropped, doubled, replaced, moved or added."""
    path = list(path)
    kinds = ["add"] + (["flip", "drop", "double", "replace", "swap"] if path else [])
    kind = draw(st.sampled_from(kinds))
    if kind == "add":
        path.insert(draw(st.integers(0, len(path))), draw(hashes))
        return path
    place = draw(st.integers(0, len(path) - 1))
    if kind == "flip":
        bit = draw(st.integers(0, 255))
        step = bytearray(path[place])
        step[bit // 8] ^= 1 << bit % 8
        path[place] = bytes(step)
    elif kind == "drop":
        del path[place]
    elif kind == "double":
        path.insert(place, path[place])
    elif kind == "replace":
        path[place] = draw(hashes)
    else:
        other = draw(st.integers(0, len(path) - 1))
        path[place], path[other] = path[other], path[place]
    return path


@given(st.data())
def test_an_altered_inclusion_proof_is_refused(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 300))
    index = data.draw(st.integers(0, size - 1))
    leaf, path, root = leaf_hash(b"entry %d" % index), TREE.inclusion_path(index, size), TREE.root(size)
    verify_inclusion(leaf, index, size, path, root)
    wrong = data.draw(altered(path))
    assume(wrong != path)
    with pytest.raises(LogInconsistentError):
        verify_inclusion(leaf, index, size, wrong, root)


@given(st.data())
def test_an_inclusion_proof_holds_for_its_index_and_entry_only(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 300))
    index = data.draw(st.integers(0, size - 1))
    other = data.draw(st.integers(0, size + 3).filter(lambda number: number != index))
    path, root = TREE.inclusion_path(index, size), TREE.root(size)
    with pytest.raises(LogInconsistentError):
        verify_inclusion(leaf_hash(b"entry %d" % index), other, size, path, root)
    with pytest.raises(LogInconsistentError):
        verify_inclusion(leaf_hash(b"entry %d" % other), index, size, path, root)


@given(st.data())
def test_an_altered_consistency_proof_is_refused(data: st.DataObject) -> None:
    new = data.draw(st.integers(1, 300))
    old = data.draw(st.integers(1, new))
    path = TREE.consistency_path(old, new)
    verify_consistency(old, TREE.root(old), new, TREE.root(new), path)
    wrong = data.draw(altered(path))
    assume(wrong != path)
    with pytest.raises(LogInconsistentError):
        verify_consistency(old, TREE.root(old), new, TREE.root(new), wrong)


@given(st.data())
def test_a_consistency_proof_holds_for_its_roots_only(data: st.DataObject) -> None:
    new = data.draw(st.integers(2, 300))
    old = data.draw(st.integers(1, new - 1))
    path = TREE.consistency_path(old, new)
    wrong = data.draw(hashes)
    if wrong != TREE.root(old):
        with pytest.raises(LogInconsistentError):
            verify_consistency(old, wrong, new, TREE.root(new), path)
    if wrong != TREE.root(new):
        with pytest.raises(LogInconsistentError):
            verify_consistency(old, TREE.root(old), new, wrong, path)


@given(
    st.integers(-1, 2**64),
    st.integers(-1, 2**64),
    st.lists(st.binary(max_size=33), max_size=70),
    st.binary(max_size=33),
    st.binary(max_size=33),
)
def test_garbage_is_refused_and_never_crashes(
    first: int, second: int, path: list[bytes], old_root: bytes, new_root: bytes
) -> None:
    with pytest.raises(LogInconsistentError):
        verify_inclusion(leaf_hash(b"x"), first, second, path, new_root)
    # Only the two trivial statements need no proof: from nothing, or to the same log.
    assume(not (first == second and old_root == new_root))
    assume(first != 0)
    with pytest.raises(LogInconsistentError):
        verify_consistency(first, old_root, second, new_root, path)


@given(st.integers(0, 300))
def test_a_running_tree_has_the_root_of_the_tree_it_runs_over(size: int) -> None:
    running = RunningTree()
    for number in range(size):
        running.append(b"entry %d" % number)
    assert (running.size, running.root()) == (size, TREE.root(size))
