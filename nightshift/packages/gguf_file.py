"""Reading GGUF files: headers only, lazily, and as if a stranger had written them.

GGUF is llama.cpp's container: magic, version, counts, key-value pairs, tensor descriptions, then
the aligned tensor data (ggml's docs/gguf.md). The file is mapped, not loaded; arrays such as a
vocabulary of 150,000 texts are decoded when asked for. Every count, length and offset is checked
against the bytes that are really there before anything is allocated for it.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nightshift.packages.gguf_types import FORMATS, TensorType, ValueType, block_of, type_name
from nightshift.protocol.errors import IncompatibleError, MalformedError

__all__ = ["DEFAULT_ALIGNMENT", "MAGIC", "GgufFile", "TensorInfo", "TensorType", "Value", "ValueType"]

MAGIC: Final = b"GGUF"
DEFAULT_ALIGNMENT: Final = 32

_VERSIONS = (2, 3)  # version 1 had 32-bit counts and is gone from the field
_KEYS_MAX = 1 << 16
_TENSORS_MAX = 1 << 17
_KEY_BYTES_MAX = 65_535  # docs/gguf.md
_TENSOR_NAME_BYTES_MAX = 255
_DIMENSIONS_MAX = 4
_ELEMENTS_MAX = 1 << 42
_ALIGNMENT_MAX = 1 << 20
_ARRAY_MAX = 1 << 21  # entries; the largest vocabularies have a quarter of a million
_TEXT_BYTES_MAX = 1 << 24
_LIST_TEXT_BYTES_MAX = 1 << 16


Scalar = int | float | bool | str
Value = Scalar | list[Scalar]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of the file: `shape` is row-major (GGUF itself lists the fastest axis first).

    `type` is None for a ggml type outside `TensorType` (K-quants, for instance); `size_bytes` is 0
    where not even the size of its blocks is known.
    """

    name: str
    shape: tuple[int, ...]
    type: TensorType | None
    type_code: int
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class _Entry:
    start: int
    type: ValueType
    element: ValueType | None
    count: int
    value_start: int
    end: int


