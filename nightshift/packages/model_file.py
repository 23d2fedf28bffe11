"""model.gguf: the source's own tensors where they have the wanted type, else quantised as llama.cpp would.

Rows that are no multiple of 32 stay float16, as llama-quantize leaves them. Matrices are converted a few
million values at a time, so a device with little memory can do it to a file that is larger than that.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nightshift.packages import gguf_writer
from nightshift.packages.gguf_file import GgufFile, TensorInfo, TensorType
from nightshift.packages.gguf_types import type_name
from nightshift.packages.quantised import float_values, quantise
from nightshift.protocol.errors import IncompatibleError, MalformedError
from nightshift.protocol.manifest import Scheme

FLOAT_TYPES: Final = frozenset({TensorType.F32, TensorType.F16, TensorType.BF16})
MATRIX_TYPES: Final = {
    Scheme.Q8_0: TensorType.Q8_0,
    Scheme.Q4_0: TensorType.Q4_0,
    Scheme.F16: TensorType.F16,
}
FILE_TYPES: Final = {Scheme.F16: 1, Scheme.Q4_0: 2, Scheme.Q8_0: 7}
"""Scheme -> `general.file_type` (llama.h, enum llama_ftype)."""

_REPLACED_KEYS = frozenset({"general.file_type", "general.quantization_version", "general.alignment"})
_QUANTISATION_VERSION = 2  # ggml.h, GGML_QNT_VERSION
_VALUES_AT_ONCE = 1 << 22


def write_model(source: GgufFile, destination: Path, scheme: Scheme) -> None:
    """Write model.gguf: the source's metadata, its matrices in the wanted scheme, vectors float32.

    Raises:
        IncompatibleError: A matrix is quantised in another scheme already.
        MalformedError: A weight is infinite or not a number.
    """
    entries = [source.raw_entry(key) for key in source.keys() if key not in _REPLACED_KEYS]  # noqa: SIM118 - no dict
    entries.append(gguf_writer.entry("general.file_type", FILE_TYPES[scheme]))
    if scheme is not Scheme.F16:
        entries.append(gguf_writer.entry("general.quantization_version", _QUANTISATION_VERSION))
    plans = [
        gguf_writer.TensorPlan(info.name, info.shape, _stored_type(info, scheme)) for info in source.tensors.values()
    ]
    with gguf_writer.GgufWriter(destination, entries, plans) as writer:
        for plan in plans:
            writer.write_parts(plan.name, _converted(source, plan))


def _stored_type(info: TensorInfo, scheme: Scheme) -> TensorType:
    if len(info.shape) != 2:
        return TensorType.F32
    wanted = MATRIX_TYPES[scheme]
    return TensorType.F16 if info.shape[-1] % wanted.block[0] else wanted


def _converted(source: GgufFile, plan: gguf_writer.TensorPlan) -> Iterator[NDArray[np.uint8]]:
    info = source.tensors[plan.name]
    if info.type is plan.type and plan.type not in FLOAT_TYPES:
        yield source.tensor_bytes(plan.name)
        return
    if info.type not in FLOAT_TYPES:
        found = type_name(info.type_code)
        raise IncompatibleError(
            f"{source.path}: tensor {plan.name} is {found}, the package wants {plan.type.name}; "
            "build from a float file" + (f", or with quantisation={found}" if found in FILE_TYPES else "")
        )
    raw = source.tensor_bytes(plan.name)
    rows, columns = _as_rows(plan.shape)
    row_bytes = raw.nbytes // rows
    step = max(1, _VALUES_AT_ONCE // columns)
    for first in range(0, rows, step):
        count = min(step, rows - first)
        part = raw[first * row_bytes : (first + count) * row_bytes]
        yield _encoded(source, plan, float_values(part, (count, columns), info.type))


def _as_rows(shape: tuple[int, ...]) -> tuple[int, int]:
    """(rows, columns) of a tensor seen as a matrix."""
    columns = shape[-1]
    rows = 1
    for size in shape[:-1]:
        rows *= size
    return rows, columns


def _encoded(source: GgufFile, plan: gguf_writer.TensorPlan, values: NDArray[np.float32]) -> NDArray[np.uint8]:
    if not np.isfinite(values).all():
        raise MalformedError(f"{source.path}: tensor {plan.name} holds infinite or undefined weights")
    if plan.type is TensorType.F32:
        return values.view(np.uint8)
    with np.errstate(over="ignore"):  # looked for below
        if plan.type is TensorType.F16:
            narrow = values.astype("<f2")
            if not np.isfinite(narrow).all():
                raise IncompatibleError(f"{source.path}: tensor {plan.name} exceeds the range of float16")
            return narrow.view(np.uint8)
    blocks = quantise(values, plan.type)
    scales = np.ascontiguousarray(blocks.reshape(-1, plan.type.block[1])[:, :2]).view("<f2")
    if not np.isfinite(scales).all():
        raise IncompatibleError(f"{source.path}: tensor {plan.name}: a scale exceeds the range of float16")
    return blocks
