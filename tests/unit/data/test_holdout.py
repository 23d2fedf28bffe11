from __future__ import annotations

import hashlib

import pytest

from edge_client.data.errors import DataError
from edge_client.data.examples import Passage, question
from edge_client.data.holdout import is_held_out, split

EXAMPLES = [question(f"prompt {index}", "answer") for index in range(4000)]


def test_about_a_tenth_is_held_out_and_nothing_is_lost() -> None:
    kept, held_out = split(EXAMPLES)
    # Binomial(4000, 0.1): five standard deviations are 95.
    assert abs(len(held_out) - 400) < 95
    assert sorted([*kept, *held_out], key=repr) == sorted(EXAMPLES, key=repr)


def test_the_side_does_not_depend_on_order_or_on_other_rows() -> None:
    _, held_out = split(EXAMPLES)
    _, again = split([*reversed(EXAMPLES), question("new", "row")])
    assert set(held_out) <= set(again)
    assert len(set(again) - set(held_out)) <= 1


def test_a_larger_fraction_only_adds() -> None:
    assert set(split(EXAMPLES, 0.1)[1]) < set(split(EXAMPLES, 0.2)[1])


def test_the_rule_is_the_hash_of_the_content() -> None:
    digest = hashlib.sha256(b'"some text"').digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    assert is_held_out(Passage("some text"), share + 1e-9)
    assert not is_held_out(Passage("some text"), share - 1e-9)


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_an_impossible_fraction_is_refused(fraction: float) -> None:
    with pytest.raises(DataError, match="fraction"):
        split(EXAMPLES, fraction)


def test_nothing_can_be_held_out() -> None:
    assert split(EXAMPLES, 0.0) == (EXAMPLES, [])
