"""From a Hugging Face folder (config.json, safetensors, tokenizer.json) to a package, with numpy alone.

The weights become a GGUF file in their own types, bit for bit (bfloat16 stays bfloat16; vectors widen to float32,
exactly), and that file goes the way of any other. llama.cpp's convert_hf_to_gguf.py is the model.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nightshift.packages import importing
from nightshift.packages.architecture import FAMILIES, ROTARY_FACTORS_TENSOR, Architecture, TensorSource
from nightshift.packages.gguf_header import model_entries
from nightshift.packages.gguf_types import TensorType
from nightshift.packages.gguf_writer import GgufWriter, TensorPlan
from nightshift.packages.huggingface_config import FolderConfig, read_config
from nightshift.packages.huggingface_tokenizer import read_tokenizer
from nightshift.packages.package import ModelPackage, file_sha256
from nightshift.packages.quantised import float_values
from nightshift.packages.safetensors_file import SafetensorsFile
from nightshift.protocol.errors import IncompatibleError, MalformedError, UsageError

_TOP: Final = {"embed_tokens": "model.embed_tokens.weight", "norm": "model.norm.weight", "lm_head": "lm_head.weight"}
_BLOCK: Final = {
    "input_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "q_norm": "self_attn.q_norm",
    "k_norm": "self_attn.k_norm",
    "q_proj": "self_attn.q_proj",
    "k_proj": "self_attn.k_proj",
    "v_proj": "self_attn.v_proj",
    "o_proj": "self_attn.o_proj",
    "gate_proj": "mlp.gate_proj",
    "up_proj": "mlp.up_proj",
    "down_proj": "mlp.down_proj",
}
_DERIVED = re.compile(r".*rotary_emb\.inv_freq")
"""Buffers that old checkpoints carry and that follow from config.json."""

_README_BYTES_MAX = 1 << 16
_USED = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def import_folder(folder: Path, destination: Path, wishes: importing.Wishes, *, say: importing.Say) -> ModelPackage:
    """Make a package of a folder; see `importing.import_gguf` for what it raises."""
    say(f"reading {folder.name}")
    converted = destination.with_name(f"{destination.name}.gguf")
    converted.parent.mkdir(parents=True, exist_ok=True)
    try:
        convert_folder(folder, converted, name=_name(folder, wishes))
        return importing.import_gguf(
            converted,
            destination,
            replace(wishes, consume=True, source_sha256=folder_sha256(folder)),
            say=say,
        )
    finally:
        converted.unlink(missing_ok=True)


def convert_folder(folder: Path, destination: Path, *, name: str) -> None:
    """Write a folder's model as a GGUF file, its weights in their own types.

    Raises:
        UsageError: a file is missing.
        MalformedError: a file is damaged, or tensors and config.json contradict each other.
        IncompatibleError: an architecture, tensor or tokenizer that the graphs or llama.cpp do not know.
    """
    config = read_config(folder)
    tokenizer = read_tokenizer(folder, config)
    family = FAMILIES[config.dimensions.family]
    sources = Architecture(config.dimensions, family, np.empty(0, np.float32)).tensors()
    with ExitStack() as stack:
        files = [stack.enter_context(SafetensorsFile(path)) for path in weight_files(folder)]
        homes = _homes(files, sources, tied=config.dimensions.tied_embeddings)
        plans = [TensorPlan(source.gguf_name, source.shape, _type(homes[source.name], source)) for source in sources]
        factors = _rotary_plan(config)
        entries = model_entries(config.dimensions, name=name, licence=stated_licence(folder)) + tokenizer.entries()
        with GgufWriter(destination, entries, plans + [plan for plan, _ in factors]) as writer:
            for source, plan in zip(sources, plans, strict=True):
                writer.write(plan.name, _bytes(homes[source.name], source, plan.type))
            for plan, values in factors:
                writer.write(plan.name, values.view(np.uint8))
    tokenizer.check_same_ids(destination)


def folder_sha256(folder: Path) -> str:
    """SHA-256, hex, over the lines "SHA-256  name" of the files that a conversion reads, sorted by name."""
    paths = [folder / name for name in _USED if (folder / name).is_file()] + weight_files(folder)
    lines = sorted(f"{path.name}\0{file_sha256(path)}\n" for path in paths)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder, links included only within it.

    Raises:
        UsageError: there is none.
        MalformedError: one is no regular file of this folder.
    """
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise UsageError(f"{folder} has no .safetensors files; expected a Hugging Face folder or a GGUF file")
    for path in paths:
        # The hub's own cache links each file to a blob beside its snapshots; nothing else is followed.
        if not path.is_file() or (path.is_symlink() and "blobs" not in path.resolve().parts):
            raise MalformedError(f"{path}: not a regular file; copy it into the folder")
    return paths


