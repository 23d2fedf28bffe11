from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from nightshift.protocol.adapters import AdapterLayout, FormatError
from nightshift.protocol.adapters.gguf_adapter import permute_rows, to_gguf

LAYOUT = AdapterLayout.for_llama(
    layers=2,
    hidden=16,
    ffn=20,
    heads=4,
    kv_heads=2,
    head_dim=4,
    rank=3,
    alpha=12,
    targets=("q_proj", "k_proj", "down_proj"),
)


def adapter() -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in LAYOUT.shapes().items()}


def read(data: bytes, path: Path) -> tuple[dict[str, object], dict[str, np.ndarray]]:
    path.write_bytes(data)
    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    return fields, {tensor.name: np.array(tensor.data) for tensor in reader.tensors}


def test_the_gguf_library_reads_fields_and_tensors(tmp_path: Path) -> None:
    tensors = adapter()
    data = to_gguf(tensors, LAYOUT, architecture="qwen2", heads=4, kv_heads=2)
    fields, stored = read(data, tmp_path / "adapter.gguf")
    assert fields["general.architecture"] == "qwen2"
    assert fields["general.type"] == "adapter"
    assert fields["adapter.type"] == "lora"
    assert fields["adapter.lora.alpha"] == 12.0
    assert len(stored) == len(tensors) == 12
    for source, name in (("q_proj", "attn_q"), ("k_proj", "attn_k"), ("down_proj", "ffn_down")):
        for matrix in ("lora_a", "lora_b"):
            np.testing.assert_array_equal(
                stored[f"blk.1.{name}.weight.{matrix}"], tensors[f"layers.1.{source}.{matrix}"]
            )


def test_the_llama_family_has_rows_of_q_and_k_in_pairs(tmp_path: Path) -> None:
    tensors = adapter()
    data = to_gguf(tensors, LAYOUT, architecture="llama", heads=4, kv_heads=2)
    _, stored = read(data, tmp_path / "adapter.gguf")
    # Head of 4 rows: halves (0, 1 | 2, 3) become pairs (0, 2), (1, 3).
    for source, name, heads in (("q_proj", "attn_q", 4), ("k_proj", "attn_k", 2)):
        order = [4 * head + row for head in range(heads) for row in (0, 2, 1, 3)]
        np.testing.assert_array_equal(
            stored[f"blk.0.{name}.weight.lora_b"], tensors[f"layers.0.{source}.lora_b"][order]
        )
        np.testing.assert_array_equal(stored[f"blk.0.{name}.weight.lora_a"], tensors[f"layers.0.{source}.lora_a"])
    np.testing.assert_array_equal(stored["blk.0.ffn_down.weight.lora_b"], tensors["layers.0.down_proj.lora_b"])


@pytest.mark.parametrize("heads", [0, 3, 16])
def test_heads_must_divide_the_rows(heads: int) -> None:
    with pytest.raises(FormatError, match="heads"):
        permute_rows(np.zeros((16, 2), np.float32), heads)


def test_equal_adapters_give_equal_bytes() -> None:
    first = to_gguf(adapter(), LAYOUT, architecture="llama", heads=4, kv_heads=2)
    assert first == to_gguf(dict(reversed(adapter().items())), LAYOUT, architecture="llama", heads=4, kv_heads=2)
