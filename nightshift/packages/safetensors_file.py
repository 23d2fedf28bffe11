"""Reading safetensors files as bytes, as if a stranger had written them.

The format is a length, a JSON header and the tensors (docs of `safetensors`, "Format"). The library's numpy
side has no bfloat16, and here the stored bits are wanted, not numbers; so this reads the header itself.
The file is mapped, not loaded.
"""

from __future__ import annotations

import json
import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from nightshift.packages.gguf_types import TensorType
from nightshift.protocol.errors import IncompatibleError, MalformedError

HEADER_BYTES_MAX: Final = 100_000_000  # the library's own limit
_TENSORS_MAX = 1 << 17
_TYPES: Final = {"F32": TensorType.F32, "F16": TensorType.F16, "BF16": TensorType.BF16}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor: its type as GGUF calls it, row-major shape, and where its bytes are in the file."""

    type: TensorType
    shape: tuple[int, ...]
    start: int
    size_bytes: int


class SafetensorsFile:
    """A mapped safetensors file; use as a context manager.

    Attributes:
        path: Where it is.
        tensors: Name -> `StoredTensor`, of the float types; other types are in `foreign`.
        foreign: Name -> type, of tensors that are no floats.
    """

    def __init__(self, path: Path) -> None:
        """Map the file and read its header.

        Raises:
            MalformedError: Truncated, or a header that lies about sizes and places.
        """
        self.path = path
        self.tensors: dict[str, StoredTensor] = {}
        self.foreign: dict[str, str] = {}
        with path.open("rb") as file:
            if path.stat().st_size < 8:
                raise self._malformed("is too short")
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            self._read_header()
        except BaseException:
            self._data.close()
            raise

    def tensor_bytes(self, name: str) -> NDArray[np.uint8]:
        """A view, uint8 [size_bytes], of one tensor's data; no copy is made.

        Raises:
            IncompatibleError: Its type is not F32, F16 or BF16.
            MalformedError: No such tensor.
        """
        if name in self.foreign:
            raise IncompatibleError(f"{self.path}: tensor {name} is {self.foreign[name]}; expected F32, F16 or BF16")
        if name not in self.tensors:
            raise self._malformed(f"has no tensor {name!r}")
        tensor = self.tensors[name]
        return np.frombuffer(self._data, np.uint8, count=tensor.size_bytes, offset=tensor.start)

    def _read_header(self) -> None:
        (size,) = struct.unpack_from("<Q", self._data)
        if size > min(HEADER_BYTES_MAX, len(self._data) - 8):
            raise self._malformed(f"claims a header of {size} bytes in a file of {len(self._data)}")
        try:
            header = json.loads(self._data[8 : 8 + size].decode("utf-8"))
        except (UnicodeDecodeError, ValueError, RecursionError) as error:
            raise self._malformed(f"has a header that is no JSON ({str(error)[:80]})") from None
        if not isinstance(header, dict) or len(header) > _TENSORS_MAX:
            raise self._malformed("has a header that is no list of tensors")
        for name, entry in header.items():
            if name != "__metadata__":
                self._read_entry(name, entry, 8 + size)

    def _read_entry(self, name: str, entry: object, data_start: int) -> None:
        fields = cast("dict[str, Any]", entry) if isinstance(entry, dict) else {}
        kind, shape, offsets = fields.get("dtype"), _sizes(fields.get("shape")), _sizes(fields.get("data_offsets"))
        if not isinstance(kind, str) or shape is None or offsets is None or len(offsets) != 2:
            raise self._malformed(f"describes tensor {name[:80]!r} wrongly")
        if kind not in _TYPES:
            self.foreign[name] = kind[:20]
            return
        start, end = offsets
        size_bytes = math.prod(shape) * _TYPES[kind].block[1]
        if end - start != size_bytes or data_start + end > len(self._data):
            raise self._malformed(
                f"tensor {name[:80]!r} of shape {list(shape)} does not lie where it should: truncated?"
            )
        self.tensors[name] = StoredTensor(_TYPES[kind], shape, data_start + start, size_bytes)

    def _malformed(self, what: str) -> MalformedError:
        return MalformedError(f"{self.path}: {what}. Fetch the file again")

    def __enter__(self) -> SafetensorsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A view that an exception's traceback still holds must not hide that exception.
        try:
            self._data.close()
        except BufferError:
            if kind is None:
                raise


def _sizes(value: object) -> tuple[int, ...] | None:
    """A list of a few whole numbers that are not negative; None for anything else."""
    if not isinstance(value, list) or len(value) > 8:
        return None
    return tuple(value) if all(type(entry) is int and 0 <= entry <= 1 << 48 for entry in value) else None