def stated_licence(folder: Path) -> str:
    """The licence in the front matter of README.md, in the hub's words; "" where it states none."""
    path = folder / "README.md"
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        text = file.read(_README_BYTES_MAX).decode("utf-8", errors="replace")
    front = re.match(r"---\s*\n(.*?)\n---", text, re.DOTALL)
    found = re.search(r"^license:\s*([A-Za-z0-9.+-]{1,60})\s*$", front[1], re.MULTILINE) if front else None
    return found[1] if found else ""


def _name(folder: Path, wishes: importing.Wishes) -> str:
    return wishes.origin.repository.partition("/")[2] if wishes.origin is not None else folder.resolve().name


def _stored_name(source: TensorSource) -> str:
    """What Hugging Face calls a tensor."""
    if source.name in _TOP:
        return _TOP[source.name]
    _, layer, part, *bias = source.name.split(".")
    return f"model.layers.{layer}.{_BLOCK[part]}.{'bias' if bias else 'weight'}"


def _homes(files: list[SafetensorsFile], sources: list[TensorSource], *, tied: bool) -> Mapping[str, SafetensorsFile]:
    """Tensor -> the file that holds it; every stored tensor must have a place in the model, and the other way round."""
    where: dict[str, SafetensorsFile] = {}
    for file in files:
        for name in [*file.tensors, *file.foreign]:
            if name in where:
                raise MalformedError(f"{file.path}: tensor {name} is in {where[name].path.name} too")
            where[name] = file
    homes = {}
    for source in sources:
        name = _stored_name(source)
        file_of = where.pop(name, None)
        if file_of is None:
            raise MalformedError(f"{files[0].path.parent}: tensor {name} is missing; fetch the folder again")
        shape = file_of.tensors[name].shape if name in file_of.tensors else None
        if shape is not None and shape != source.shape:
            raise MalformedError(
                f"{file_of.path}: tensor {name} has shape {list(shape)}, config.json asks for {list(source.shape)}"
            )
        homes[source.name] = file_of
    if tied:
        where.pop(_TOP["lm_head"], None)  # some checkpoints store the shared matrix twice
    extra = sorted(name for name in where if not _DERIVED.fullmatch(name))
    if extra:
        raise IncompatibleError(
            f"{files[0].path.parent}: tensors that the graphs have no place for: {', '.join(extra[:3])[:300]}"
        )
    return homes


def _type(file: SafetensorsFile, source: TensorSource) -> TensorType:
    """Matrices keep their type; vectors become float32, which holds all of theirs."""
    name = _stored_name(source)
    if name in file.foreign:
        file.tensor_bytes(name)  # raises, naming the type
    return file.tensors[name].type if source.is_matrix else TensorType.F32


def _bytes(file: SafetensorsFile, source: TensorSource, wanted: TensorType) -> NDArray[np.uint8]:
    name = _stored_name(source)
    raw = file.tensor_bytes(name)
    if wanted is not file.tensors[name].type:
        raw = float_values(raw, source.shape, file.tensors[name].type).view(np.uint8)
    if source.interleaved_heads:
        rows = source.shape[0]
        # The other way round than `architecture.half_split_rows`.
        order = np.arange(rows).reshape(source.interleaved_heads, 2, -1).swapaxes(1, 2).reshape(-1)
        raw = raw.reshape(rows, -1)[order].reshape(-1)
    return raw


def _rotary_plan(config: FolderConfig) -> list[tuple[TensorPlan, NDArray[np.float32]]]:
    factors = config.rotary_factors
    if factors is None:
        return []
    # GGUF stores what frequencies are divided by.
    return [(TensorPlan(ROTARY_FACTORS_TENSOR, factors.shape, TensorType.F32), factors)]
