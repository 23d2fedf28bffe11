"""weights.bin: every frozen tensor once, at page-aligned offsets, shared by all graphs.

ONNX calls this external data. The offsets are multiples of 4096, so ONNX Runtime maps the file
instead of reading it, and all graphs (and all processes) share the same pages. One stretch of
bytes may appear under several shapes: MatMulNBits wants codes as [out, blocks, bytes],
GatherBlockQuantized as [out, bytes].
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nightshift.packages.quantised import BLOCK, QuantisedMatrix

ALIGNMENT_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class ExternalTensor:
    """A stretch of weights.bin seen as a tensor: the name graphs use, dtype (numpy), shape, place."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class FrozenMatrix:
    """How a matrix W [out, in] lies in weights.bin.

    Attributes:
        shape: (out, in).
        bits: 8 or 4 for codes and scales, 32 for float32.
        transposed: Float only: stored as [in, out], which a product x W^T reads without transposing.
    """

    shape: tuple[int, int]
    bits: int
    transposed: bool = False


class WeightsFile:
    """Writes weights.bin and remembers where everything is; a context manager.

    Attributes:
        path: The file.
        tensors: Name -> `ExternalTensor`; a quantised matrix `m` gives `m.codes` (rank 2),
            `m.blocks` (the same bytes, rank 3) and `m.scales`.
        matrices: Name -> `FrozenMatrix`.
    """

    def __init__(self, path: Path) -> None:
        """Create the file."""
        self.path = path
        self.tensors: dict[str, ExternalTensor] = {}
        self.matrices: dict[str, FrozenMatrix] = {}
        self._file = path.open("wb")

    def add_vector(self, name: str, values: NDArray[np.float32]) -> None:
        """Store a float32 vector (a norm's gain, a bias)."""
        self._store(values, {name: values.shape})

    def add_quantised(self, name: str, matrix: QuantisedMatrix) -> None:
        """Store codes and scales of a matrix."""
        rows, columns = matrix.shape
        blocks = (rows, columns // BLOCK, BLOCK * matrix.bits // 8)
        self._store(matrix.codes, {f"{name}.codes": matrix.codes.shape, f"{name}.blocks": blocks})
        self._store(matrix.scales, {f"{name}.scales": matrix.scales.shape})
        self.matrices[name] = FrozenMatrix(matrix.shape, matrix.bits)

    def add_float(self, name: str, matrix: NDArray[np.float32], *, transposed: bool) -> None:
        """Store a float32 matrix [out, in], as [in, out] if `transposed`."""
        stored = np.ascontiguousarray(matrix.T) if transposed else matrix
        self._store(stored, {name: stored.shape})
        self.matrices[name] = FrozenMatrix((matrix.shape[0], matrix.shape[1]), 32, transposed)

    def _store(self, values: NDArray[np.uint8] | NDArray[np.float32], views: dict[str, tuple[int, ...]]) -> None:
        self._file.write(bytes(-self._file.tell() % ALIGNMENT_BYTES))
        offset = self._file.tell()
        self._file.write(np.ascontiguousarray(values).data)
        for name, shape in views.items():
            self.tensors[name] = ExternalTensor(name, values.dtype.name, shape, offset, values.nbytes)

    def __enter__(self) -> WeightsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
