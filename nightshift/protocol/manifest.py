"""The manifest of a model package: what it is, file by file, and under which terms.

A package is a folder; its id is the SHA-256 of the exact bytes of its `manifest.json`, which is
canonical JSON (UTF-8, keys sorted, no spaces). Whoever knows the id can therefore check the
manifest, and with it every file, no matter where the bytes came from.

`Manifest.from_bytes` reads what a stranger may have written: it bounds the size before parsing,
wants exactly the known keys, and refuses bytes that are not the canonical form of what they say
(two byte strings for one meaning would be two ids for one package).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Final, NewType, TypeVar, cast

from nightshift.protocol.errors import MalformedError
from nightshift.protocol.openness import OpennessRecord

PackageId = NewType("PackageId", bytes)
"""SHA-256 (32 bytes) of the bytes of manifest.json."""

FORMAT_VERSION: Final = 1
MANIFEST_BYTES_MAX: Final = 1 << 20
FILE_BYTES_MAX: Final = 1 << 40
FILES_MAX: Final = 32

LORA_PROJECTIONS: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The matrices of a block that can carry an adapter, in the order of the adapter's layout."""

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_TEXT_CHARACTERS_MAX = 256
_TEMPLATE_CHARACTERS_MAX = 128 * 1024
_LIST_MAX = 64

JsonObject = dict[str, object]
_Scalar = TypeVar("_Scalar", str, int, float, bool)


class FileRole(StrEnum):
    """What a file of the package is for; each role occurs exactly once."""

    GGUF = "gguf"
    WEIGHTS = "weights"
    DECODE = "decode"
    EVALUATE = "evaluate"
    TRAIN = "train"
    TRAIN_RECOMPUTE = "train_recompute"
    TOKENIZER = "tokenizer"


class Scheme(StrEnum):
    """How the matrices are stored; Q8_0 and Q4_0 are 32-value blocks with one float16 scale."""

    Q8_0 = "Q8_0"
    Q4_0 = "Q4_0"
    F16 = "F16"


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
        _check_range("file size_bytes", self.size_bytes, 0, FILE_BYTES_MAX)
        _check_sha256("file sha256", self.sha256)


