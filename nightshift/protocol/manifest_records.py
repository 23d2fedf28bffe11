"""The records that a manifest is made of: files, dimensions, quantisation, tokenizer, licence, source.

Each checks itself on construction, so a `Manifest` that exists is one that holds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from nightshift.protocol.errors import MalformedError

FILE_BYTES_MAX: Final = 1 << 40

LORA_PROJECTIONS: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The matrices of a block that can carry an adapter, in the order of the adapter's layout."""

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_TEXT_CHARACTERS_MAX = 256
_TEMPLATE_CHARACTERS_MAX = 128 * 1024
_LIST_MAX = 64


class FileRole(StrEnum):
    """What a file of the package is for; a role occurs at most once."""

    GGUF = "gguf"
    WEIGHTS = "weights"
    DECODE = "decode"
    DECODE_ADAPTER = "decode_adapter"
    EVALUATE = "evaluate"
    TRAIN = "train"
    TRAIN_RECOMPUTE = "train_recompute"
    TOKENIZER = "tokenizer"


class Uses(StrEnum):
    """What a package can be used for, which its files decide."""

    TRAINING = "training"
    LLAMA_CPP = "llama.cpp"
    ONNX_RUNTIME = "onnxruntime"

    @property
    def sentence(self) -> str:
        """For people."""
        return _USES[self][1]


_USES: Final = {
    Uses.TRAINING: (frozenset(FileRole), "it runs in llama.cpp and in ONNX Runtime, and can be trained"),
    Uses.LLAMA_CPP: (
        frozenset({FileRole.GGUF, FileRole.TOKENIZER}),
        "it is for inference through llama.cpp only; training needs Q8_0 or Q4_0 in all matrices",
    ),
    Uses.ONNX_RUNTIME: (
        frozenset({FileRole.WEIGHTS, FileRole.DECODE, FileRole.EVALUATE, FileRole.TOKENIZER}),
        "it is for inference through ONNX Runtime only",
    ),
}
"""Use -> (the roles of its files, each exactly once; a sentence)."""


def uses_of(roles: Sequence[FileRole]) -> Uses:
    """What a package with these files can be used for.

    Raises:
        MalformedError: A file is missing, or too many.
    """
    for uses, (wanted, _) in _USES.items():
        if sorted(roles) == sorted(wanted):
            return uses
    raise MalformedError(
        "manifest: expected one file for each role: "
        + "; or ".join(", ".join(role for role in FileRole if role in wanted) for wanted, _ in _USES.values())
    )


class Scheme(StrEnum):
    """How the matrices are stored; Q8_0 and Q4_0 are 32-value blocks with one float16 scale.

    The graphs are built for the first three. The others are llama.cpp's own (llama.h, enum llama_ftype).
    """

    Q8_0 = "Q8_0"
    Q4_0 = "Q4_0"
    F16 = "F16"
    F32 = "F32"
    BF16 = "BF16"
    Q4_1 = "Q4_1"
    Q5_0 = "Q5_0"
    Q5_1 = "Q5_1"
    Q2_K = "Q2_K"
    Q3_K_S = "Q3_K_S"
    Q3_K_M = "Q3_K_M"
    Q3_K_L = "Q3_K_L"
    Q4_K_S = "Q4_K_S"
    Q4_K_M = "Q4_K_M"
    Q5_K_S = "Q5_K_S"
    Q5_K_M = "Q5_K_M"
    Q6_K = "Q6_K"
    MIXED = "mixed"


GRAPH_SCHEMES: Final = (Scheme.Q8_0, Scheme.Q4_0, Scheme.F16)
"""Schemes that the graphs of a trainable package are built for."""


@dataclass(frozen=True, slots=True)
class PackageFile:
    """One file: a plain name inside the package's folder, its size and SHA-256 (hex)."""

    name: str
    role: FileRole
    size_bytes: int
    sha256: str

    def __post_init__(self) -> None:
        if not _FILE_NAME.fullmatch(self.name):
            raise MalformedError(
                f"manifest: file name {self.name[:60]!r}: expected a plain name of letters, digits, "
                "'.', '_' and '-' without any folder"
            )
        check_range("file size_bytes", self.size_bytes, 0, FILE_BYTES_MAX)
        check_sha256("file sha256", self.sha256)


@dataclass(frozen=True, slots=True)
class ModelDimensions:
    """The shape of a decoder-only transformer; sizes in elements, `context` in tokens.

    A package that is for inference only may leave out what its architecture does not have or its
    file does not state: 0 for `ffn`, `heads`, `kv_heads`, `head_dim`, `rope_theta` and `rms_eps`.
    """

    family: str
    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    context: int
    rope_theta: float
    rms_eps: float
    tied_embeddings: bool

    def __post_init__(self) -> None:
        check_text("dimensions family", self.family)
        for name, upper in DIMENSION_LIMITS.items():
            check_range(f"dimensions {name}", getattr(self, name), 0 if name in _MAY_BE_UNSTATED else 1, upper)
        if self.kv_heads and self.heads % self.kv_heads:
            raise MalformedError(f"manifest: {self.heads} heads are no multiple of {self.kv_heads} kv_heads")
        for name in ("rope_theta", "rms_eps"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise MalformedError(f"manifest: {name} must be a finite number, not negative, got {value}")

    def require_complete(self) -> None:
        """Refuse a shape of which something is unstated; the graphs are built from all of it.

        Raises:
            MalformedError: Names what is missing.
        """
        for name in _MAY_BE_UNSTATED:
            if not getattr(self, name):
                raise MalformedError(f"manifest: dimensions {name} is 0; a package that trains states it")
        if self.head_dim % 2:
            raise MalformedError(f"manifest: head_dim {self.head_dim} is odd; rotary embedding turns pairs")

    def projection_shape(self, projection: str) -> tuple[int, int]:
        """(out, in) of one of `LORA_PROJECTIONS` in every block."""
        query, key_value = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q_proj": (query, self.hidden),
            "k_proj": (key_value, self.hidden),
            "v_proj": (key_value, self.hidden),
            "o_proj": (self.hidden, query),
            "gate_proj": (self.ffn, self.hidden),
            "up_proj": (self.ffn, self.hidden),
            "down_proj": (self.hidden, self.ffn),
        }[projection]


