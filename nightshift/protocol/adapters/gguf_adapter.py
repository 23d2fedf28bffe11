"""Adapter as the GGUF bytes that llama.cpp loads.

GGUF version 3: magic, version, number of tensors, number of key-values, the
key-values, the tensor infos (dimensions innermost first), padding, tensors each
aligned to 32 bytes. llama.cpp reads `adapter.lora.alpha` and multiplies by
alpha / rank itself.

GGUF files of the llama family store the rows of q and k permuted, so that
the rotary embedding turns neighbouring pairs instead of the two halves of a
head (llama.cpp, `LlamaModel.permute`). The rows of B of these two projections
are permuted alike; A acts before the rows and stays.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from nightshift.protocol.adapters.errors import FormatError
from nightshift.protocol.adapters.layout import AdapterLayout, Tensors

_ALIGNMENT = 32
_TYPE_FLOAT32, _TYPE_STRING = 6, 8
_GGML_F32 = 0
_PERMUTED_ARCHITECTURES = frozenset({"llama"})  # Mistral and SmolLM files say "llama" too
_TENSOR_NAMES = {
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}


def to_gguf(tensors: Tensors, layout: AdapterLayout, *, architecture: str, heads: int, kv_heads: int) -> bytes:
    """Writes a complete adapter as GGUF.

    Args:
        tensors: name -> float32 array, rows in the Hugging Face order.
        layout: the layout of the tensors.
        architecture: `general.architecture` of the base file ("llama", "qwen2", ...).
        heads: attention heads of the base model.
        kv_heads: key and value heads of the base model.

    Raises:
        FormatError: the tensors do not match the layout, or the head counts
            do not divide the rows of q or k.
    """
    layout.check(tensors)
    permuted_heads: dict[str, int] = {}
    if architecture in _PERMUTED_ARCHITECTURES:
        permuted_heads = {"q_proj": heads, "k_proj": kv_heads}
    infos, bodies, offset = [], [], 0
    for name in layout.shapes():
        _, layer, projection, matrix = name.split(".")
        tensor = tensors[name]
        if matrix == "lora_b" and projection in permuted_heads:
            tensor = permute_rows(tensor, permuted_heads[projection])
        body = np.ascontiguousarray(tensor, dtype="<f4").tobytes()
        rows, columns = tensor.shape
        infos.append(
            _string(f"blk.{layer}.{_TENSOR_NAMES[projection]}.weight.{matrix}")
            + struct.pack("<IQQIQ", 2, columns, rows, _GGML_F32, offset)
        )
        bodies.append(body + bytes(-len(body) % _ALIGNMENT))
        offset += len(bodies[-1])
    fields = [
        _string_field("general.architecture", architecture),
        _string_field("general.type", "adapter"),
        _string_field("adapter.type", "lora"),
        _string("adapter.lora.alpha") + struct.pack("<If", _TYPE_FLOAT32, layout.alpha),
    ]
    head = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(fields)) + b"".join(fields) + b"".join(infos)
    return b"".join([head, bytes(-len(head) % _ALIGNMENT), *bodies])


def permute_rows(matrix: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Reorders rows [heads, 2, half] to [heads, half, 2]: halves of a head become pairs.

    Raises:
        FormatError: the rows are not `heads` heads of an even size.
    """
    rows, columns = matrix.shape
    if heads < 1 or rows % (2 * heads):
        raise FormatError(f"{rows} rows cannot be cut into {heads} heads of an even size")
    pairs = matrix.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2)
    return np.ascontiguousarray(pairs.reshape(rows, columns))


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _string_field(key: str, value: str) -> bytes:
    return _string(key) + struct.pack("<I", _TYPE_STRING) + _string(value)
