"""Adapter files: safetensors bytes with strict checks, and the PEFT folder.

The safetensors layout (8-byte little-endian header length, JSON header, raw
tensors) is written here rather than by the library because equal adapters
must give equal bytes: files are addressed by their hash. Readers treat the
bytes as hostile: sizes are compared before anything is parsed or copied.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightshift.protocol.adapters.errors import FormatError
from nightshift.protocol.adapters.layout import AdapterLayout, Side, Target, Tensors

MAX_HEADER_BYTES = 4 << 20
_LAYOUT_KEY = "nightshift.adapter"
_PEFT_MODULES = {
    "q_proj": "self_attn",
    "k_proj": "self_attn",
    "v_proj": "self_attn",
    "o_proj": "self_attn",
    "gate_proj": "mlp",
    "up_proj": "mlp",
    "down_proj": "mlp",
}


def to_safetensors(tensors: Tensors, layout: AdapterLayout) -> bytes:
    """Writes a complete adapter; equal tensors give equal bytes.

    The layout itself goes into the file's metadata, so that the file can be
    read without knowing the layout in advance (`layout_of`).

    Raises:
        FormatError: the tensors do not match the layout.
    """
    layout.check(tensors)
    metadata = {_LAYOUT_KEY: _json(_layout_record(layout))}
    return _encode({name: tensors[name] for name in layout.shapes()}, metadata)


def from_safetensors(data: bytes, layout: AdapterLayout) -> dict[str, NDArray[np.float32]]:
    """Reads a complete adapter that must match the layout exactly.

    Returns:
        Name -> float32 array in canonical order; the arrays own their memory.

    Raises:
        FormatError: wrong size, header, names, shapes or dtype, a value that
            is not finite, or a layout in the metadata that differs (for
            instance another alpha).
    """
    expected = 4 * layout.vector_length(Side.BOTH)
    if not expected < len(data) <= expected + MAX_HEADER_BYTES:
        raise FormatError(
            f"an adapter of this layout takes {expected} bytes and a header, the file has {len(data)} bytes"
        )
    header, body = _split(data)
    metadata = header.pop("__metadata__", {})
    if isinstance(metadata, dict) and _LAYOUT_KEY in metadata:
        stated = _parse_layout(metadata[_LAYOUT_KEY])
        if stated != layout:
            raise FormatError(f"the file is for {_describe(stated)}, expected {_describe(layout)}")
    tensors = _decode(header, body)
    layout.check(tensors)
    return {name: tensors[name] for name in layout.shapes()}


def layout_of(data: bytes) -> AdapterLayout:
    """Returns the layout that an adapter file states in its metadata.

    Raises:
        FormatError: no adapter of this project, or a malformed header.
        LayoutError: the stated layout is impossible or beyond the caps.
    """
    header, _ = _split(data)
    metadata = header.get("__metadata__")
    if not isinstance(metadata, dict) or _LAYOUT_KEY not in metadata:
        raise FormatError(f"the file has no {_LAYOUT_KEY!r} metadata; it was not written by nightshift")
    return _parse_layout(metadata[_LAYOUT_KEY])


def to_peft(tensors: Tensors, layout: AdapterLayout, *, base_model: str) -> dict[str, bytes]:
    """Writes the folder that Hugging Face PEFT loads: file name -> bytes.

    Args:
        tensors: a complete adapter.
        layout: its layout.
        base_model: name or path that PEFT shall load the base model from.

    Raises:
        FormatError: the tensors do not match the layout.
    """
    layout.check(tensors)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": layout.rank,
        "lora_alpha": layout.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": [target.name for target in layout.targets],
    }
    renamed = {_peft_name(name): tensors[name] for name in layout.shapes()}
    return {
        "adapter_config.json": (json.dumps(config, indent=2, sort_keys=True) + "\n").encode(),
        "adapter_model.safetensors": _encode(renamed, {"format": "pt"}),
    }


def _peft_name(name: str) -> str:
    prefix, projection, matrix = name.rsplit(".", 2)
    letter = "A" if matrix == "lora_a" else "B"
    return f"base_model.model.model.{prefix}.{_PEFT_MODULES[projection]}.{projection}.lora_{letter}.weight"


def _encode(tensors: Tensors, metadata: Mapping[str, str]) -> bytes:
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    offset = 0
    for name, tensor in tensors.items():
        header[name] = {
            "dtype": "F32",
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + 4 * tensor.size],
        }
        offset += 4 * tensor.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    bodies = [np.ascontiguousarray(tensor, dtype="<f4").tobytes() for tensor in tensors.values()]
    return b"".join([len(text).to_bytes(8, "little"), text, *bodies])


def _split(data: bytes) -> tuple[dict[str, Any], memoryview]:
    """Header as a dictionary, and the bytes after it."""
    if len(data) < 8:
        raise FormatError(f"a safetensors file has at least 8 bytes, got {len(data)}")
    length = int.from_bytes(data[:8], "little")
    if length > min(MAX_HEADER_BYTES, len(data) - 8):
        raise FormatError(f"the header claims {length} bytes of a file of {len(data)} bytes")
    try:
        header = json.loads(data[8 : 8 + length].decode("utf-8"), object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"the safetensors header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise FormatError("the safetensors header is not a JSON object")
    return header, memoryview(data)[8 + length :]


def _decode(header: Mapping[str, Any], body: memoryview) -> dict[str, NDArray[np.float32]]:
    """Float32 tensors whose ranges tile the body without gap or overlap."""
    ranges: list[tuple[int, int]] = []
    tensors: dict[str, NDArray[np.float32]] = {}
    for name, entry in header.items():
        if not isinstance(entry, dict) or entry.get("dtype") != "F32":
            raise FormatError(f"{name[:80]!r} must be an F32 tensor")
        shape = _sizes(name, entry.get("shape"))
        begin, end = _sizes(name, entry.get("data_offsets"))
        if end > len(body) or begin > end or end - begin != 4 * math.prod(shape):
            raise FormatError(f"{name[:80]!r} has data_offsets that do not fit its shape or the file")
        ranges.append((begin, end))
        flat = np.frombuffer(body[begin:end], dtype="<f4").astype(np.float32)
        tensors[name] = flat.reshape(shape)
    position = 0
    for begin, end in sorted(ranges):
        if begin != position:
            raise FormatError("the tensors overlap or leave a gap in the file")
        position = end
    if position != len(body):
        raise FormatError(f"{len(body) - position} bytes follow the last tensor")
    return tensors


def _sizes(name: str, value: object) -> tuple[int, int]:
    if isinstance(value, list) and len(value) == 2:
        first, second = value
        if type(first) is int and type(second) is int and 0 <= first < 1 << 40 and 0 <= second < 1 << 40:
            return first, second
    raise FormatError(f"{name[:80]!r} must have a shape and data_offsets of two sizes each")


def _layout_record(layout: AdapterLayout) -> dict[str, Any]:
    return {
        "alpha": layout.alpha,
        "layers": layout.layers,
        "rank": layout.rank,
        "targets": [[target.name, target.in_features, target.out_features] for target in layout.targets],
    }


def _parse_layout(text: object) -> AdapterLayout:
    try:
        record = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError) as error:
        raise FormatError("the adapter layout in the metadata is not JSON") from error
    if not isinstance(record, dict) or set(record) != {"alpha", "layers", "rank", "targets"}:
        raise FormatError("the adapter layout in the metadata must have alpha, layers, rank and targets")
    targets = record["targets"]
    if not isinstance(targets, list) or not all(isinstance(item, list) and len(item) == 3 for item in targets):
        raise FormatError("the targets in the metadata must be [name, in_features, out_features]")
    if not all(isinstance(item[0], str) for item in targets):
        raise FormatError("the names of the targets in the metadata must be strings")
    return AdapterLayout(
        layers=record["layers"],
        targets=tuple(Target(*item) for item in targets),
        rank=record["rank"],
        alpha=record["alpha"],
    )


def _describe(layout: AdapterLayout) -> str:
    names = ",".join(target.name for target in layout.targets)
    return f"{layout.layers} layers, rank {layout.rank}, alpha {layout.alpha:g}, targets {names}"


def _json(record: object) -> str:
    return json.dumps(record, sort_keys=True, separators=(",", ":"))


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) != len(pairs):
        raise ValueError("a key appears twice")
    return keys
