"""From a GGUF file to a model package that trains (extra `packaging`: onnx; no torch).

1. model.gguf: the source's own tensors where they have the wanted type, else quantised (`model_file`).
2. weights.bin: read back from that model.gguf, so both runtimes hold the same numbers.
3. The graphs, tokenizer.json, and the manifest, whose hash is the package's id.

The same source gives the same bytes and so the same id. The folder appears at once and whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from nightshift.packages import steps
from nightshift.packages.architecture import Architecture, TensorSource, half_split_rows, read_architecture
from nightshift.packages.decoding import decode_step
from nightshift.packages.gguf_file import GgufFile
from nightshift.packages.graph import GraphBuilder
from nightshift.packages.lowering import ACCURACY_FLOAT32, ACCURACY_INT8, to_onnx
from nightshift.packages.model_file import FLOAT_TYPES, write_model
from nightshift.packages.package import MANIFEST_NAME, ModelPackage, file_sha256
from nightshift.packages.package_folder import FILE_NAMES, describe_files, new_folder
from nightshift.packages.quantised import float_values, from_blocks
from nightshift.packages.terms import licence_named, openness_of_weights
from nightshift.packages.vocabulary import Vocabulary, read_vocabulary, tokenizer_json
from nightshift.packages.weights_file import WeightsFile
from nightshift.protocol.errors import UsageError
from nightshift.protocol.manifest import (
    LORA_PROJECTIONS,
    FileRole,
    HubSource,
    Licence,
    Manifest,
    Quantisation,
    Scheme,
    TokenizerRecord,
)
from nightshift.protocol.manifest_records import GRAPH_SCHEMES
from nightshift.protocol.openness import OpennessRecord

Progress = Callable[[str], None]


def build_package(
    source: Path,
    destination: Path,
    *,
    quantisation: str = "Q8_0",
    lora_targets: Sequence[str] = LORA_PROJECTIONS,
    licence: Licence | None = None,
    openness: OpennessRecord | None = None,
    origin: HubSource | None = None,
    source_sha256: str | None = None,
    progress: Progress | None = None,
) -> ModelPackage:
    """Build a package from a GGUF file.

    Args:
        source: F32, F16, BF16, or a file whose matrices already have the wanted type.
        destination: Folder to create; it must not exist, or be empty.
        quantisation: Q8_0, Q4_0 or F16.
        lora_targets: Projections that can carry an adapter.
        licence: Terms of the weights; by default what the file itself states.
        openness: What is open; by default only the weights, if their licence is known.
        origin: Where the source was fetched.
        source_sha256: Hex, of what the source was made from; by default of the source.
        progress: Told in a few words what is being done.

    Raises:
        UsageError: An unknown scheme or target, or the destination is taken.
        MalformedError: The source is damaged.
        IncompatibleError: The source holds something that packages cannot express.
    """
    if quantisation not in GRAPH_SCHEMES:
        raise UsageError(f"quantisation {quantisation!r}: expected one of {', '.join(GRAPH_SCHEMES)}")
    targets = tuple(name for name in LORA_PROJECTIONS if name in lora_targets)
    if not targets or len(targets) != len(lora_targets):
        raise UsageError(f"lora_targets must be some of {', '.join(LORA_PROJECTIONS)}")
    with new_folder(destination) as workplace:
        build = _Build(workplace, Scheme(quantisation), targets, progress or (lambda _: None))
        build.run(source, source_sha256 or file_sha256(source), licence, openness, origin)
    return ModelPackage.open(destination, verify=False)


class _Build:
    """One build, in a folder of its own."""

    def __init__(self, directory: Path, scheme: Scheme, lora_targets: tuple[str, ...], progress: Progress) -> None:
        self.directory = directory
        self.scheme = scheme
        self.lora_targets = lora_targets
        self.progress = progress

    def path(self, role: FileRole) -> Path:
        return self.directory / FILE_NAMES[role]

    def run(
        self,
        source: Path,
        source_sha256: str,
        licence: Licence | None,
        openness: OpennessRecord | None,
        origin: HubSource | None,
    ) -> None:
        self.progress(f"reading {source.name}")
        with GgufFile.open(source) as file:
            architecture = read_architecture(file)
            vocabulary = read_vocabulary(file, architecture.dimensions.vocabulary)
            self.path(FileRole.TOKENIZER).write_bytes(tokenizer_json(file, vocabulary))
            self.progress(f"writing {FILE_NAMES[FileRole.GGUF]} ({self.scheme})")
            write_model(file, self.path(FileRole.GGUF), self.scheme)
        with GgufFile.open(self.path(FileRole.GGUF)) as file:
            self.progress(f"writing {FILE_NAMES[FileRole.WEIGHTS]}")
            weights = write_weights(file, architecture, self.path(FileRole.WEIGHTS))
            self._write_graphs(architecture, weights)
            manifest = self._manifest(
                file,
                architecture,
                vocabulary,
                source_sha256=source_sha256,
                licence=licence or licence_named(file.text("general.license", "")),
                openness=openness,
                origin=origin,
            )
        (self.directory / MANIFEST_NAME).write_bytes(manifest.to_bytes())

    def _write_graphs(self, architecture: Architecture, weights: WeightsFile) -> None:
        targets = self.lora_targets
        plans: list[tuple[FileRole, int, Callable[[], GraphBuilder]]] = [
            (FileRole.DECODE, ACCURACY_INT8, lambda: decode_step(architecture, ())),
            (FileRole.DECODE_ADAPTER, ACCURACY_INT8, lambda: decode_step(architecture, targets)),
            (FileRole.EVALUATE, ACCURACY_FLOAT32, lambda: steps.evaluate_step(architecture, targets)),
            (
                FileRole.TRAIN,
                ACCURACY_FLOAT32,
                lambda: steps.train_step(architecture, targets, recompute=False),
            ),
            (
                FileRole.TRAIN_RECOMPUTE,
                ACCURACY_FLOAT32,
                lambda: steps.train_step(architecture, targets, recompute=True),
            ),
        ]
        for role, accuracy, make in plans:
            self.progress(f"writing {FILE_NAMES[role]}")
            self.path(role).write_bytes(to_onnx(make(), weights, accuracy=accuracy))

    def _manifest(
        self,
        file: GgufFile,
        architecture: Architecture,
        vocabulary: Vocabulary,
        *,
        source_sha256: str,
        licence: Licence,
        openness: OpennessRecord | None,
        origin: HubSource | None,
    ) -> Manifest:
        files = describe_files(self.directory, FILE_NAMES)
        tokenizer = next(entry for entry in files if entry.role is FileRole.TOKENIZER)
        return Manifest(
            name=file.text("general.name", architecture.dimensions.family),
            dimensions=architecture.dimensions,
            quantisation=Quantisation(self.scheme, source_sha256),
            source=origin,
            tokenizer=TokenizerRecord(tokenizer.sha256, vocabulary.bos, vocabulary.eos, vocabulary.add_bos),
            chat_template=file.text("tokenizer.chat_template", "") or None,
            licence=licence,
            openness=openness or openness_of_weights(licence),
            lora_targets=self.lora_targets,
            files=files,
        )


def write_weights(model: GgufFile, architecture: Architecture, destination: Path) -> WeightsFile:
    """Write weights.bin from the tensors of model.gguf, rows in Hugging Face's order."""
    with WeightsFile(destination) as weights:
        for source in architecture.tensors():
            info = model.tensors[source.gguf_name]
            assert info.type is not None
            raw = model.tensor_bytes(source.gguf_name)
            if source.interleaved_heads:
                order = half_split_rows(source.interleaved_heads, source.shape[0])
                raw = raw.reshape(source.shape[0], -1)[order].reshape(-1)
            if not source.is_matrix:
                weights.add_vector(source.name, float_values(raw, source.shape, info.type))
            elif info.type in FLOAT_TYPES:
                matrix = float_values(raw, source.shape, info.type)
                weights.add_float(source.name, matrix, transposed=not _rows_are_read(source))
            else:
                weights.add_quantised(source.name, from_blocks(raw, source.shape[:2], info.type))  # type: ignore[arg-type] # is_matrix: two axes
    return weights


def _rows_are_read(source: TensorSource) -> bool:
    return source.name in ("embed_tokens", "lm_head")
