"""Architectures that the graphs do not know: exported by optimum, for inference through ONNX Runtime only.

torch and optimum run in a process of their own, `python -m coordinator.models.exported FOLDER OUTPUT`, which may
take what memory it needs and fetches nothing. What comes out is float32; quantised packages are for the
families that Nightshift builds itself.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer

from coordinator.models.exported_graph import ExportedModel, read_exported
from nightshift.packages.huggingface_config import model_type, read_json
from nightshift.packages.huggingface_folder import folder_sha256, stated_licence
from nightshift.packages.huggingface_tokenizer import begins_with, chat_template, special_token
from nightshift.packages.importing import AUTOMATIC, Say, Wishes
from nightshift.packages.package import MANIFEST_NAME, ModelPackage
from nightshift.packages.package_folder import FILE_NAMES, describe_files, new_folder
from nightshift.packages.terms import licence_named, openness_of_weights
from nightshift.protocol.errors import IncompatibleError, UsageError
from nightshift.protocol.manifest import (
    FileRole,
    Manifest,
    ModelDimensions,
    Quantisation,
    Scheme,
    TokenizerRecord,
)

_WITHIN_S: Final = 3600.0
_ROLES: Final = (FileRole.WEIGHTS, FileRole.DECODE, FileRole.EVALUATE, FileRole.TOKENIZER)


def export_folder(folder: Path, destination: Path, wishes: Wishes, *, say: Say) -> ModelPackage:
    """Make a package for inference only of a Hugging Face folder.

    Raises:
        UsageError: optimum is not installed, or a file is missing.
        IncompatibleError: optimum cannot export it, what came out is no decoder, or a quantisation was asked for.
    """
    kind = model_type(folder)
    if wishes.quantisation != AUTOMATIC:
        raise IncompatibleError(
            f"{folder}: architecture {kind!r} becomes a float32 package for inference only, not {wishes.quantisation}; "
            "leave out the quantisation"
        )
    if importlib.util.find_spec("optimum") is None:
        raise UsageError(
            f"{folder}: architecture {kind!r} is not one that Nightshift builds graphs for; to export it for inference "
            "only, install torch and optimum: pip install 'nightshift[publisher]'"
        )
    say(f"for inference only: exporting architecture {kind!r} with optimum")
    with (
        tempfile.TemporaryDirectory(dir=destination.parent, prefix="export-") as output,
        new_folder(destination) as place,
    ):
        _export(folder, Path(output))
        exported = read_exported(Path(output) / "model.onnx", place / FILE_NAMES[FileRole.WEIGHTS])
        (place / FILE_NAMES[FileRole.DECODE]).write_bytes(exported.decode())
        (place / FILE_NAMES[FileRole.EVALUATE]).write_bytes(exported.evaluate())
        (place / FILE_NAMES[FileRole.TOKENIZER]).write_bytes((folder / "tokenizer.json").read_bytes())
        (place / MANIFEST_NAME).write_bytes(_manifest(folder, place, exported, wishes).to_bytes())
    return ModelPackage.open(destination, verify=False)


def _export(folder: Path, output: Path) -> None:
    command = [sys.executable, "-m", "coordinator.models.exported", str(folder), str(output)]
    done = subprocess.run(  # noqa: S603 - this module
        command,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"},
        capture_output=True,
        text=True,
        timeout=_WITHIN_S,
        check=False,
    )
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["no reason given"]
        raise IncompatibleError(f"{folder}: optimum cannot export it: {said[-1][:300]}")


def _manifest(folder: Path, place: Path, exported: ExportedModel, wishes: Wishes) -> Manifest:
    config = read_json(folder / "config.json")
    files = describe_files(place, {role: FILE_NAMES[role] for role in _ROLES})
    tokenizer = next(file for file in files if file.role is FileRole.TOKENIZER)
    licence = wishes.licence or licence_named(stated_licence(folder))
    settings = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    ids = Tokenizer.from_file(str(place / tokenizer.name)).get_vocab()
    bos, eos = (
        special_token(settings, f"{name}_token", ids, _token(config, name, exported.vocabulary))
        for name in ("bos", "eos")
    )
    return Manifest(
        name=wishes.origin.repository.partition("/")[2] if wishes.origin is not None else folder.resolve().name,
        dimensions=_dimensions(folder, config, exported),
        quantisation=Quantisation(Scheme.F32, wishes.source_sha256 or folder_sha256(folder)),
        source=wishes.origin,
        tokenizer=TokenizerRecord(
            tokenizer.sha256, bos, eos, add_bos=bos is not None and begins_with(place / tokenizer.name, bos)
        ),
        chat_template=chat_template(folder, settings),
        licence=licence,
        openness=wishes.openness or openness_of_weights(licence),
        lora_targets=(),
        files=files,
    )


def _dimensions(folder: Path, config: dict[str, Any], exported: ExportedModel) -> ModelDimensions:
    """What config.json states under the names that architectures use, and what the graph shows."""

    def stated(*names: str) -> int:
        return next((config[name] for name in names if type(config.get(name)) is int and config[name] > 0), 0)

    hidden, context = stated("hidden_size", "n_embd", "d_model"), stated("max_position_embeddings", "n_positions")
    if not hidden or not context:
        raise IncompatibleError(f"{folder}/config.json: states no width or no longest text under a name that is known")
    heads = stated("num_attention_heads", "n_head")
    return ModelDimensions(
        family=model_type(folder),
        layers=exported.layers,
        hidden=hidden,
        ffn=stated("intermediate_size", "n_inner", "ffn_dim"),
        heads=heads if heads % exported.kv_heads == 0 else 0,
        kv_heads=exported.kv_heads,
        head_dim=exported.head_dim,
        vocabulary=exported.vocabulary,
        context=context,
        rope_theta=0.0,
        rms_eps=0.0,
        tied_embeddings=bool(config.get("tie_word_embeddings", True)),
    )


def _token(config: dict[str, Any], name: str, vocabulary: int) -> int | None:
    value = config.get(f"{name}_token_id")
    value = value[0] if isinstance(value, list) and value else value
    return value if type(value) is int and 0 <= value < vocabulary else None


def _main(folder: str, output: str) -> None:
    from optimum.exporters.onnx import main_export

    main_export(
        folder,
        output=output,
        task="text-generation-with-past",
        framework="pt",
        local_files_only=True,
        trust_remote_code=False,
        do_validation=False,
    )


if __name__ == "__main__":
    _main(*sys.argv[1:])
