"""The metadata that a GGUF file of the known families opens with."""

from __future__ import annotations

from nightshift.packages.gguf_writer import entry
from nightshift.protocol.manifest import ModelDimensions


def model_entries(dimensions: ModelDimensions, *, name: str, licence: str) -> list[bytes]:
    """Architecture, name, licence and shape, as llama.cpp reads them (docs/gguf.md, "Standardized key-value pairs")."""
    d = dimensions
    values: dict[str, int | float] = {
        "context_length": d.context,
        "embedding_length": d.hidden,
        "block_count": d.layers,
        "feed_forward_length": d.ffn,
        "attention.head_count": d.heads,
        "attention.head_count_kv": d.kv_heads,
        "attention.key_length": d.head_dim,
        "attention.value_length": d.head_dim,
        "attention.layer_norm_rms_epsilon": d.rms_eps,
        "rope.dimension_count": d.head_dim,
        "rope.freq_base": d.rope_theta,
        "vocab_size": d.vocabulary,
    }
    return [
        entry("general.architecture", d.family),
        entry("general.name", name),
        entry("general.license", licence),
        *(entry(f"{d.family}.{key}", value) for key, value in values.items()),
    ]
