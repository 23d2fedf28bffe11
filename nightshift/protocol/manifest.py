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
from dataclasses import asdict, dataclass
from typing import Final, NewType, TypeVar, cast

from nightshift.protocol.errors import IncompatibleError, MalformedError
from nightshift.protocol.manifest_records import (
    DIMENSION_LIMITS,
    LORA_PROJECTIONS,
    FileRole,
    HubSource,
    Licence,
    ModelDimensions,
    PackageFile,
    Quantisation,
    Scheme,
    TokenizerRecord,
    Uses,
    check_template,
    check_text,
    uses_of,
)
from nightshift.protocol.openness import OpennessRecord

__all__ = [
    "LORA_PROJECTIONS",
    "FileRole",
    "HubSource",
    "Licence",
    "Manifest",
    "ModelDimensions",
    "PackageFile",
    "PackageId",
    "Quantisation",
    "Scheme",
    "TokenizerRecord",
    "Uses",
    "package_id",
]

PackageId = NewType("PackageId", bytes)
"""SHA-256 (32 bytes) of the bytes of manifest.json."""

FORMAT_VERSION: Final = 1
MANIFEST_BYTES_MAX: Final = 1 << 20
FILES_MAX: Final = 32
_LIST_MAX = 64

JsonObject = dict[str, object]
_Scalar = TypeVar("_Scalar", str, int, float, bool)


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything a device needs to know of a package before it reads any other file of it.

    Which files there are decides what the package is for (`Uses`).

    Raises:
        MalformedError: A role is missing or doubled, or a value contradicts another.
    """

    name: str
    dimensions: ModelDimensions
    quantisation: Quantisation
    source: HubSource | None
    tokenizer: TokenizerRecord
    chat_template: str | None
    licence: Licence
    openness: OpennessRecord
    lora_targets: tuple[str, ...]
    files: tuple[PackageFile, ...]

    def __post_init__(self) -> None:
        check_text("name", self.name)
        if self.chat_template is not None:
            check_template(self.chat_template)
        if list(self.lora_targets) != [name for name in LORA_PROJECTIONS if name in self.lora_targets]:
            raise MalformedError(
                f"manifest: lora_targets must be some of {', '.join(LORA_PROJECTIONS)}, in this order, "
                f"got {', '.join(self.lora_targets)[:200]}"
            )
        uses = self.uses
        trains = uses is Uses.TRAINING
        if trains != bool(self.lora_targets):
            raise MalformedError("manifest: lora_targets are for packages with train graphs, and those need some")
        if trains:
            self.dimensions.require_complete()
            self.quantisation.require_graphs()
        if uses is Uses.ONNX_RUNTIME and not (self.dimensions.kv_heads and self.dimensions.head_dim):
            raise MalformedError("manifest: kv_heads or head_dim is 0; they shape the cache of the decode graph")
        if len({file.name.lower() for file in self.files} | {"manifest.json"}) != len(self.files) + 1:
            raise MalformedError("manifest: two files share a name, or one is called manifest.json")
        if self.tokenizer.sha256 != self.file(FileRole.TOKENIZER).sha256:
            raise MalformedError("manifest: the tokenizer's hash differs from the hash of its file")
        for token in (self.tokenizer.bos, self.tokenizer.eos):
            if token is not None and token >= self.dimensions.vocabulary:
                raise MalformedError(f"manifest: special token {token} is outside the vocabulary")

    def file(self, role: FileRole | str) -> PackageFile:
        """The file with this role.

        Raises:
            IncompatibleError: The package has none.
        """
        for file in self.files:
            if file.role == role:
                return file
        raise IncompatibleError(f"model {self.name} has no {role} file: {self.uses.sentence}")

    @property
    def uses(self) -> Uses:
        """What the package can be used for."""
        return uses_of([file.role for file in self.files])

    def require_training(self) -> None:
        """Refuse a package that is for inference only.

        Raises:
            IncompatibleError: It is.
        """
        if self.uses is not Uses.TRAINING:
            raise IncompatibleError(f"model {self.name} cannot be trained: {self.uses.sentence}")

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
            "source": None if self.source is None else asdict(self.source),
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
        source=None if top["source"] is None else _decode_source(top["source"]),
        tokenizer=_decode_tokenizer(top["tokenizer"]),
        chat_template=None if template is None else _typed(template, str, "chat_template"),
        licence=_decode_licence(top["licence"]),
        openness=OpennessRecord.from_json(top["openness"]),
        lora_targets=_texts(top["lora_targets"], "lora_targets"),
        files=tuple(_decode_file(entry) for entry in files),
    )


def _decode_dimensions(value: object) -> ModelDimensions:
    entry = _object(value, "dimensions", tuple(ModelDimensions.__dataclass_fields__))
    whole = {name: _typed(entry[name], int, f"dimensions {name}") for name in DIMENSION_LIMITS}
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


def _decode_source(value: object) -> HubSource:
    entry = _object(value, "source", tuple(HubSource.__dataclass_fields__))
    return HubSource(**{name: _typed(entry[name], str, f"source {name}") for name in entry})


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
