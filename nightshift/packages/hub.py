"""Model hub names: what `organisation/name` holds at one commit, and which of its files is meant.

    organisation/name                     the file or folder that suits best
    organisation/name:model-q8_0.gguf     this file
    organisation/name:Q4_0                the only GGUF file with this in its name
    organisation/name@v1.0:Q4_0           at a tag, branch or commit

The client is `huggingface_hub`; its variables apply (HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE). A branch or tag
is resolved to a commit once, and everything is fetched at that commit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from nightshift.packages.hub_client import explained, load_client
from nightshift.protocol.errors import MalformedError, NotFoundError, UsageError
from nightshift.protocol.manifest_records import FILE_BYTES_MAX

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

FILES_MAX: Final = 10_000
_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_REFERENCE = re.compile(
    rf"(?:hf:)?(?P<repository>{_PART}/{_PART})(?:@(?P<revision>[A-Za-z0-9][A-Za-z0-9._/-]{{0,127}}))?"
    r"(?::(?P<file>[A-Za-z0-9][A-Za-z0-9._/ -]{0,199}))?"
)
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._ -]*(?:/[A-Za-z0-9_][A-Za-z0-9._ -]*)*")


@dataclass(frozen=True, slots=True)
class HubReference:
    """A name on a model hub.

    Attributes:
        repository: "organisation/name".
        revision: branch, tag or commit; "" for the repository's default.
        file: name of a file in it, or a part of it such as "Q4_0"; "" to choose.
    """

    repository: str
    revision: str = ""
    file: str = ""


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file at one commit.

    Attributes:
        name: with folders, separated by "/".
        size_bytes: as the hub states it.
        sha256: hex, of a large file; "" where the hub states only the git hash.
        git_sha1: hex, the hash of the git blob.
    """

    name: str
    size_bytes: int
    sha256: str
    git_sha1: str

    @property
    def key(self) -> str:
        """Names the content: a partial file of this name can only be a part of it."""
        return self.sha256 or f"git-{self.git_sha1}"


@dataclass(frozen=True, slots=True)
class HubListing:
    """What a repository holds at one commit.

    Attributes:
        repository: "organisation/name".
        revision: the commit, 40 hex digits.
        licence: in the hub's words; "" where the card states none.
        files: name -> file.
    """

    repository: str
    revision: str
    licence: str
    files: Mapping[str, HubFile]


def parse_reference(text: str) -> HubReference | None:
    """Read a hub name; None for what cannot be one (a path with more than one slash, for instance)."""
    found = _REFERENCE.fullmatch(text)
    if found is None:
        return None
    return HubReference(found["repository"], found["revision"] or "", found["file"] or "")


def list_files(reference: HubReference) -> HubListing:
    """Ask the hub what the repository holds, and pin its commit.

    Raises:
        NotFoundError: no such repository or revision, or it is private.
        UsageError: its terms must be accepted first.
        OverloadedError: too many requests.
        UnreachableError: no network, or offline mode.
        MalformedError: an answer that makes no sense.
    """
    client = load_client()
    with explained(reference.repository):
        info: ModelInfo = client.HfApi().model_info(
            reference.repository, revision=reference.revision or None, files_metadata=True
        )
    if not re.fullmatch(r"[0-9a-f]{40}", info.sha or ""):
        raise MalformedError(f"{reference.repository}: the hub names no commit, but {str(info.sha)[:50]!r}")
    files = {}
    for entry in (info.siblings or [])[:FILES_MAX]:
        # Names with other characters or a dot in front belong to nothing that is fetched here.
        if _FILE_NAME.fullmatch(entry.rfilename) and entry.size is not None and 0 <= entry.size <= FILE_BYTES_MAX:
            sha256 = entry.lfs.sha256 if entry.lfs is not None else ""
            files[entry.rfilename] = HubFile(entry.rfilename, entry.size, sha256, entry.blob_id or "")
    return HubListing(reference.repository, str(info.sha), _licence(info), files)


def choose_gguf(listing: HubListing, wanted: str, preferred: Sequence[str]) -> HubFile | None:
    """The GGUF file that is meant; None where the repository has none and none was named.

    Args:
        listing: what there is.
        wanted: a file's name, or a part of it such as "Q4_0"; "" to choose.
        preferred: parts of names, the best first, to choose by.

    Raises:
        NotFoundError: no file of that name.
        UsageError: several could be meant, or the file is one of several parts.
    """
    ggufs = [file for name, file in sorted(listing.files.items()) if name.lower().endswith(".gguf")]
    names = ", ".join(file.name for file in ggufs[:12]) or "none"
    if wanted:
        exact = [file for file in ggufs if file.name == wanted]
        found = exact or [file for file in ggufs if _mentions(file.name, wanted)]
        if not found:
            raise NotFoundError(f"{listing.repository} has no GGUF file {wanted!r}; it has: {names}")
    else:
        if not ggufs:
            return None
        by_taste = ([file for file in ggufs if _mentions(file.name, taste)] for taste in preferred)
        found = ggufs if len(ggufs) == 1 else next((some for some in by_taste if some), ggufs)
    if len(found) > 1:
        raise UsageError(f"{listing.repository} has several files that could be meant; name one after a colon: {names}")
    if re.search(r"-\d{5}-of-\d{5}\.gguf$", found[0].name):
        raise UsageError(f"{found[0].name} is one of several parts; join them first: llama-gguf-split --merge")
    return found[0]


def _mentions(name: str, part: str) -> bool:
    """Whether a name has this part between separators: Q4_0 is not in "model-q4_0_4_4.gguf"."""
    return re.search(rf"(?<![a-z0-9_]){re.escape(part.lower())}(?![a-z0-9_])", name.lower()) is not None


def _licence(info: ModelInfo) -> str:
    stated = getattr(info.card_data, "license", None)
    if isinstance(stated, str) and stated not in ("", "other"):
        return stated
    named = getattr(info.card_data, "license_name", None)
    return named if isinstance(named, str) else ""
