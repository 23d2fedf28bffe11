"""A package for inference through llama.cpp alone: the GGUF file as it is, and its tokenizer.

For K-quants, mixed files, and architectures that the graphs do not know. It needs neither onnx nor a
conversion; llama.cpp itself is asked whether it can run the file, and whether the tokenizer that was made
from its metadata gives the same tokens.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tokenizers import Tokenizer

from nightshift.packages import llama_check
from nightshift.packages.gguf_file import GgufFile
from nightshift.packages.package import MANIFEST_NAME, ModelPackage
from nightshift.packages.package_folder import FILE_NAMES, describe_files, new_folder
from nightshift.packages.recognition import Recognised
from nightshift.packages.terms import licence_named, openness_of_weights
from nightshift.packages.vocabulary import read_vocabulary, tokenizer_json
from nightshift.protocol.errors import IncompatibleError
from nightshift.protocol.manifest import (
    FileRole,
    HubSource,
    Licence,
    Manifest,
    Quantisation,
    TokenizerRecord,
)
from nightshift.protocol.openness import OpennessRecord


def build_llama_package(
    source: Path,
    destination: Path,
    recognised: Recognised,
    *,
    licence: Licence | None = None,
    openness: OpennessRecord | None = None,
    origin: HubSource | None = None,
    source_sha256: str | None = None,
    consume: bool = False,
) -> ModelPackage:
    """Make the package.

    Args:
        source: GGUF file.
        destination: folder to create.
        recognised: what `recognise` says of it.
        licence: terms of the weights; by default what the file itself states.
        openness: what is open; by default only the weights, if their licence is known.
        origin: where the source was fetched.
        source_sha256: hex, of what the source was made from; by default of the source.
        consume: the source may be moved instead of copied.

    Raises:
        IncompatibleError: llama.cpp cannot run the file, or it is not installed and nobody can tell; or its
            tokenizer cannot be expressed.
        MalformedError: the file is damaged.
        UsageError: the destination is taken.
    """
    with new_folder(destination) as folder:
        with GgufFile.open(source) as file:
            vocabulary = read_vocabulary(file, recognised.dimensions.vocabulary)
            encoded = tokenizer_json(file, vocabulary)
            licence = licence or licence_named(file.text("general.license", ""))
            name = file.text("general.name", recognised.architecture)
            template = file.text("tokenizer.chat_template", "") or None
        _ask_llama_cpp(source, recognised, encoded)
        names = {role: FILE_NAMES[role] for role in (FileRole.GGUF, FileRole.TOKENIZER)}
        (folder / names[FileRole.TOKENIZER]).write_bytes(encoded)
        _place(source, folder / names[FileRole.GGUF], consume=consume)
        files = describe_files(folder, names)
        hashes = {entry.role: entry.sha256 for entry in files}
        manifest = Manifest(
            name=name,
            dimensions=recognised.dimensions,
            quantisation=Quantisation(recognised.scheme, source_sha256 or hashes[FileRole.GGUF]),
            source=origin,
            tokenizer=TokenizerRecord(hashes[FileRole.TOKENIZER], vocabulary.bos, vocabulary.eos, vocabulary.add_bos),
            chat_template=template,
            licence=licence,
            openness=openness or openness_of_weights(licence),
            lora_targets=(),
            files=files,
        )
        (folder / MANIFEST_NAME).write_bytes(manifest.to_bytes())
    return ModelPackage.open(destination, verify=False)


def _ask_llama_cpp(source: Path, recognised: Recognised, encoded: bytes) -> None:
    if recognised.is_known_family and not llama_check.is_installed():
        return  # K-quants of a family whose layout and tokenizer are known need no second opinion
    theirs = llama_check.token_ids(source)
    ours = Tokenizer.from_str(encoded.decode())
    for text, expected in zip(llama_check.PROBES, theirs, strict=True):
        found = ours.encode(text, add_special_tokens=False).ids
        if found != expected:
            raise IncompatibleError(
                f"{source}: the tokenizer made from this file gives other tokens than llama.cpp "
                f"(for {text[:24]!r}: {found[:6]}…, llama.cpp {expected[:6]}…); this tokenizer is not supported"
            )


def _place(source: Path, destination: Path, *, consume: bool) -> None:
    if consume:
        try:
            os.replace(source, destination)
        except OSError:  # another file system
            pass
        else:
            return
    shutil.copyfile(source, destination)
