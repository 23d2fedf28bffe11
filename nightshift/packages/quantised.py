"""Quantised matrices: GGUF's blocks and ONNX Runtime's arrays hold the same numbers.

A Q8_0 block is a float16 scale and 32 int8 codes; a Q4_0 block is a float16 scale and 32 codes of
four bits, the first 16 in the low nibbles (ggml-quants.c). ONNX Runtime's MatMulNBits and
GatherBlockQuantized want unsigned codes with the zero point in the middle, low nibble first, and
the scales apart. Going from one to the other moves bytes and flips a sign bit; no number changes,
so an adapter trained under ONNX Runtime is trained against the weights llama.cpp serves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nightshift.packages.gguf_file import TensorType
from nightshift.protocol.errors import IncompatibleError

BLOCK: Final = 32
"""Values that share one scale, in both schemes."""


@dataclass(frozen=True, slots=True)
class QuantisedMatrix:
    """A matrix W [out, in] as codes and scales: W = (code - 2**(bits - 1)) * scale.

    Attributes:
        codes: uint8 [out, in * bits / 8]; with 4 bits the low nibble comes first.
        scales: float32 [out, in / 32], widened exactly from float16.
        bits: 8 or 4.
    """

    codes: NDArray[np.uint8]
    scales: NDArray[np.float32]
    bits: int

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        return self.codes.shape[0], self.codes.shape[1] * 8 // self.bits

    def dequantised(self) -> NDArray[np.float32]:
        """The matrix, float32 [out, in]; exact, since code and scale multiply within 24 bits."""
        codes = self.codes
        if self.bits == 4:
            codes = np.stack([codes & 0x0F, codes >> 4], axis=-1).reshape(codes.shape[0], -1)
        centred = codes.astype(np.float32) - np.float32(1 << (self.bits - 1))
        return (centred.reshape(*self.scales.shape, BLOCK) * self.scales[..., None]).reshape(self.shape)


def from_blocks(raw: NDArray[np.uint8], shape: tuple[int, int], kind: TensorType) -> QuantisedMatrix:
    """Re-order the bytes of a GGUF tensor.

    Args:
        raw: uint8, the tensor's bytes, rows one after the other.
        shape: (out, in), with `in` a multiple of 32.
        kind: Q8_0 or Q4_0.

    Raises:
        IncompatibleError: Another tensor type.
    """
    if kind not in (TensorType.Q8_0, TensorType.Q4_0):
        raise IncompatibleError(f"tensor type {kind.name} is no block scheme; expected Q8_0 or Q4_0")
    rows, columns = shape
    blocks = raw.reshape(rows, columns // BLOCK, kind.block[1])
    scales = np.ascontiguousarray(blocks[..., :2]).view("<f2")[..., 0].astype(np.float32)
    payload = blocks[..., 2:]
    if kind is TensorType.Q8_0:
        # int8 to unsigned with zero point 128: adding 128 modulo 256 flips the top bit.
        return QuantisedMatrix((payload ^ np.uint8(0x80)).reshape(rows, columns), scales, bits=8)
    values = np.concatenate([payload & 0x0F, payload >> 4], axis=-1)
    packed = values[..., 0::2] | (values[..., 1::2] << 4)
    return QuantisedMatrix(packed.reshape(rows, columns // 2), scales, bits=4)


def quantise(values: NDArray[np.float32], kind: TensorType) -> NDArray[np.uint8]:
    """Quantise as llama.cpp's reference does (ggml-quants.c, quantize_row_q8_0_ref and quantize_row_q4_0_ref).

    Args:
        values: float32 [rows, in], finite, with `in` a multiple of 32.
        kind: Q8_0 or Q4_0.

    Returns:
        uint8 [rows, in / 32 * bytes of a block], bit for bit what the gguf package writes.

    Raises:
        IncompatibleError: another tensor type.
    """
    if kind not in (TensorType.Q8_0, TensorType.Q4_0):
        raise IncompatibleError(f"tensor type {kind.name} is no block scheme; expected Q8_0 or Q4_0")
    blocks = values.reshape(-1, BLOCK)
    if kind is TensorType.Q8_0:
        scale = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
        scaled = blocks * _inverse(scale)
        # Halves away from zero, as C's roundf; numpy's rint goes to even.
        codes = (np.sign(scaled) * np.floor(np.abs(scaled) + np.float32(0.5))).astype(np.int8).view(np.uint8)
    else:
        largest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=1, keepdims=True), axis=1)
        scale = largest / np.float32(-8)
        shifted = blocks * _inverse(scale) + np.float32(8.5)  # in float32: it decides where a tie goes
        nibbles = np.minimum(shifted.astype(np.uint8), np.uint8(15))
        codes = nibbles[:, :16] | (nibbles[:, 16:] << 4)
    with np.errstate(over="ignore"):  # the caller looks for scales that are not finite
        stored = scale.astype("<f2").view(np.uint8)
    return np.concatenate([stored, codes], axis=1).reshape(values.shape[0], -1)


def _inverse(scale: NDArray[np.float32]) -> NDArray[np.float32]:
    with np.errstate(divide="ignore"):
        inverse: NDArray[np.float32] = np.where(scale == 0, np.float32(0), np.float32(1) / scale)
    return inverse


def float_values(raw: NDArray[np.uint8], shape: tuple[int, ...], kind: TensorType) -> NDArray[np.float32]:
    """Widen an F32, F16 or BF16 tensor to float32, exactly.

    Raises:
        IncompatibleError: The tensor is quantised.
    """
    if kind is TensorType.F32:
        return raw.view("<f4").astype(np.float32).reshape(shape)
    if kind is TensorType.F16:
        return raw.view("<f2").astype(np.float32).reshape(shape)
    if kind is TensorType.BF16:
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
    raise IncompatibleError(f"tensor type {kind.name} is quantised; expected F32, F16 or BF16")