class GgufFile:
    """A mapped GGUF file; use as a context manager, or call `close`.

    Attributes:
        path: Where it is.
        version: 2 or 3.
        alignment: Bytes that tensor data is aligned to.
        tensors: Name -> `TensorInfo`, in file order.
    """

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        """Parse the header of `data`; use `GgufFile.open`."""
        self.path = path
        self._data = data
        self._entries: dict[str, _Entry] = {}
        if len(data) < 24:
            raise self._malformed(f"only {len(data)} bytes, a GGUF header has 24")
        if data[:4] != MAGIC:
            raise self._malformed(f"starts with {bytes(data[:4])!r}, not {MAGIC!r}: this is not a GGUF file")
        self.version, tensor_count, key_count = struct.unpack_from("<IQQ", data, 4)
        if self.version not in _VERSIONS:
            raise IncompatibleError(
                f"{path}: GGUF version {self.version}; versions {_VERSIONS} are read. Convert it again"
            )
        if tensor_count > _TENSORS_MAX or key_count > _KEYS_MAX:
            raise self._malformed(f"claims {tensor_count} tensors and {key_count} keys")
        position = 24
        for _ in range(key_count):
            position = self._read_entry(position)
        self.alignment = self._read_alignment()
        self.tensors: dict[str, TensorInfo] = {}
        pending = []
        for _ in range(tensor_count):
            info, position = self._read_tensor_info(position)
            pending.append(info)
        self._data_start = -(-position // self.alignment) * self.alignment
        for info in pending:
            self._admit(info)

    @classmethod
    def open(cls, path: Path) -> GgufFile:
        """Map a file and read its header.

        Raises:
            MalformedError: Wrong magic, truncated, or a count, length or offset that cannot be.
            IncompatibleError: A GGUF version that this build does not read.
            OSError: The file cannot be opened.
        """
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                raise MalformedError(f"{path}: empty file; expected a GGUF file")
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            return cls(path, data)
        except BaseException:
            data.close()
            raise

    def close(self) -> None:
        """Unmap; arrays from `tensor_bytes` must be gone by then."""
        self._data.close()

    def __enter__(self) -> GgufFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A tensor view that an exception's traceback still holds must not hide that exception.
        try:
            self.close()
        except BufferError:
            if kind is None:
                raise

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def keys(self) -> Iterator[str]:
        """Metadata keys in file order."""
        return iter(self._entries)

    def value(self, key: str) -> Value:
        """Decode one metadata value.

        Raises:
            MalformedError: No such key, or text that is not UTF-8.
        """
        entry = self._entries.get(key)
        if entry is None:
            raise self._malformed(f"has no metadata key {key!r}")
        if entry.type is ValueType.STRING:
            return self._string(entry.value_start)[0]
        if entry.type is not ValueType.ARRAY:
            scalar: Scalar = struct.unpack_from(FORMATS[entry.type], self._data, entry.value_start)[0]
            return scalar
        assert entry.element is not None
        if entry.element is not ValueType.STRING:
            code = FORMATS[entry.element][1]
            return list(struct.unpack_from(f"<{entry.count}{code}", self._data, entry.value_start))
        texts: list[Scalar] = []
        position = entry.value_start
        for _ in range(entry.count):
            text, position = self._string(position)
            texts.append(text)
        return texts

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number; `default` where the key is absent (None: it must be there)."""
        if default is not None and key not in self:
            return default
        value = self.value(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._malformed(f"{key} should be a whole number")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A float; `default` where the key is absent (None: it must be there)."""
        if default is not None and key not in self:
            return default
        value = self.value(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._malformed(f"{key} should be a number")
        return float(value)

    def flag(self, key: str, *, default: bool) -> bool:
        """A boolean; `default` where the key is absent."""
        if key not in self:
            return default
        value = self.value(key)
        if not isinstance(value, bool):
            raise self._malformed(f"{key} should be true or false")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """A text; `default` where the key is absent (None: it must be there)."""
        if default is not None and key not in self:
            return default
        value = self.value(key)
        if not isinstance(value, str):
            raise self._malformed(f"{key} should be text")
        return value

    def texts(self, key: str) -> list[str]:
        """A list of texts."""
        value = self.value(key)
        if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            raise self._malformed(f"{key} should be a list of texts")
        return [entry for entry in value if isinstance(entry, str)]

    def numbers(self, key: str) -> list[float]:
        """A list of numbers, as floats."""
        value = self.value(key)
        if not isinstance(value, list) or any(isinstance(entry, str) for entry in value):
            raise self._malformed(f"{key} should be a list of numbers")
        return [float(entry) for entry in value]

    def raw_entry(self, key: str) -> bytes:
        """The bytes of one key-value pair as they are in the file, key and type included."""
        entry = self._entries[key]
        return bytes(self._data[entry.start : entry.end])

    def tensor_bytes(self, name: str) -> NDArray[np.uint8]:
        """A view, uint8 [size_bytes], of one tensor's data; no copy is made.

        Raises:
            MalformedError: No such tensor.
            IncompatibleError: Its type is not one of `TensorType`.
        """
        info = self.tensors.get(name)
        if info is None:
            raise self._malformed(f"has no tensor {name!r}")
        if info.type is None:
            raise IncompatibleError(
                f"{self.path}: tensor {name} is {type_name(info.type_code)}; "
                f"read are {', '.join(kind.name for kind in TensorType)}. Quantise the model with --pure"
            )
        start = self._data_start + info.offset
        return np.frombuffer(self._data, np.uint8, count=info.size_bytes, offset=start)

    def _malformed(self, what: str) -> MalformedError:
        return MalformedError(f"{self.path}: {what}. Fetch or convert the file again")

    def _need(self, position: int, size: int, what: str) -> None:
        if size > len(self._data) - position:
            raise self._malformed(
                f"truncated or damaged: {what} at byte {position} needs {size} bytes, the file has {len(self._data)}"
            )

    def _string(self, position: int, longest: int | None = None) -> tuple[str, int]:
        self._need(position, 8, "a text's length")
        (size,) = struct.unpack_from("<Q", self._data, position)
        if longest is not None and size > longest:
            raise self._malformed(f"a name of {size} bytes at byte {position}, at most {longest} are allowed")
        self._need(position + 8, size, "a text")
        try:
            return self._data[position + 8 : position + 8 + size].decode(), position + 8 + size
        except UnicodeDecodeError:
            raise self._malformed(f"the text at byte {position} is not UTF-8") from None

    def _value_type(self, position: int) -> ValueType:
        self._need(position, 4, "a value's type")
        (code,) = struct.unpack_from("<I", self._data, position)
        if code not in ValueType.__members__.values():
            raise self._malformed(f"unknown value type {code} at byte {position}")
        return ValueType(code)

    def _read_entry(self, start: int) -> int:
        key, position = self._string(start, _KEY_BYTES_MAX)
        if key in self._entries:
            raise self._malformed(f"metadata key {key[:80]!r} occurs twice")
        kind = self._value_type(position)
        position += 4
        element, count, value_start = None, 1, position
        if kind is ValueType.ARRAY:
            element = self._value_type(position)
            self._need(position + 4, 8, "an array's length")
            (count,) = struct.unpack_from("<Q", self._data, position + 4)
            value_start = position + 12
            if element is ValueType.ARRAY:
                raise self._malformed(f"{key[:80]!r} is an array of arrays, which no known key is")
            if count > _ARRAY_MAX:
                raise self._malformed(f"{key[:80]!r} claims {count} entries, at most {_ARRAY_MAX} are read")
        longest = _TEXT_BYTES_MAX if element is None else _LIST_TEXT_BYTES_MAX
        # Not `element or kind`: UINT8 is 0.
        end = self._end_of(kind if element is None else element, count, value_start, key, longest)
        self._entries[key] = _Entry(start, kind, element, count, value_start, end)
        return end

    def _end_of(self, kind: ValueType, count: int, position: int, key: str, longest: int) -> int:
        if kind is not ValueType.STRING:
            size = count * struct.calcsize(FORMATS[kind])
            self._need(position, size, f"the value of {key[:80]!r}")
            return position + size
        self._need(position, count * 8, f"the texts of {key[:80]!r}")
        for _ in range(count):
            self._need(position, 8, f"the texts of {key[:80]!r}")
            (size,) = struct.unpack_from("<Q", self._data, position)
            self._need(position + 8, size, f"the texts of {key[:80]!r}")
            if size > longest:
                raise self._malformed(f"{key[:80]!r} holds a text of {size} bytes, at most {longest} are read")
            position += 8 + size
        return position

    def _read_alignment(self) -> int:
        alignment = self.integer("general.alignment", DEFAULT_ALIGNMENT)
        if not 0 < alignment <= _ALIGNMENT_MAX or alignment & (alignment - 1):
            raise self._malformed(f"alignment {alignment} is no power of two up to {_ALIGNMENT_MAX}")
        return alignment

    def _read_tensor_info(self, position: int) -> tuple[TensorInfo, int]:
        name, position = self._string(position, _TENSOR_NAME_BYTES_MAX)
        self._need(position, 4, f"tensor {name!r}")
        (rank,) = struct.unpack_from("<I", self._data, position)
        if not 1 <= rank <= _DIMENSIONS_MAX:
            raise self._malformed(f"tensor {name!r} has {rank} dimensions, expected 1 to {_DIMENSIONS_MAX}")
        self._need(position + 4, rank * 8 + 12, f"tensor {name!r}")
        axes = struct.unpack_from(f"<{rank}Q", self._data, position + 4)
        code, offset = struct.unpack_from("<IQ", self._data, position + 4 + rank * 8)
        shape = tuple(reversed(axes))
        if min(shape) < 1 or math.prod(shape) > _ELEMENTS_MAX:
            raise self._malformed(f"tensor {name!r} claims the shape {list(shape)}")
        known = TensorType(code) if code in TensorType.__members__.values() else None
        block = block_of(code)
        if block is not None and shape[-1] % block[0]:
            raise self._malformed(
                f"tensor {name!r}: rows of {shape[-1]} values are no multiple of the block of {type_name(code)}"
            )
        size = 0 if block is None else math.prod(shape) // block[0] * block[1]
        return TensorInfo(name, shape, known, code, offset, size), position + 16 + rank * 8

    def _admit(self, info: TensorInfo) -> None:
        if info.name in self.tensors:
            raise self._malformed(f"tensor {info.name!r} occurs twice")
        if info.offset % self.alignment:
            raise self._malformed(f"tensor {info.name!r} starts at {info.offset}, not aligned")
        self._need(self._data_start + info.offset, info.size_bytes, f"tensor {info.name!r}")
        self.tensors[info.name] = info
