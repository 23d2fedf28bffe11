"""From a GGUF file to a model package (extra `packaging`: numpy, onnx, gguf, tokenizers; no torch).

1. model.gguf: the source's own tensors where they have the wanted type, else quantised as
   llama.cpp would; rows that are no multiple of 32 stay float16, as llama-quantize leaves them.
2. weights.bin: read back from that model.gguf, so both runtimes hold the same numbers.
3. The four graphs, tokenizer.json, and the manifest, whose hash is the package's id.

The same source gives the same bytes and so the same id. The folder appears at once and whole.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import gguf
import numpy as np
from numpy.typing import NDArray

from nightshift.packages import gguf_writer, steps
from nightshift.packages.architecture import Architecture, TensorSource, half_split_rows, read_architecture
from nightshift.packages.gguf_file import GgufFile, TensorInfo, TensorType
from nightshift.packages.graph import GraphBuilder
from nightshift.packages.lowering import ACCURACY_FLOAT32, ACCURACY_INT8, to_onnx
from nightshift.packages.package import MANIFEST_NAME, ModelPackage, file_sha256
from nightshift.packages.quantised import float_values, from_blocks
from nightshift.packages.vocabulary import Vocabulary, read_vocabulary, tokenizer_json
from nightshift.packages.weights_file import WeightsFile
from nightshift.protocol.errors import IncompatibleError, MalformedError, UsageError
from nightshift.protocol.manifest import (
    LORA_PROJECTIONS,
    FileRole,
    Licence,
    Manifest,
    PackageFile,
    Quantisation,
    Scheme,
    TokenizerRecord,
)
from nightshift.protocol.openness import (
    FREE_LICENCES,
    NOTHING_STATED,
    Component,
    ComponentRecord,
    Openness,
    OpennessRecord,
)

Progress = Callable[[str], None]

FILE_NAMES: Final = {
    FileRole.GGUF: "model.gguf",
    FileRole.WEIGHTS: "weights.bin",
    FileRole.DECODE: "decode.onnx",
    FileRole.EVALUATE: "evaluate.onnx",
    FileRole.TRAIN: "train.onnx",
    FileRole.TRAIN_RECOMPUTE: "train-recompute.onnx",
    FileRole.TOKENIZER: "tokenizer.json",
}

_FLOAT_TYPES = frozenset({TensorType.F32, TensorType.F16, TensorType.BF16})
_MATRIX_TYPES: Final = {
    Scheme.Q8_0: TensorType.Q8_0,
    Scheme.Q4_0: TensorType.Q4_0,
    Scheme.F16: TensorType.F16,
}
_FILE_TYPES: Final = {Scheme.F16: 1, Scheme.Q4_0: 2, Scheme.Q8_0: 7}  # llama.h, enum llama_ftype
_REPLACED_KEYS = frozenset({"general.file_type", "general.quantization_version", "general.alignment"})
_QUANTISATION_VERSION = 2  # ggml.h, GGML_QNT_VERSION


def build_package(
    source: Path,
    destination: Path,
    *,
    quantisation: str = "Q8_0",
    lora_targets: Sequence[str] = LORA_PROJECTIONS,
    licence: Licence | None = None,
    openness: OpennessRecord | None = None,
    progress: Progress | None = None,
) -> ModelPackage:
    """Build a package from a GGUF file.

    Args:
        source: F32, F16, BF16, or a file whose matrices already have the wanted type.
        destination: Folder to create; it must not exist, or be empty.
        quantisation: Q8_0, Q4_0 or F16.
        lora_targets: Projections that can carry an adapter.
        licence: Terms of the weights; by default what the file itself states.
        openness: What is open; by default only the weights, if their licence is a free one.
        progress: Told in a few words what is being done.

    Raises:
        UsageError: An unknown scheme or target, or the destination is taken.
        MalformedError: The source is damaged.
        IncompatibleError: The source holds something that packages cannot express.
    """
    if quantisation not in Scheme.__members__.values():
        raise UsageError(f"quantisation {quantisation!r}: expected one of {', '.join(Scheme)}")
    targets = tuple(name for name in LORA_PROJECTIONS if name in lora_targets)
    if not targets or len(targets) != len(lora_targets):
        raise UsageError(f"lora_targets must be some of {', '.join(LORA_PROJECTIONS)}")
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise UsageError(f"{destination}: is there already; name a new folder")
    destination.parent.mkdir(parents=True, exist_ok=True)
    workplace = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", dir=destination.parent))
    try:
        workplace.chmod(0o755)
        build = _Build(workplace, Scheme(quantisation), targets, progress or (lambda _: None))
        build.run(source, licence, openness)
        if destination.exists():
            destination.rmdir()
        workplace.rename(destination)
    except BaseException:
        shutil.rmtree(workplace, ignore_errors=True)
        raise
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

    def run(self, source: Path, licence: Licence | None, openness: OpennessRecord | None) -> None:
        self.progress(f"reading {source.name}")
        source_sha256 = file_sha256(source)
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
                file, architecture, vocabulary, source_sha256=source_sha256, licence=licence, openness=openness
            )
        (self.directory / MANIFEST_NAME).write_bytes(manifest.to_bytes())

    def _write_graphs(self, architecture: Architecture, weights: WeightsFile) -> None:
        targets = self.lora_targets
        plans: list[tuple[FileRole, int, Callable[[], GraphBuilder]]] = [
            (FileRole.DECODE, ACCURACY_INT8, lambda: steps.decode_step(architecture, targets)),
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
        licence: Licence | None,
        openness: OpennessRecord | None,
    ) -> Manifest:
        licence = licence or stated_licence(file)
        files = [
            PackageFile(name, role, self.path(role).stat().st_size, file_sha256(self.path(role)))
            for role, name in FILE_NAMES.items()
        ]
        tokenizer = next(entry for entry in files if entry.role is FileRole.TOKENIZER)
        return Manifest(
            name=file.text("general.name", architecture.dimensions.family),
            dimensions=architecture.dimensions,
            quantisation=Quantisation(self.scheme, source_sha256),
            tokenizer=TokenizerRecord(tokenizer.sha256, vocabulary.bos, vocabulary.eos, vocabulary.add_bos),
            chat_template=file.text("tokenizer.chat_template", "") or None,
            licence=licence,
            openness=openness or _openness_of_weights(licence),
            lora_targets=self.lora_targets,
            files=tuple(files),
        )


def write_model(source: GgufFile, destination: Path, scheme: Scheme) -> None:
    """Write model.gguf: the source's metadata, its matrices in the wanted scheme, vectors float32.

    Raises:
        IncompatibleError: A matrix is quantised in another scheme already.
        MalformedError: A weight is infinite or not a number.
    """
    entries = [source.raw_entry(key) for key in source.keys() if key not in _REPLACED_KEYS]  # noqa: SIM118 - no dict
    entries.append(gguf_writer.entry("general.file_type", _FILE_TYPES[scheme]))
    if scheme is not Scheme.F16:
        entries.append(gguf_writer.entry("general.quantization_version", _QUANTISATION_VERSION))
    plans = [
        gguf_writer.TensorPlan(info.name, info.shape, _stored_type(info, scheme)) for info in source.tensors.values()
    ]
    with gguf_writer.GgufWriter(destination, entries, plans) as writer:
        for plan in plans:
            writer.write(plan.name, _converted(source, plan))


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
            elif info.type in _FLOAT_TYPES:
                matrix = float_values(raw, source.shape, info.type)
                weights.add_float(source.name, matrix, transposed=not _rows_are_read(source))
            else:
                weights.add_quantised(source.name, from_blocks(raw, source.shape[:2], info.type))  # type: ignore[arg-type] # is_matrix: two axes
    return weights


def stated_licence(file: GgufFile) -> Licence:
    """What the file says of its licence, as SPDX; NOASSERTION where it says nothing known."""
    stated = file.text("general.license", "").lower()
    by_lower_case = {spdx.lower(): spdx for spdx in FREE_LICENCES}
    spdx = by_lower_case.get(stated, "NOASSERTION")
    keeps_notice = spdx not in ("NOASSERTION", "CC0-1.0", "MIT-0", "0BSD", "Unlicense")
    return Licence(spdx, ("Keep the copyright notice and the licence text.",) if keeps_notice else ())


def _openness_of_weights(licence: Licence) -> OpennessRecord:
    if licence.spdx not in FREE_LICENCES:
        return NOTHING_STATED
    return OpennessRecord({Component.WEIGHTS: ComponentRecord(Openness.OPEN, licence.spdx)})


def _rows_are_read(source: TensorSource) -> bool:
    return source.name in ("embed_tokens", "lm_head")


def _stored_type(info: TensorInfo, scheme: Scheme) -> TensorType:
    if len(info.shape) != 2:
        return TensorType.F32
    wanted = _MATRIX_TYPES[scheme]
    return TensorType.F16 if info.shape[-1] % wanted.block[0] else wanted


def _converted(source: GgufFile, plan: gguf_writer.TensorPlan) -> NDArray[np.uint8]:
    kind = source.tensors[plan.name].type
    raw = source.tensor_bytes(plan.name)  # raises for a type that is not read
    assert kind is not None
    if kind not in _FLOAT_TYPES:
        if kind is plan.type:
            return raw
        raise IncompatibleError(
            f"{source.path}: tensor {plan.name} is {kind.name}, the package wants {plan.type.name}; "
            f"build from a float file, or with quantisation={kind.name}"
        )
    values = float_values(raw, plan.shape, kind)
    if not np.isfinite(values).all():
        raise MalformedError(f"{source.path}: tensor {plan.name} holds infinite or undefined weights")
    if plan.type is TensorType.F32:
        return values.view(np.uint8)
    quantised = gguf.quants.quantize(values, gguf.GGMLQuantizationType(plan.type))
    if plan.type is TensorType.F16 and not np.isfinite(quantised).all():
        raise IncompatibleError(f"{source.path}: tensor {plan.name} exceeds the range of float16")
    encoded: NDArray[np.uint8] = np.ascontiguousarray(quantised).view(np.uint8)
    return encoded
