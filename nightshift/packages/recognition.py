"""What can be made of a GGUF file: a package that trains, or one for llama.cpp alone, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from nightshift.packages.architecture import read_architecture
from nightshift.packages.gguf_file import GgufFile, TensorType
from nightshift.packages.gguf_types import type_name
from nightshift.packages.model_file import FLOAT_TYPES, MATRIX_TYPES
from nightshift.protocol.errors import IncompatibleError, MalformedError
from nightshift.protocol.manifest import ModelDimensions, Scheme

STATED_SCHEMES: Final = {
    0: Scheme.F32,
    1: Scheme.F16,
    2: Scheme.Q4_0,
    3: Scheme.Q4_1,
    7: Scheme.Q8_0,
    8: Scheme.Q5_0,
    9: Scheme.Q5_1,
    10: Scheme.Q2_K,
    11: Scheme.Q3_K_S,
    12: Scheme.Q3_K_M,
    13: Scheme.Q3_K_L,
    14: Scheme.Q4_K_S,
    15: Scheme.Q4_K_M,
    16: Scheme.Q5_K_S,
    17: Scheme.Q5_K_M,
    18: Scheme.Q6_K,
    32: Scheme.BF16,
}
"""`general.file_type` (llama.h, enum llama_ftype) -> what llama.cpp calls it."""

_UNIFORM = frozenset({Scheme.F32, Scheme.F16, Scheme.BF16, Scheme.Q8_0, Scheme.Q4_0})


@dataclass(frozen=True, slots=True)
class Recognised:
    """A GGUF file, looked at.

    Attributes:
        architecture: what the file calls itself.
        dimensions: its shape, as far as the file states it.
        scheme: of its matrices.
        obstacle: why no graphs, and so no training, can be made of it; "" where they can.
        is_known_family: whether the graphs know its architecture.
    """

    architecture: str
    dimensions: ModelDimensions
    scheme: Scheme
    obstacle: str
    is_known_family: bool

    @property
    def trains(self) -> bool:
        """Whether a package that trains can be made of it."""
        return not self.obstacle

    @property
    def schemes(self) -> tuple[Scheme, ...]:
        """The schemes that a package that trains could have; quantised numbers stay what they are."""
        if not self.trains:
            return ()
        return (self.scheme,) if self.scheme in (Scheme.Q8_0, Scheme.Q4_0) else tuple(MATRIX_TYPES)


def recognise(file: GgufFile) -> Recognised:
    """Look at a file's metadata and tensor types; no weight is read.

    Raises:
        MalformedError: a tensor is missing or has another shape, or the metadata contradict themselves.
    """
    name = file.text("general.architecture")
    scheme, mixed = _scheme(file)
    try:
        dimensions = read_architecture(file).dimensions
    except IncompatibleError as error:
        obstacle = str(error).removeprefix(f"{file.path}: ")
        return Recognised(name, _stated_dimensions(file, name), scheme, obstacle, is_known_family=False)
    return Recognised(name, dimensions, scheme, mixed, is_known_family=True)


def _scheme(file: GgufFile) -> tuple[Scheme, str]:
    """The scheme, and what keeps it from training ("" for nothing)."""
    stated = STATED_SCHEMES.get(file.integer("general.file_type", 1 << 16), Scheme.MIXED)
    kinds: dict[int, str] = {}
    for info in file.tensors.values():
        if len(info.shape) > 1:
            kinds.setdefault(info.type_code, info.name)
    quantised = {code: tensor for code, tensor in kinds.items() if code not in FLOAT_TYPES}
    if not quantised:
        return (stated if stated in _UNIFORM else Scheme.F16 if TensorType.F16 in kinds else Scheme.F32), ""
    if len(quantised) == 1:
        (code,) = quantised
        for scheme in (Scheme.Q8_0, Scheme.Q4_0):
            if code == MATRIX_TYPES[scheme]:
                return scheme, ""
    foreign = next((code for code in quantised if code not in MATRIX_TYPES.values()), next(iter(quantised)))
    obstacle = f"tensor {quantised[foreign]} is {type_name(foreign)}; training needs Q8_0 or Q4_0 in all matrices"
    return Scheme.MIXED if stated in _UNIFORM else stated, obstacle


def _stated_dimensions(file: GgufFile, name: str) -> ModelDimensions:
    """What an architecture without graphs states of its shape; 0 for what it does not."""
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise MalformedError(f"{file.path}: no embedding matrix token_embd.weight; fetch the file again")
    heads = _largest(file, f"{name}.attention.head_count")
    kv_heads = _largest(file, f"{name}.attention.head_count_kv") or heads
    hidden = file.integer(f"{name}.embedding_length")
    eps = file.number(f"{name}.attention.layer_norm_rms_epsilon", 0.0)
    return ModelDimensions(
        family=name,
        layers=file.integer(f"{name}.block_count"),
        hidden=hidden,
        ffn=_largest(file, f"{name}.feed_forward_length"),
        heads=heads,
        kv_heads=kv_heads if kv_heads and heads % kv_heads == 0 else 0,
        head_dim=file.integer(f"{name}.attention.key_length", hidden // heads if heads > 0 else 0),
        vocabulary=embedding.shape[0],
        context=file.integer(f"{name}.context_length"),
        rope_theta=file.number(f"{name}.rope.freq_base", 0.0),
        rms_eps=eps,
        tied_embeddings="output.weight" not in file.tensors,
    )


def _largest(file: GgufFile, key: str) -> int:
    """A number, or the largest of a list with one for each layer; 0 where the key is absent."""
    if key not in file:
        return 0
    value = file.value(key)
    if isinstance(value, list):
        return int(max(file.numbers(key), default=0))
    return file.integer(key)
