"""The state of a training run on disk, enough to continue it bit for bit.

One file, little-endian: SHA-256 of the rest (32 bytes), fingerprint of the run
(32 bytes: model, settings, parent adapter and data), tokens seen (int64), then
parameters, first and second moment (float32) and the losses (float64). A file
that is torn or from another run is ignored and the run starts afresh: a lost
checkpoint costs time, a wrong one would cost truth.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_client.training.adamw import AdamW
from nightshift.host.files import write_atomic

FILE_NAME = "checkpoint"


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """What the next step depends on.

    Attributes:
        parameters: trained side of the adapter, float32 [length].
        mean: AdamW's first moment, float32 [length].
        square: AdamW's second moment, float32 [length].
        losses: loss of every step done, float64 [steps].
        tokens: tokens seen so far, padding not counted.
    """

    parameters: NDArray[np.float32]
    mean: NDArray[np.float32]
    square: NDArray[np.float32]
    losses: NDArray[np.float64]
    tokens: int

    def restore(self, optimiser: AdamW, parameters: NDArray[np.float32]) -> None:
        """Writes this state into an optimiser and a parameter vector of the same length."""
        parameters[:] = self.parameters
        optimiser.mean[:] = self.mean
        optimiser.square[:] = self.square
        optimiser.steps = len(self.losses)


def save(directory: Path, fingerprint: bytes, checkpoint: Checkpoint) -> None:
    """Replaces the checkpoint of a directory, atomically and readable by the owner only.

    Raises:
        ResourceError: the disk is full.
    """
    arrays = (checkpoint.parameters, checkpoint.mean, checkpoint.square)
    parts = [array.astype("<f4").tobytes() for array in arrays]
    tokens = checkpoint.tokens.to_bytes(8, "little")
    body = b"".join([fingerprint, tokens, *parts, checkpoint.losses.astype("<f8").tobytes()])
    write_atomic(directory / FILE_NAME, hashlib.sha256(body).digest() + body)


def load(directory: Path, fingerprint: bytes, length: int) -> Checkpoint | None:
    """Reads the checkpoint of this very run, or None where there is no usable one.

    Args:
        directory: where `save` put it.
        fingerprint: 32 bytes that identify the run.
        length: number of trained parameters.
    """
    try:
        data = (directory / FILE_NAME).read_bytes()
    except OSError:
        return None
    digest, body = data[:32], data[32:]
    head, vectors_end = 32 + 8, 32 + 8 + 3 * 4 * length
    if hashlib.sha256(body).digest() != digest or body[:32] != fingerprint:
        return None
    if len(body) < vectors_end or (len(body) - vectors_end) % 8:
        return None
    vectors = np.frombuffer(body[head:vectors_end], dtype="<f4").astype(np.float32).reshape(3, length)
    return Checkpoint(
        parameters=vectors[0],
        mean=vectors[1],
        square=vectors[2],
        losses=np.frombuffer(body[vectors_end:], dtype="<f8").astype(np.float64),
        tokens=int.from_bytes(body[32:head], "little"),
    )
