"""The state of a training run on disk, enough to continue it bit for bit.

One file: 32 bytes SHA-256 of the rest, 32 bytes fingerprint of the run (model,
settings, parent adapter and data), then NumPy's .npz of plain arrays. A file
that is torn, from another run or of another version is ignored and the run
starts afresh: a lost checkpoint costs time, a wrong one would cost truth.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
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
    buffer = io.BytesIO()
    np.savez(
        buffer,
        parameters=checkpoint.parameters,
        mean=checkpoint.mean,
        square=checkpoint.square,
        losses=checkpoint.losses,
        tokens=np.array(checkpoint.tokens, dtype=np.int64),
    )
    body = fingerprint + buffer.getvalue()
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
    if hashlib.sha256(body).digest() != digest or body[:32] != fingerprint:
        return None
    try:
        with np.load(io.BytesIO(body[32:]), allow_pickle=False) as arrays:
            checkpoint = Checkpoint(
                parameters=arrays["parameters"],
                mean=arrays["mean"],
                square=arrays["square"],
                losses=arrays["losses"],
                tokens=int(arrays["tokens"]),
            )
    except (KeyError, ValueError, zipfile.BadZipFile):
        return None
    vectors = (checkpoint.parameters, checkpoint.mean, checkpoint.square)
    fits = all(vector.shape == (length,) and vector.dtype == np.float32 for vector in vectors)
    return checkpoint if fits and checkpoint.losses.ndim == 1 else None


def remove(directory: Path) -> None:
    """Removes the checkpoint of a directory, if there is one."""
    (directory / FILE_NAME).unlink(missing_ok=True)
