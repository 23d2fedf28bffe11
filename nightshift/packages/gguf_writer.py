"""Writing GGUF files: a header of ready-made entries, then tensors one at a time.

Only what packages need: entries are copied byte for byte from another file or made by `entry`,
and tensor data is streamed, so a file larger than memory can be written. Same input, same bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from nightshift.packages.gguf_file import DEFAULT_ALIGNMENT, MAGIC, TensorType, ValueType


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """A tensor to be written: row-major shape and type."""

    name: str
    shape: tuple[int, ...]
    type: TensorType

    @property
    def size_bytes(self) -> int:
        """Bytes of its data."""
        return self.type.size_bytes(self.shape)


def _text(value: str) -> bytes:
    encoded = value.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def entry(key: str, value: str | int | float | bool) -> bytes:
    """One metadata pair; whole numbers become UINT32, floats FLOAT32."""
    if isinstance(value, bool):
        return _text(key) + struct.pack("<I?", ValueType.BOOL, value)
    if isinstance(value, int):
        return _text(key) + struct.pack("<II", ValueType.UINT32, value)
    if isinstance(value, float):
        return _text(key) + struct.pack("<If", ValueType.FLOAT32, value)
    return _text(key) + struct.pack("<I", ValueType.STRING) + _text(value)


def array_entry(key: str, element: ValueType, values: Sequence[str] | Sequence[int] | Sequence[float]) -> bytes:
    """One metadata pair whose value is an array of STRING, INT32 or FLOAT32.

    Raises:
        ValueError: Another element type.
    """
    head = _text(key) + struct.pack("<IIQ", ValueType.ARRAY, element, len(values))
    if element is ValueType.STRING:
        return head + b"".join(_text(str(value)) for value in values)
    if element not in (ValueType.INT32, ValueType.FLOAT32):
        raise ValueError(f"arrays of {element.name} are not written; use STRING, INT32 or FLOAT32")
    return head + np.asarray(values, "<i4" if element is ValueType.INT32 else "<f4").tobytes()


class GgufWriter:
    """Writes the header at once, then each planned tensor in order; a context manager."""

    def __init__(self, path: Path, entries: Sequence[bytes], tensors: Sequence[TensorPlan]) -> None:
        """Create `path` and write its header (version 3, alignment 32)."""
        self._remaining = list(reversed(tensors))
        self._file = path.open("wb")
        self._file.write(MAGIC + struct.pack("<IQQ", 3, len(tensors), len(entries)))
        for encoded in entries:
            self._file.write(encoded)
        offset = 0
        for plan in tensors:
            axes = tuple(reversed(plan.shape))
            self._file.write(_text(plan.name) + struct.pack(f"<I{len(axes)}QIQ", len(axes), *axes, plan.type, offset))
            offset += -(-plan.size_bytes // DEFAULT_ALIGNMENT) * DEFAULT_ALIGNMENT
        self._pad()

    def write(self, name: str, data: NDArray[np.uint8]) -> None:
        """Write the data of the next planned tensor; see `write_parts`."""
        self.write_parts(name, [data])

    def write_parts(self, name: str, parts: Iterable[NDArray[np.uint8]]) -> None:
        """Write the data of the next planned tensor, part by part, so that it need not fit in memory.

        Args:
            name: Must be the next name of the plan.
            parts: uint8, any shape, together exactly the planned number of bytes.

        Raises:
            ValueError: Out of order, or the wrong size.
        """
        plan = self._remaining.pop()
        if plan.name != name:
            raise ValueError(f"tensor {name}; planned is {plan.name}")
        size_bytes = 0
        for part in parts:
            size_bytes += part.nbytes
            self._file.write(np.ascontiguousarray(part).data)
        if size_bytes != plan.size_bytes:
            raise ValueError(f"tensor {name} of {size_bytes} bytes; planned are {plan.size_bytes}")
        self._pad()

    def _pad(self) -> None:
        self._file.write(bytes(-self._file.tell() % DEFAULT_ALIGNMENT))

    def __enter__(self) -> GgufWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if kind is None and self._remaining:
            raise ValueError(f"{len(self._remaining)} planned tensors were not written")
