"""Which examples each training step sees, and their arrays.

The order is a function of (lengths, batch size, seed, step) alone: a resumed
run sees exactly what the uninterrupted one would have seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_client.data.errors import DataError
from edge_client.data.tokens import TokenExample

POOL_BATCHES = 8


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Right-padded arrays, each [examples, longest length - 1].

    Attributes:
        input_ids: int64, padded with 0.
        labels: int64, the token that follows each input token.
        weights: float32, 1 where the label is an answer token, else 0.
    """

    input_ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    weights: NDArray[np.float32]

    @property
    def answer_tokens(self) -> float:
        """Number of tokens that the loss counts."""
        return float(self.weights.sum())


def collate(examples: Sequence[TokenExample]) -> Batch:
    """Pads examples on the right to the longest of them.

    Raises:
        DataError: there is no example.
    """
    if not examples:
        raise DataError("a batch needs at least one example")
    shape = (len(examples), max(example.length for example in examples) - 1)
    batch = Batch(np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape, np.float32))
    for row, example in enumerate(examples):
        width = example.length - 1
        batch.input_ids[row, :width] = example.tokens[:-1]
        batch.labels[row, :width] = example.tokens[1:]
        batch.weights[row, :width] = example.answer[1:]
    return batch


class BatchOrder:
    """The endless order of batches: shuffled epochs, cut into batches of similar length.

    `POOL_BATCHES` batches' worth of the shuffled stream are sorted by length,
    cut and shuffled again, which spares most of the padding and keeps
    batches random within a pool.

    Args:
        lengths: number of tokens of every example.
        batch_size: examples a batch; a smaller data set gives smaller batches.
        seed: 64-bit seed.

    Raises:
        DataError: there are no examples.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        if not lengths:
            raise DataError("there are no examples to train on; add data or lower the held-out fraction")
        self._lengths = np.array(lengths)
        self._batch_size = min(batch_size, len(lengths))
        self._seed = seed
        self._pool: tuple[int, list[NDArray[np.int64]]] | None = None

    def indices(self, step: int) -> NDArray[np.int64]:
        """Indices of the examples of a step, longest last, int64 [batch size]."""
        pool, position = divmod(step, POOL_BATCHES)
        if self._pool is None or self._pool[0] != pool:
            self._pool = (pool, self._build_pool(pool))
        return self._pool[1][position]

    def _build_pool(self, pool: int) -> list[NDArray[np.int64]]:
        size = self._batch_size * POOL_BATCHES
        members = self._stream(pool * size, size)
        members = members[np.argsort(self._lengths[members], kind="stable")]
        batches = np.split(members, POOL_BATCHES)
        order = np.random.default_rng([self._seed, pool, 1]).permutation(POOL_BATCHES)
        return [batches[index] for index in order]

    def _stream(self, start: int, size: int) -> NDArray[np.int64]:
        """Entries of the concatenated shuffled epochs from position `start` on."""
        count = len(self._lengths)
        parts: list[NDArray[np.int64]] = []
        while size > 0:
            epoch, offset = divmod(start, count)
            part = np.random.default_rng([self._seed, epoch, 0]).permutation(count)[offset : offset + size]
            parts.append(part)
            start += len(part)
            size -= len(part)
        return np.concatenate(parts)


def by_length(examples: Sequence[TokenExample], max_batch_tokens: int) -> list[list[int]]:
    """Cuts all examples, sorted by length, into batches of at most `max_batch_tokens` padded tokens.

    Returns:
        Lists of indices into `examples`; a single example may exceed the bound.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(examples)), key=lambda index: examples[index].length):
        length = examples[index].length
        if not batches or (len(batches[-1]) + 1) * length > max_batch_tokens:
            batches.append([])
        batches[-1].append(index)
    return batches