@dataclass(frozen=True, slots=True)
class ModelDimensions:
    """The shape of a decoder-only transformer; sizes in elements, `context` in tokens."""

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
        _check_text("dimensions family", self.family)
        for name, upper in _DIMENSION_LIMITS.items():
            _check_range(f"dimensions {name}", getattr(self, name), 1, upper)
        if self.heads % self.kv_heads:
            raise MalformedError(f"manifest: {self.heads} heads are no multiple of {self.kv_heads} kv_heads")
        if self.head_dim % 2:
            raise MalformedError(f"manifest: head_dim {self.head_dim} is odd; rotary embedding turns pairs")
        for name in ("rope_theta", "rms_eps"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise MalformedError(f"manifest: {name} must be a positive finite number, got {value}")

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


_DIMENSION_LIMITS: Final = {
    "layers": 1024,
    "hidden": 1 << 17,
    "ffn": 1 << 19,
    "heads": 1024,
    "kv_heads": 1024,
    "head_dim": 1024,
    "vocabulary": 1 << 21,
    "context": 1 << 24,
}


@dataclass(frozen=True, slots=True)
class Quantisation:
    """The scheme of the matrices and the SHA-256 (hex) of the file they were made from."""

    scheme: Scheme
    source_sha256: str

    def __post_init__(self) -> None:
        _check_sha256("quantisation source_sha256", self.source_sha256)


@dataclass(frozen=True, slots=True)
class TokenizerRecord:
    """Hash (hex) of tokenizer.json and the special tokens; None where the model has none."""

    sha256: str
    bos: int | None
    eos: int | None
    add_bos: bool

    def __post_init__(self) -> None:
        _check_sha256("tokenizer sha256", self.sha256)
        for name in ("bos", "eos"):
            value = getattr(self, name)
            if value is not None:
                _check_range(f"tokenizer {name}", value, 0, _DIMENSION_LIMITS["vocabulary"] - 1)
        if self.add_bos and self.bos is None:
            raise MalformedError("manifest: tokenizer add_bos is set, but there is no bos token")


@dataclass(frozen=True, slots=True)
class Licence:
    """Terms of the weights: SPDX identifier, what a user must do, what uses are allowed (empty: any)."""

    spdx: str
    obligations: tuple[str, ...] = ()
    allowed_uses: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_text("licence spdx", self.spdx)
        for name in ("obligations", "allowed_uses"):
            entries = getattr(self, name)
            if len(entries) > _LIST_MAX:
                raise MalformedError(f"manifest: licence {name}: {len(entries)} entries, at most {_LIST_MAX}")
            for entry in entries:
                _check_text(f"licence {name}", entry, longest=2048)


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything a device needs to know of a package before it reads any other file of it.

    Raises:
        MalformedError: A role is missing or doubled, or a value contradicts another.
    """

    name: str
    dimensions: ModelDimensions
    quantisation: Quantisation
    tokenizer: TokenizerRecord
    chat_template: str | None
    licence: Licence
    openness: OpennessRecord
    lora_targets: tuple[str, ...]
    files: tuple[PackageFile, ...]

    def __post_init__(self) -> None:
        _check_text("name", self.name)
        if self.chat_template is not None:
            _check_template(self.chat_template)
        if not self.lora_targets or list(self.lora_targets) != [
            projection for projection in LORA_PROJECTIONS if projection in self.lora_targets
        ]:
            raise MalformedError(
                f"manifest: lora_targets must be some of {', '.join(LORA_PROJECTIONS)}, in this order, "
                f"got {', '.join(self.lora_targets)[:200]}"
            )
        if sorted(file.role for file in self.files) != sorted(FileRole):
            raise MalformedError(f"manifest: expected one file for each role: {', '.join(FileRole)}")
        if len({file.name.lower() for file in self.files} | {"manifest.json"}) != len(self.files) + 1:
            raise MalformedError("manifest: two files share a name, or one is called manifest.json")
        if self.tokenizer.sha256 != self.file(FileRole.TOKENIZER).sha256:
            raise MalformedError("manifest: the tokenizer's hash differs from the hash of its file")
        for token in (self.tokenizer.bos, self.tokenizer.eos):
            if token is not None and token >= self.dimensions.vocabulary:
                raise MalformedError(f"manifest: special token {token} is outside the vocabulary")

    def file(self, role: FileRole | str) -> PackageFile:
        """The file with this role."""
        return next(file for file in self.files if file.role == role)

    def lora_shapes(self) -> dict[str, tuple[str | int, ...]]:
        """Adapter tensor name -> shape with 'r' for the rank, in the order of the layout.

        `layers.{i}.{projection}.lora_a` is [r, in] and `.lora_b` [out, r] (PEFT's orientation).
        """
        shapes: dict[str, tuple[str | int, ...]] = {}
        for layer in range(self.dimensions.layers):
            for projection in self.lora_targets:
                rows, columns = self.dimensions.projection_shape(projection)
                shapes[f"layers.{layer}.{projection}.lora_a"] = ("r", columns)
                shapes[f"layers.{layer}.{projection}.lora_b"] = (rows, "r")
        return shapes

    def to_bytes(self) -> bytes:
        """Canonical JSON: the bytes whose SHA-256 is the package id."""
        document = {
            "format": FORMAT_VERSION,
            "name": self.name,
            "dimensions": asdict(self.dimensions),
            "quantisation": asdict(self.quantisation),
            "tokenizer": asdict(self.tokenizer),
            "chat_template": self.chat_template,
            "licence": asdict(self.licence),
            "openness": self.openness.to_json(),
            "lora_targets": self.lora_targets,
            "files": [asdict(file) for file in sorted(self.files, key=lambda file: file.name)],
        }
        return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()

    @classmethod
    def from_bytes(cls, encoded: bytes) -> Manifest:
        """Read a manifest that anyone may have written.

        Raises:
            MalformedError: Too large, not canonical JSON, an unknown or missing key, or a bad value.
        """
        if len(encoded) > MANIFEST_BYTES_MAX:
            raise MalformedError(f"manifest: {len(encoded)} bytes, at most {MANIFEST_BYTES_MAX} are read")
        try:
            document = json.loads(encoded.decode("utf-8"))
        except (UnicodeDecodeError, ValueError, RecursionError) as error:
            raise MalformedError(f"manifest: not UTF-8 JSON: {str(error)[:120]}") from None
        manifest = _decode_manifest(document)
        if manifest.to_bytes() != encoded:
            raise MalformedError("manifest: not in canonical form (sorted keys, no spaces, files by name)")
        return manifest


def package_id(manifest_bytes: bytes) -> PackageId:
    """SHA-256 of the manifest's bytes, 32 bytes."""
    return PackageId(hashlib.sha256(manifest_bytes).digest())


def _decode_manifest(value: object) -> Manifest:
    top = _object(
        value,
        "manifest",
        ("format", *Manifest.__dataclass_fields__),
    )
    if top["format"] != FORMAT_VERSION or isinstance(top["format"], bool):
        raise MalformedError(
            f"manifest: format {str(top['format'])[:20]}, but this build reads {FORMAT_VERSION}; update Nightshift"
        )
    files = top["files"]
    if not isinstance(files, list) or len(files) > FILES_MAX:
        raise MalformedError(f"manifest: files must be a list of at most {FILES_MAX}")
    template = top["chat_template"]
    return Manifest(
        name=_typed(top["name"], str, "name"),
        dimensions=_decode_dimensions(top["dimensions"]),
        quantisation=_decode_quantisation(top["quantisation"]),
        tokenizer=_decode_tokenizer(top["tokenizer"]),
        chat_template=None if template is None else _typed(template, str, "chat_template"),
        licence=_decode_licence(top["licence"]),
        openness=OpennessRecord.from_json(top["openness"]),
        lora_targets=_texts(top["lora_targets"], "lora_targets"),
        files=tuple(_decode_file(entry) for entry in files),
    )


def _decode_dimensions(value: object) -> ModelDimensions:
    entry = _object(value, "dimensions", tuple(ModelDimensions.__dataclass_fields__))
    whole = {name: _typed(entry[name], int, f"dimensions {name}") for name in _DIMENSION_LIMITS}
    return ModelDimensions(
        family=_typed(entry["family"], str, "dimensions family"),
        rope_theta=_typed(entry["rope_theta"], float, "dimensions rope_theta"),
        rms_eps=_typed(entry["rms_eps"], float, "dimensions rms_eps"),
        tied_embeddings=_typed(entry["tied_embeddings"], bool, "dimensions tied_embeddings"),
        **whole,
    )


def _decode_quantisation(value: object) -> Quantisation:
    entry = _object(value, "quantisation", ("scheme", "source_sha256"))
    scheme = _typed(entry["scheme"], str, "quantisation scheme")
    if scheme not in Scheme.__members__.values():
        raise MalformedError(f"manifest: quantisation scheme {scheme[:20]!r}; expected {', '.join(Scheme)}")
    return Quantisation(Scheme(scheme), _typed(entry["source_sha256"], str, "quantisation source_sha256"))


def _decode_tokenizer(value: object) -> TokenizerRecord:
    entry = _object(value, "tokenizer", ("sha256", "bos", "eos", "add_bos"))
    bos, eos = entry["bos"], entry["eos"]
    return TokenizerRecord(
        sha256=_typed(entry["sha256"], str, "tokenizer sha256"),
        bos=None if bos is None else _typed(bos, int, "tokenizer bos"),
        eos=None if eos is None else _typed(eos, int, "tokenizer eos"),
        add_bos=_typed(entry["add_bos"], bool, "tokenizer add_bos"),
    )


def _decode_licence(value: object) -> Licence:
    entry = _object(value, "licence", ("spdx", "obligations", "allowed_uses"))
    return Licence(
        spdx=_typed(entry["spdx"], str, "licence spdx"),
        obligations=_texts(entry["obligations"], "licence obligations"),
        allowed_uses=_texts(entry["allowed_uses"], "licence allowed_uses"),
    )


def _decode_file(value: object) -> PackageFile:
    entry = _object(value, "file", ("name", "role", "size_bytes", "sha256"))
    role = _typed(entry["role"], str, "file role")
    if role not in FileRole.__members__.values():
        raise MalformedError(f"manifest: file role {role[:30]!r}; expected one of {', '.join(FileRole)}")
    return PackageFile(
        name=_typed(entry["name"], str, "file name"),
        role=FileRole(role),
        size_bytes=_typed(entry["size_bytes"], int, "file size_bytes"),
        sha256=_typed(entry["sha256"], str, "file sha256"),
    )


def _object(value: object, name: str, keys: tuple[str, ...]) -> JsonObject:
    if not isinstance(value, dict):
        raise MalformedError(f"manifest: {name} must be an object")
    entry = cast("JsonObject", value)
    if set(entry) != set(keys):
        odd = sorted(set(entry).symmetric_difference(keys))[:5]
        raise MalformedError(f"manifest: {name}: missing or unknown keys {', '.join(odd)[:200]}")
    return entry


def _typed(value: object, kind: type[_Scalar], name: str) -> _Scalar:
    # bool is a subclass of int in Python, but not the same thing in JSON.
    if type(value) is not kind:
        raise MalformedError(f"manifest: {name} must be of type {kind.__name__}")
    return value


def _texts(value: object, name: str) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > _LIST_MAX:
        raise MalformedError(f"manifest: {name} must be a list of at most {_LIST_MAX} texts")
    return tuple(_typed(entry, str, name) for entry in value)


def _check_range(name: str, value: int, lower: int, upper: int) -> None:
    if not lower <= value <= upper:
        raise MalformedError(f"manifest: {name} is {value}; expected {lower} to {upper}")


def _check_sha256(name: str, value: str) -> None:
    if not re.fullmatch(r"[0-9a-f]{64}", value):
        raise MalformedError(f"manifest: {name} must be 64 lower-case hex digits")


def _check_template(template: str) -> None:
    if len(template) > _TEMPLATE_CHARACTERS_MAX:
        raise MalformedError(f"manifest: chat_template is longer than {_TEMPLATE_CHARACTERS_MAX} characters")
    if any("\ud800" <= character <= "\udfff" for character in template):
        raise MalformedError("manifest: chat_template holds half of a surrogate pair")


def _check_text(name: str, value: str, *, longest: int = _TEXT_CHARACTERS_MAX) -> None:
    if not 0 < len(value) <= longest or not value.isprintable():
        raise MalformedError(f"manifest: {name} must be 1 to {longest} printable characters")
