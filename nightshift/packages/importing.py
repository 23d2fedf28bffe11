"""The front door: a GGUF file or a Hugging Face folder becomes the best package that can be made of it.

A package that trains where the graphs know the model; else one for inference through llama.cpp, with the
reason said. Quantised numbers are never changed: a Q4_0 file gives a Q4_0 package.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from nightshift.packages.gguf_file import GgufFile
from nightshift.packages.llama_package import build_llama_package
from nightshift.packages.package import ModelPackage
from nightshift.packages.recognition import Recognised, recognise
from nightshift.protocol.errors import IncompatibleError, NotFoundError, UsageError
from nightshift.protocol.manifest import HubSource, Licence, Scheme
from nightshift.protocol.openness import OpennessRecord

AUTOMATIC: Final = "auto"
_GRAPHS_PER_WEIGHT: Final = 2.2
"""Bytes that a build writes for each byte of a quantised source: model.gguf and weights.bin, and the graphs."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wishes:
    """How a package should be made.

    Attributes:
        quantisation: "auto", Q8_0, Q4_0 or F16. "auto" keeps what the file has, takes `preferred` for a
            float file, and settles for inference only where training is impossible.
        preferred: scheme for float files.
        licence: terms of the weights; None takes what the source states.
        openness: what is open; None takes what the licence says.
        origin: where the source was fetched.
        consume: the source may be moved instead of copied.
        source_sha256: hex, of what the source was made from, where that is not the source itself.
    """

    quantisation: str = AUTOMATIC
    preferred: Scheme = Scheme.Q8_0
    licence: Licence | None = None
    openness: OpennessRecord | None = None
    origin: HubSource | None = None
    consume: bool = False
    source_sha256: str | None = None


class Make(Protocol):
    """Makes a package of what lies at a path, as `import_path` does."""

    def __call__(self, source: Path, destination: Path, wishes: Wishes, *, say: Say) -> ModelPackage:
        """Make it."""


def import_gguf(source: Path, destination: Path, wishes: Wishes, *, say: Say) -> ModelPackage:
    """Make a package of a GGUF file.

    Args:
        source: the file.
        destination: folder to create.
        wishes: how.
        say: told in a few words what is being done, and what the package cannot do and why.

    Raises:
        NotFoundError: there is no such file.
        UsageError: the destination is taken, or the scheme is unknown.
        MalformedError: the file is damaged.
        IncompatibleError: nothing can be made of it, or not what was asked for; the reason is said.
    """
    if not source.is_file():
        raise NotFoundError(f"{source}: no such file")
    with GgufFile.open(source) as file:
        recognised = recognise(file)
    if recognised.trains:
        scheme = _scheme(source, recognised, wishes)
        if importlib.util.find_spec("onnx") is None:
            raise UsageError(
                f"making a package of {source.name} needs onnx: pip install 'nightshift[packaging]'; "
                "or make it on another machine and import the package's folder here"
            )
        from nightshift.packages.build import build_package

        return build_package(
            source,
            destination,
            quantisation=scheme,
            licence=wishes.licence,
            openness=wishes.openness,
            origin=wishes.origin,
            source_sha256=wishes.source_sha256,
            progress=say,
        )
    if wishes.quantisation != AUTOMATIC:
        raise IncompatibleError(
            f"{source}: cannot become a {wishes.quantisation} package: {recognised.obstacle}. "
            "Leave out the quantisation to use it for inference only"
        )
    say(f"for inference only: {recognised.obstacle}")
    return build_llama_package(
        source,
        destination,
        recognised,
        licence=wishes.licence,
        openness=wishes.openness,
        origin=wishes.origin,
        source_sha256=wishes.source_sha256,
        consume=wishes.consume,
    )


def import_path(source: Path, destination: Path, wishes: Wishes, *, say: Say) -> ModelPackage:
    """Make a package of what lies at a path: a GGUF file, or a Hugging Face folder; see `import_gguf`."""
    if source.is_dir():
        from nightshift.packages.huggingface_folder import import_folder

        return import_folder(source, destination, wishes, say=say)
    return import_gguf(source, destination, wishes, say=say)


def room_needed(source_bytes: int) -> int:
    """Bytes that making a package of a source of this size may take on the disk, at most."""
    return int(source_bytes * _GRAPHS_PER_WEIGHT)


def _scheme(source: Path, recognised: Recognised, wishes: Wishes) -> Scheme:
    possible = recognised.schemes
    if wishes.quantisation == AUTOMATIC:
        return possible[0] if len(possible) == 1 else wishes.preferred
    if wishes.quantisation not in possible:
        raise IncompatibleError(
            f"{source}: its matrices are {recognised.scheme}, so a package of it can be "
            f"{' or '.join(possible)}, not {wishes.quantisation}; quantised numbers are not quantised again"
        )
    return Scheme(wishes.quantisation)
