"""The types of a GGUF file: of its metadata values and of its tensors (ggml's docs/gguf.md and ggml.h)."""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Final


class ValueType(IntEnum):
    """Types of metadata values (docs/gguf.md)."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


FORMATS: Final = {
    ValueType.UINT8: "<B",
    ValueType.INT8: "<b",
    ValueType.UINT16: "<H",
    ValueType.INT16: "<h",
    ValueType.UINT32: "<I",
    ValueType.INT32: "<i",
    ValueType.FLOAT32: "<f",
    ValueType.BOOL: "<?",
    ValueType.UINT64: "<Q",
    ValueType.INT64: "<q",
    ValueType.FLOAT64: "<d",
}
"""Value type -> format of `struct`; texts and arrays have none."""


class TensorType(IntEnum):
    """The ggml tensor types whose layout this project knows."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q8_0 = 8
    BF16 = 30

    @property
    def block(self) -> tuple[int, int]:
        """(values, bytes) of one block."""
        return _BLOCKS[self]

    def size_bytes(self, shape: tuple[int, ...]) -> int:
        """Bytes of a tensor of this shape, row-major, the last axis a multiple of the block."""
        values, size = self.block
        return math.prod(shape) // values * size


_BLOCKS: Final = {
    TensorType.F32: (1, 4),
    TensorType.F16: (1, 2),
    TensorType.BF16: (1, 2),
    TensorType.Q4_0: (32, 18),
    TensorType.Q8_0: (32, 34),
}

FOREIGN_BLOCKS: Final = {
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    29: ("IQ1_M", 256, 56),
}
"""Type code -> (name, values and bytes of one block) of types that llama.cpp reads and the graphs do not."""


def type_name(code: int) -> str:
    """What llama.cpp calls a tensor type."""
    if code in TensorType.__members__.values():
        return TensorType(code).name
    return FOREIGN_BLOCKS[code][0] if code in FOREIGN_BLOCKS else f"ggml type {code}"


def block_of(code: int) -> tuple[int, int] | None:
    """(values, bytes) of one block; None for a type that is not known."""
    if code in TensorType.__members__.values():
        return TensorType(code).block
    return FOREIGN_BLOCKS[code][1:] if code in FOREIGN_BLOCKS else None
