"""From a model hub's name to a package: choose the file, fetch it with resume, make the package, clean up."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from nightshift.packages.hub import HubListing, HubReference, choose_gguf, list_files
from nightshift.packages.hub_download import Progress, fetch
from nightshift.packages.importing import AUTOMATIC, Make, Say, Wishes, import_path, room_needed
from nightshift.packages.package import ModelPackage
from nightshift.packages.terms import licence_named
from nightshift.protocol.errors import IncompatibleError
from nightshift.protocol.manifest import HubSource

FOLDER_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
"""What is fetched of a Hugging Face folder beside its safetensors files."""


def import_from_hub(
    reference: HubReference,
    downloads: Path,
    destination: Path,
    wishes: Wishes,
    *,
    say: Say,
    progress: Progress = lambda _done, _total: None,
    require_room: Callable[[int], None] = lambda _size_bytes: None,
    make: Make = import_path,
) -> ModelPackage:
    """Fetch a model and make a package of it.

    Args:
        reference: the name.
        downloads: where interrupted downloads wait; what was fetched is deleted when the package stands.
        destination: folder to create.
        wishes: how; its `origin` is filled in, and the hub's word for the licence counts where none is given.
        say: told in a few words what is being done.
        progress: told how far the download is.
        require_room: told before the download how many bytes it and the package take; raises to decline.
        make: makes the package of what was fetched.

    Raises:
        NotFoundError, UsageError, OverloadedError, UnreachableError: the hub does not give it; see `hub`.
        HashMismatchError, ResourceError: see `hub_download.fetch`.
        MalformedError, IncompatibleError: see `importing`.
    """
    say(f"asking the model hub for {reference.repository}")
    listing = list_files(reference)
    chosen = choose_gguf(listing, reference.file, _tastes(wishes))
    names = [chosen.name] if chosen is not None else _folder_names(listing)
    size_bytes = sum(listing.files[name].size_bytes for name in names)
    require_room(size_bytes + room_needed(size_bytes))
    say(f"fetching {chosen.name if chosen is not None else f'{len(names)} files'} at commit {listing.revision[:12]}")
    folder = fetch(listing, names, downloads, progress=progress)
    origin = HubSource(listing.repository, listing.revision, chosen.name if chosen is not None else "")
    licence = wishes.licence or (licence_named(listing.licence) if listing.licence else None)
    source = folder / chosen.name if chosen is not None else folder
    package = make(source, destination, replace(wishes, origin=origin, licence=licence, consume=True), say=say)
    shutil.rmtree(folder, ignore_errors=True)
    return package


def _tastes(wishes: Wishes) -> list[str]:
    """Parts of file names, the best first."""
    wanted = wishes.preferred if wishes.quantisation == AUTOMATIC else wishes.quantisation
    return list(dict.fromkeys([str(wanted), "Q8_0", "Q4_0", "F16", "BF16", "F32", "Q4_K_M"]))


def _folder_names(listing: HubListing) -> list[str]:
    weights = [name for name in sorted(listing.files) if name.endswith(".safetensors") and "/" not in name]
    if not weights or "config.json" not in listing.files:
        raise IncompatibleError(
            f"{listing.repository} holds neither a GGUF file nor safetensors with a config.json; "
            "choose a repository that does"
        )
    return [name for name in FOLDER_FILES if name in listing.files] + weights