DIMENSION_LIMITS: Final = {
    "layers": 1024,
    "hidden": 1 << 17,
    "ffn": 1 << 19,
    "heads": 1024,
    "kv_heads": 1024,
    "head_dim": 1024,
    "vocabulary": 1 << 21,
    "context": 1 << 24,
}
_MAY_BE_UNSTATED: Final = ("ffn", "heads", "kv_heads", "head_dim", "rope_theta", "rms_eps")


@dataclass(frozen=True, slots=True)
class Quantisation:
    """The scheme of the matrices and the SHA-256 (hex) of the file they were made from."""

    scheme: Scheme
    source_sha256: str

    def __post_init__(self) -> None:
        check_sha256("quantisation source_sha256", self.source_sha256)

    def require_graphs(self) -> None:
        """Refuse a scheme that graphs cannot hold.

        Raises:
            MalformedError: It is llama.cpp's own.
        """
        if self.scheme not in GRAPH_SCHEMES:
            raise MalformedError(
                f"manifest: quantisation scheme {self.scheme} cannot train; graphs hold {', '.join(GRAPH_SCHEMES)}"
            )


@dataclass(frozen=True, slots=True)
class HubSource:
    """Where a model was fetched from: a repository of a model hub, at one commit.

    Attributes:
        repository: "organisation/name".
        revision: the commit, 40 hex digits; branches and tags move, this does not.
        file: the file that was fetched; "" for a folder of several.
    """

    repository: str
    revision: str
    file: str

    def __post_init__(self) -> None:
        if not _REPOSITORY.fullmatch(self.repository):
            raise MalformedError(f"manifest: source repository {self.repository[:80]!r}: expected organisation/name")
        if not re.fullmatch(r"[0-9a-f]{40}", self.revision):
            raise MalformedError("manifest: source revision must be a commit of 40 lower-case hex digits")
        if self.file:
            check_text("source file", self.file)


@dataclass(frozen=True, slots=True)
class TokenizerRecord:
    """Hash (hex) of tokenizer.json and the special tokens; None where the model has none."""

    sha256: str
    bos: int | None
    eos: int | None
    add_bos: bool

    def __post_init__(self) -> None:
        check_sha256("tokenizer sha256", self.sha256)
        for name in ("bos", "eos"):
            value = getattr(self, name)
            if value is not None:
                check_range(f"tokenizer {name}", value, 0, DIMENSION_LIMITS["vocabulary"] - 1)
        if self.add_bos and self.bos is None:
            raise MalformedError("manifest: tokenizer add_bos is set, but there is no bos token")


@dataclass(frozen=True, slots=True)
class Licence:
    """Terms of the weights: SPDX identifier, what a user must do, what uses are allowed (empty: any)."""

    spdx: str
    obligations: tuple[str, ...] = ()
    allowed_uses: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_text("licence spdx", self.spdx)
        for name in ("obligations", "allowed_uses"):
            entries = getattr(self, name)
            if len(entries) > _LIST_MAX:
                raise MalformedError(f"manifest: licence {name}: {len(entries)} entries, at most {_LIST_MAX}")
            for entry in entries:
                check_text(f"licence {name}", entry, longest=2048)


def check_range(name: str, value: int, lower: int, upper: int) -> None:
    """Refuse a number outside [lower, upper]."""
    if not lower <= value <= upper:
        raise MalformedError(f"manifest: {name} is {value}; expected {lower} to {upper}")


def check_sha256(name: str, value: str) -> None:
    """Refuse what is not 64 lower-case hex digits."""
    if not re.fullmatch(r"[0-9a-f]{64}", value):
        raise MalformedError(f"manifest: {name} must be 64 lower-case hex digits")


def check_template(template: str) -> None:
    """Refuse a chat template that is too long or not valid Unicode."""
    if len(template) > _TEMPLATE_CHARACTERS_MAX:
        raise MalformedError(f"manifest: chat_template is longer than {_TEMPLATE_CHARACTERS_MAX} characters")
    if any("\ud800" <= character <= "\udfff" for character in template):
        raise MalformedError("manifest: chat_template holds half of a surrogate pair")


def check_text(name: str, value: str, *, longest: int = _TEXT_CHARACTERS_MAX) -> None:
    """Refuse an empty, overlong or unprintable text."""
    if not 0 < len(value) <= longest or not value.isprintable():
        raise MalformedError(f"manifest: {name} must be 1 to {longest} printable characters")
