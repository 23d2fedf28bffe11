"""Fetching files of a hub's repository: resumed where they ended, bounded, and checked by hash.

`hf_hub_download` of today keeps nothing of a download that was interrupted, so its inner part, `http_get`,
which takes an offset, writes into a file that stays; and every file is checked against the hash that the
hub states, which the library does not do. A partial file is named by the content it will have, so it is
never continued with other bytes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

from nightshift.host.failpoints import failpoint
from nightshift.host.files import make_private_directory, require_free_space
from nightshift.packages.hub import HubFile, HubListing
from nightshift.packages.hub_client import explained, load_client
from nightshift.protocol.errors import HashMismatchError, MalformedError, UnreachableError

_READ_BYTES = 1 << 20

Progress = Callable[[int, int], None]
"""Told (bytes so far, bytes in all)."""


def fetch(
    listing: HubListing, names: Sequence[str], directory: Path, *, progress: Progress = lambda _done, _total: None
) -> Path:
    """Fetch files of a repository, going on where an earlier call was interrupted.

    Args:
        listing: the repository at a commit.
        names: of the files.
        directory: where downloads live; what was interrupted is kept there.
        progress: told how far all of them are; never goes backwards.

    Returns:
        A folder that holds the files under their names.

    Raises:
        HashMismatchError: other bytes than the hub's hash promises; they were deleted.
        ResourceError: not enough disk; nothing was fetched.
        NotFoundError, UsageError, OverloadedError, UnreachableError: as `list_files`; what came is kept.
    """
    folder = directory / f"{listing.repository.replace('/', '--')}@{listing.revision[:12]}"
    wanted = [listing.files[name] for name in names]
    missing = [file for file in wanted if not (folder / file.name).is_file()]
    for each in (directory, folder):
        make_private_directory(each)
    begun = {file.name: _size(_partial(directory, file)) for file in missing}
    require_free_space(directory, sum(file.size_bytes - begun[file.name] for file in missing))
    total = sum(file.size_bytes for file in wanted)
    done = total - sum(file.size_bytes for file in missing)
    for file in missing:
        _fetch_one(listing, file, directory, _Rising(progress, done, total))
        place = folder / file.name
        make_private_directory(place.parent)
        os.replace(_partial(directory, file), place)
        done += file.size_bytes
        progress(done, total)
    return folder


def _fetch_one(listing: HubListing, file: HubFile, directory: Path, rising: _Rising) -> None:
    client = load_client()
    from huggingface_hub.file_download import http_get

    url = client.hf_hub_url(listing.repository, file.name, revision=listing.revision)
    headers = {**client.utils.build_hf_headers(), "Accept-Encoding": "identity"}
    path = _partial(directory, file)
    if _size(path) > file.size_bytes:
        path.unlink()
    before = -1
    while _size(path) > before:  # a line that dies is called again for as long as it brings something
        before = _size(path)
        try:
            with explained(listing.repository, file.name), _Counted(path, file, rising) as part:
                rising(part.tell())
                if part.tell() < file.size_bytes:
                    http_get(url, part, resume_size=part.tell(), headers=headers, expected_size=file.size_bytes)
                os.fsync(part.fileno())
                break
        except MalformedError:
            path.unlink(missing_ok=True)
            raise
        except UnreachableError:
            if _size(path) <= before:
                raise
    if not _is_right(path, file):
        path.unlink()
        raise HashMismatchError(
            f"{listing.repository}: {file.name} has other bytes than its hash on the hub promises; they were "
            "deleted. Run again; if it stays so, the hub or the network between is at fault"
        )


class _Rising:
    """Progress of one file among several, which does not fall when a server makes it begin again."""

    def __init__(self, progress: Progress, before_bytes: int, total_bytes: int) -> None:
        self._progress = progress
        self._before = before_bytes
        self._total = total_bytes
        self._highest = 0

    def __call__(self, got_bytes: int) -> None:
        self._highest = max(self._highest, got_bytes)
        self._progress(self._before + self._highest, self._total)


class _Counted(FileIO):
    """A partial file, opened at its end, that tells its size and never grows past what was announced."""

    def __init__(self, path: Path, file: HubFile, rising: _Rising) -> None:
        super().__init__(path, "ab")
        self._file = file
        self._rising = rising

    def write(self, data: Any, /) -> int:
        if self.tell() + len(data) > self._file.size_bytes:
            raise MalformedError(
                f"{self._file.name}: the hub sent more than the {self._file.size_bytes} bytes it announced"
            )
        remaining = memoryview(data)
        while remaining:  # a raw file may take less than it is given
            remaining = remaining[super().write(remaining) :]
        self._rising(self.tell())
        failpoint("hub.file.partial")
        return len(data)


def _partial(directory: Path, file: HubFile) -> Path:
    return directory / f"{file.key}.partial"


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _is_right(path: Path, file: HubFile) -> bool:
    # A file outside large-file storage is known by its git hash: SHA-1 over "blob SIZE\0" and the content.
    digest = hashlib.sha256() if file.sha256 else hashlib.sha1(usedforsecurity=False)
    if not file.sha256:
        digest.update(f"blob {file.size_bytes}\0".encode())
    with path.open("rb") as content:
        while chunk := content.read(_READ_BYTES):
            digest.update(chunk)
    return digest.hexdigest() == (file.sha256 or file.git_sha1)
