from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from edge_client.data.batches import POOL_BATCHES, BatchOrder, by_length, collate
from edge_client.data.errors import DataError
from edge_client.data.tokens import TokenExample


def example(*tokens: int, answers: int) -> TokenExample:
    mask = np.zeros(len(tokens), np.bool_)
    mask[len(tokens) - answers :] = True
    return TokenExample(np.array(tokens), mask)


def of_lengths(*lengths: int) -> list[TokenExample]:
    return [example(*range(length), answers=1) for length in lengths]


def test_labels_are_the_next_tokens_and_weights_mark_answers() -> None:
    batch = collate([example(1, 5, 6, 2, answers=2), example(1, 7, 2, answers=1)])
    assert batch.input_ids.tolist() == [[1, 5, 6], [1, 7, 0]]
    assert batch.labels.tolist() == [[5, 6, 2], [7, 2, 0]]
    assert batch.weights.tolist() == [[0, 1, 1], [0, 1, 0]]
    assert (batch.input_ids.dtype, batch.labels.dtype, batch.weights.dtype) == (np.int64, np.int64, np.float32)
    assert batch.answer_tokens == 3
    with pytest.raises(DataError):
        collate([])


def test_every_epoch_sees_every_example_once() -> None:
    lengths = list(range(2, 66))
    order = BatchOrder(lengths, batch_size=4, seed=3)
    steps = 2 * len(lengths) // 4
    seen = Counter(index for step in range(steps) for index in order.indices(step).tolist())
    assert seen == dict.fromkeys(range(len(lengths)), 2)


def test_the_order_is_a_function_of_seed_and_step() -> None:
    lengths = np.random.default_rng(0).integers(2, 90, 100).tolist()
    forward = [BatchOrder(lengths, 8, seed=5).indices(step).tolist() for step in range(40)]
    order = BatchOrder(lengths, 8, seed=5)
    assert [order.indices(step).tolist() for step in reversed(range(40))] == forward[::-1]
    assert [BatchOrder(lengths, 8, seed=6).indices(step).tolist() for step in range(40)] != forward


def test_batches_of_a_pool_hold_examples_of_similar_length() -> None:
    lengths = np.random.default_rng(0).integers(2, 200, 1000).tolist()
    order = BatchOrder(lengths, 16, seed=1)

    def padded(batches: list[list[int]]) -> int:
        return sum(len(batch) * max(lengths[index] for index in batch) for batch in batches)

    bucketed = [order.indices(step).tolist() for step in range(POOL_BATCHES)]
    members = [index for batch in bucketed for index in batch]
    shuffled = np.random.default_rng(9).permutation(members).reshape(POOL_BATCHES, 16).tolist()
    assert padded(bucketed) < 0.75 * padded(shuffled)


def test_a_data_set_smaller_than_a_batch_gives_smaller_batches() -> None:
    order = BatchOrder([4, 5, 6], batch_size=16, seed=0)
    assert all(len(order.indices(step)) == 3 for step in range(20))
    with pytest.raises(DataError, match="no examples"):
        BatchOrder([], 4, 0)


def test_batches_by_length_cover_everything_within_the_bound() -> None:
    examples = of_lengths(9, 3, 50, 4, 3, 8, 2, 30)
    batches = by_length(examples, 24)
    assert sorted(index for batch in batches for index in batch) == list(range(8))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(examples[index].length for index in batch) <= 24
    assert by_length([], 24) == []
