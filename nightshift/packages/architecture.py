"""Which model a GGUF file holds: its dimensions, its tensors, and what its family does differently.

Families are data: a row of `FAMILIES` says how the file of that family is laid out. Mistral and
SmolLM files call themselves "llama" and need nothing of their own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nightshift.packages.gguf_file import GgufFile
from nightshift.protocol.errors import IncompatibleError, MalformedError
from nightshift.protocol.manifest import ModelDimensions


@dataclass(frozen=True, slots=True)
class Family:
    """What distinguishes one family's GGUF files.

    Attributes:
        rows_interleaved: q and k rows are stored for interleaved rotary embedding (pairs side by
            side) and must be re-ordered to Hugging Face's halves.
        attention_bias: q, k and v carry a bias vector.
        head_norm: q and k heads are RMS-normalised before the rotary embedding.
    """

    rows_interleaved: bool = False
    attention_bias: bool = False
    head_norm: bool = False


FAMILIES: Final = {
    "llama": Family(rows_interleaved=True),
    "qwen2": Family(attention_bias=True),
    "qwen3": Family(head_norm=True),
}

ROTARY_FACTORS_TENSOR: Final = "rope_freqs.weight"

_LAYER_MATRICES: Final = {
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}


@dataclass(frozen=True, slots=True)
class TensorSource:
    """Where a tensor of the graphs comes from.

    Attributes:
        name: Its name in the graphs and in weights.bin, such as `layers.0.q_proj`.
        gguf_name: Its name in the GGUF file.
        shape: Row-major; matrices are [out, in].
        interleaved_heads: Number of heads whose rows must be re-ordered, 0 for none.
    """

    name: str
    gguf_name: str
    shape: tuple[int, ...]
    interleaved_heads: int = 0

    @property
    def is_matrix(self) -> bool:
        """Whether it is a matrix (quantised) rather than a vector (float32)."""
        return len(self.shape) == 2


@dataclass(frozen=True, slots=True)
class Architecture:
    """A model's dimensions, family, and the frequencies of its rotary embedding.

    Attributes:
        dimensions: The shape, as the manifest states it.
        family: What its family does differently.
        inverse_frequencies: float32 [head_dim / 2], radians per position.
    """

    dimensions: ModelDimensions
    family: Family
    inverse_frequencies: NDArray[np.float32]

    @property
    def output_matrix(self) -> str:
        """Name of the matrix that gives the logits."""
        return "embed_tokens" if self.dimensions.tied_embeddings else "lm_head"

    def tensors(self) -> list[TensorSource]:
        """Every tensor the graphs use, in the order of weights.bin."""
        d = self.dimensions
        sources = [TensorSource("embed_tokens", "token_embd.weight", (d.vocabulary, d.hidden))]
        for layer in range(d.layers):
            sources += self._layer_tensors(f"layers.{layer}", f"blk.{layer}")
        sources.append(TensorSource("norm", "output_norm.weight", (d.hidden,)))
        if not d.tied_embeddings:
            sources.append(TensorSource("lm_head", "output.weight", (d.vocabulary, d.hidden)))
        return sources

    def _layer_tensors(self, prefix: str, gguf_prefix: str) -> list[TensorSource]:
        d, family = self.dimensions, self.family
        sources = [
            TensorSource(f"{prefix}.input_norm", f"{gguf_prefix}.attn_norm.weight", (d.hidden,)),
            TensorSource(f"{prefix}.ffn_norm", f"{gguf_prefix}.ffn_norm.weight", (d.hidden,)),
        ]
        heads = {"q_proj": d.heads, "k_proj": d.kv_heads} if family.rows_interleaved else {}
        for projection, gguf_part in _LAYER_MATRICES.items():
            name, gguf_name = f"{prefix}.{projection}", f"{gguf_prefix}.{gguf_part}"
            shape = d.projection_shape(projection)
            interleaved = heads.get(projection, 0)
            sources.append(TensorSource(name, f"{gguf_name}.weight", shape, interleaved))
            if family.attention_bias and projection in ("q_proj", "k_proj", "v_proj"):
                sources.append(TensorSource(f"{name}.bias", f"{gguf_name}.bias", shape[:1], interleaved))
        if family.head_norm:
            sources += [
                TensorSource(f"{prefix}.q_norm", f"{gguf_prefix}.attn_q_norm.weight", (d.head_dim,)),
                TensorSource(f"{prefix}.k_norm", f"{gguf_prefix}.attn_k_norm.weight", (d.head_dim,)),
            ]
        return sources


def read_architecture(file: GgufFile) -> Architecture:
    """Recognise the model of a GGUF file and check that its tensors are exactly the expected ones.

    Raises:
        IncompatibleError: A family, rotary scaling or tensor that the graphs cannot express.
        MalformedError: A tensor is missing, has another shape, or the metadata contradict themselves.
    """
    name = file.text("general.architecture")
    if name not in FAMILIES:
        raise IncompatibleError(
            f"{file.path}: architecture {name[:40]!r}; packages are built for {', '.join(FAMILIES)}"
        )
    _refuse_rotary_scaling(file, name)
    dimensions = _read_dimensions(file, name)
    architecture = Architecture(dimensions, FAMILIES[name], _inverse_frequencies(file, dimensions))
    _check_tensors(file, architecture)
    return architecture


def half_split_rows(heads: int, rows: int) -> NDArray[np.int64]:
    """Row order that turns interleaved rotary pairs into Hugging Face's two halves.

    GGUF files of the llama family store, per head, row 2j and row 2j + 1 as the pair that is
    turned together (llama.cpp's convert_hf_to_gguf.py, `permute`); Hugging Face pairs row j with
    row j + head_dim / 2.

    Returns:
        int64 [rows]: `gguf_matrix[order]` is the matrix in Hugging Face's order.
    """
    return np.arange(rows).reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1)


def _read_dimensions(file: GgufFile, name: str) -> ModelDimensions:
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise MalformedError(f"{file.path}: no embedding matrix token_embd.weight; fetch the file again")
    heads = file.integer(f"{name}.attention.head_count")
    hidden = file.integer(f"{name}.embedding_length")
    if not 0 < heads <= hidden:
        raise MalformedError(f"{file.path}: {heads} attention heads for {hidden} hidden values")
    head_dim = file.integer(f"{name}.attention.key_length", hidden // heads)
    for key in (f"{name}.rope.dimension_count", f"{name}.attention.value_length"):
        if file.integer(key, head_dim) != head_dim:
            raise IncompatibleError(f"{file.path}: {key} differs from head size {head_dim}; not supported")
    context = file.integer(f"{name}.context_length")
    # Within the window a sliding-window model attends to everything before: the graphs stay exact.
    window = file.integer(f"{name}.attention.sliding_window", 0)
    return ModelDimensions(
        family=name,
        layers=file.integer(f"{name}.block_count"),
        hidden=hidden,
        ffn=file.integer(f"{name}.feed_forward_length"),
        heads=heads,
        kv_heads=file.integer(f"{name}.attention.head_count_kv", heads),
        head_dim=head_dim,
        vocabulary=embedding.shape[0],
        context=min(context, window) if window else context,
        rope_theta=file.number(f"{name}.rope.freq_base", 10000.0),
        rms_eps=file.number(f"{name}.attention.layer_norm_rms_epsilon"),
        tied_embeddings="output.weight" not in file.tensors,
    )


def _refuse_rotary_scaling(file: GgufFile, name: str) -> None:
    scaling = file.text(f"{name}.rope.scaling.type", "none")
    if scaling != "none" or file.number(f"{name}.rope.scale_linear", 1.0) != 1.0:
        raise IncompatibleError(
            f"{file.path}: rotary scaling {scaling[:20]!r} is not supported; use a model without it"
        )


def _inverse_frequencies(file: GgufFile, dimensions: ModelDimensions) -> NDArray[np.float32]:
    half = dimensions.head_dim // 2
    exponents = np.arange(0, dimensions.head_dim, 2, dtype=np.float64) / dimensions.head_dim
    frequencies = dimensions.rope_theta**-exponents
    if ROTARY_FACTORS_TENSOR in file.tensors:  # Llama 3: one divisor per frequency
        raw = file.tensor_bytes(ROTARY_FACTORS_TENSOR)
        if raw.nbytes != half * 4:
            raise MalformedError(f"{file.path}: {ROTARY_FACTORS_TENSOR} should hold {half} float32 values")
        factors = raw.view("<f4").astype(np.float64)
        if not (np.isfinite(factors).all() and (factors > 0).all()):
            raise MalformedError(f"{file.path}: {ROTARY_FACTORS_TENSOR} holds a value that is not positive")
        frequencies = frequencies / factors
    return frequencies.astype(np.float32)


def _check_tensors(file: GgufFile, architecture: Architecture) -> None:
    expected = {source.gguf_name: source for source in architecture.tensors()}
    for gguf_name, source in expected.items():
        info = file.tensors.get(gguf_name)
        if info is None:
            raise MalformedError(f"{file.path}: tensor {gguf_name} is missing; fetch the file again")
        if info.shape != source.shape:
            raise MalformedError(
                f"{file.path}: tensor {gguf_name} has shape {list(info.shape)}, the metadata ask for "
                f"{list(source.shape)}"
            )
    extra = sorted(set(file.tensors) - set(expected) - {ROTARY_FACTORS_TENSOR})
    if extra:
        kinds = sorted({re.sub(r"\d+", "N", name) for name in extra})
        raise IncompatibleError(f"{file.path}: tensors that the graphs have no place for: {', '.join(kinds[:5])[:300]}")
