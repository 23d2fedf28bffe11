"""A decoder of the Llama family in float64, read from a GGUF file by the gguf package: what both runtimes approximate.

Written for comparison only, and independent of the product: it shares neither the reader, nor the dequantiser, nor
the graphs. The rows of q and k stay as llama.cpp's files have them, turned in neighbouring pairs; an adapter
is read from the GGUF file that llama.cpp gets.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class FloatModel:
    """A model, with an adapter or none.

    Args:
        path: GGUF file of architecture llama.
        adapter: GGUF file of a LoRA adapter.
    """

    def __init__(self, path: Path, adapter: Path | None = None) -> None:
        reader = gguf.GGUFReader(path)
        self._fields = {key: field.contents() for key, field in reader.fields.items() if key.startswith("llama.")}
        if not self._fields:
            raise ValueError(f"{path}: the reference knows the llama architecture only")
        self._weights: dict[str, Array] = {
            tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float64)
            for tensor in reader.tensors
        }
        if adapter is not None:
            self._add(gguf.GGUFReader(adapter))

    def _add(self, reader: gguf.GGUFReader) -> None:
        tensors = {tensor.name: np.asarray(tensor.data, np.float64) for tensor in reader.tensors}
        alpha = float(reader.fields["adapter.lora.alpha"].contents())
        for name, a in tensors.items():
            if name.endswith(".lora_a"):
                base = name.removesuffix(".lora_a")
                self._weights[base] = self._weights[base] + alpha / len(a) * (tensors[f"{base}.lora_b"] @ a)

    def log_probabilities(self, tokens: Sequence[int]) -> Array:
        """Of every token after each position, float64 [len(tokens), vocabulary]."""
        w, heads, kv_heads = (
            self._weights,
            self._number("attention.head_count"),
            self._number("attention.head_count_kv"),
        )
        x = w["token_embd.weight"][list(tokens)]
        for layer in range(self._number("block_count")):
            block = {name.split(".", 2)[2]: value for name, value in w.items() if name.startswith(f"blk.{layer}.")}
            normed = self._norm(x, block["attn_norm.weight"])
            query, key, value = (
                (normed @ block[f"attn_{part}.weight"].T).reshape(len(x), count, -1).transpose(1, 0, 2)
                for part, count in (("q", heads), ("k", kv_heads), ("v", kv_heads))
            )
            mixed = _attend(self._turned(query), self._turned(key), value)
            x = x + mixed @ block["attn_output.weight"].T
            normed = self._norm(x, block["ffn_norm.weight"])
            gate = normed @ block["ffn_gate.weight"].T
            inner = gate / (1 + np.exp(-gate)) * (normed @ block["ffn_up.weight"].T)
            x = x + inner @ block["ffn_down.weight"].T
        logits = self._norm(x, w["output_norm.weight"]) @ w.get("output.weight", w["token_embd.weight"]).T
        shifted = logits - logits.max(-1, keepdims=True)
        result: Array = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
        return result

    def _number(self, key: str) -> int:
        return int(self._fields[f"llama.{key}"])

    def _norm(self, x: Array, gain: Array) -> Array:
        epsilon = float(self._fields["llama.attention.layer_norm_rms_epsilon"])
        result: Array = gain * x / np.sqrt((x * x).mean(-1, keepdims=True) + epsilon)
        return result

    def _turned(self, x: Array) -> Array:
        """Rotary embedding of neighbouring pairs, [heads, T, head size]."""
        theta = float(self._fields.get("llama.rope.freq_base", 10_000.0))
        size = x.shape[-1]
        angles = np.arange(x.shape[1])[:, None] * theta ** (-np.arange(0, size, 2) / size)
        even, odd = x[..., 0::2], x[..., 1::2]
        turned = np.empty_like(x)
        turned[..., 0::2] = even * np.cos(angles) - odd * np.sin(angles)
        turned[..., 1::2] = odd * np.cos(angles) + even * np.sin(angles)
        return turned


def _attend(query: Array, key: Array, value: Array) -> Array:
    """Causal grouped-query attention: [heads, T, d], [kv heads, T, d] twice -> [T, heads * d]."""
    group, length = len(query) // len(key), query.shape[1]
    key, value = (np.repeat(array, group, axis=0) for array in (key, value))
    scores = query @ key.transpose(0, 2, 1) / np.sqrt(query.shape[-1])
    scores += np.triu(np.full((length, length), -np.inf), 1)
    chances = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = (chances / chances.sum(-1, keepdims=True)) @ value
    joined: Array = mixed.transpose(1, 0, 2).reshape(length, -1)
    return joined
