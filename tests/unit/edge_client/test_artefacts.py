"""Fetching by hash: resumed, bounded, and never shown before every byte is right."""

from __future__ import annotations

import hashlib
import os
from collections import namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from edge_client.artefacts import Artefacts
from nightshift.host import files
from nightshift.protocol.errors import HashMismatchError, MalformedError, ResourceError, UnreachableError
from nightshift.v1 import device_pb2
from tests.support.scripted_coordinator import ScriptedCoordinator, connected

CONTENT = os.urandom(600_000)
SHA256 = hashlib.sha256(CONTENT).digest()
CHUNK = 256 * 1024

Replies = Iterator[device_pb2.FetchArtefactResponse]
Serve = Callable[[device_pb2.FetchArtefactRequest], Replies]


@dataclass
class FileServer:
    """Serves one content honestly, or cuts off after so many bytes; remembers the offsets it was asked for."""

    content: bytes = CONTENT
    claimed_size: int | None = None
    cut_after: int | None = None
    chunk: int = CHUNK
    offsets: list[int] = field(default_factory=list)

    def __call__(self, request: device_pb2.FetchArtefactRequest) -> Replies:
        self.offsets.append(request.offset)
        size = len(self.content) if self.claimed_size is None else self.claimed_size
        end = len(self.content) if self.cut_after is None else self.cut_after
        yield device_pb2.FetchArtefactResponse(size_bytes=size)
        for start in range(request.offset, end, self.chunk):
            yield device_pb2.FetchArtefactResponse(data=self.content[start : min(start + self.chunk, end)])
        if self.cut_after is not None:
            raise ConnectionResetError("the line went dead")


@pytest.fixture
def artefacts(tmp_path: Path) -> Artefacts:
    return Artefacts(tmp_path / "cache")


def fetch(
    artefacts: Artefacts, server: Callable[[device_pb2.FetchArtefactRequest], Replies], **options: object
) -> Path:
    settings = {"size_bytes": len(CONTENT), "size_limit_bytes": len(CONTENT)} | options
    with connected(ScriptedCoordinator(artefact=server)) as connection:
        return artefacts.fetch(connection, SHA256, **settings)  # type: ignore[arg-type]  # keywords of many types, checked at run time


def test_what_was_fetched_is_kept_under_its_hash_and_not_fetched_again(artefacts: Artefacts) -> None:
    server = FileServer()
    path = fetch(artefacts, server)
    assert path.read_bytes() == CONTENT
    assert path.name == SHA256.hex()
    assert fetch(artefacts, server) == path
    assert server.offsets == [0]


def test_an_interrupted_fetch_goes_on_where_it_ended(artefacts: Artefacts) -> None:
    server = FileServer(cut_after=CHUNK + 1000)
    with pytest.raises(Exception, match="failed"):
        fetch(artefacts, server)
    assert artefacts.find(SHA256) is None
    server.cut_after = None
    assert fetch(artefacts, server).read_bytes() == CONTENT
    assert server.offsets == [0, CHUNK + 1000]


def test_progress_never_goes_back(artefacts: Artefacts) -> None:
    seen: list[tuple[int, int]] = []
    fetch(artefacts, FileServer(), progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (len(CONTENT), len(CONTENT))


def test_other_bytes_are_refused_and_thrown_away(artefacts: Artefacts) -> None:
    server = FileServer(content=os.urandom(len(CONTENT)))
    with pytest.raises(HashMismatchError, match="deleted"):
        fetch(artefacts, server)
    assert artefacts.find(SHA256) is None
    # Nothing of the lie is left to be resumed from.
    assert fetch(artefacts, FileServer()).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("server", "message"),
    [
        (FileServer(claimed_size=len(CONTENT) + 1), "were announced"),
        (FileServer(content=CONTENT[:-1], claimed_size=len(CONTENT)), "ended a file after"),
        (FileServer(content=CONTENT + b"more", claimed_size=len(CONTENT)), "more of a file"),
        (FileServer(chunk=CHUNK + 1), "more of a file"),
    ],
)
def test_a_size_that_is_not_the_announced_one_is_refused(
    artefacts: Artefacts, server: FileServer, message: str
) -> None:
    with pytest.raises(MalformedError, match=message):
        fetch(artefacts, server)
    assert artefacts.find(SHA256) is None


@pytest.mark.parametrize("claimed", [0, len(CONTENT) + 1, 1 << 60])
def test_a_file_of_unknown_size_has_a_limit_before_anything_is_written(artefacts: Artefacts, claimed: int) -> None:
    with pytest.raises(MalformedError, match="are accepted"):
        fetch(artefacts, FileServer(claimed_size=claimed), size_bytes=None)


def test_an_empty_stream_is_refused(artefacts: Artefacts) -> None:
    with pytest.raises(MalformedError, match="ended a file after 0"):
        fetch(artefacts, lambda _: iter(()))


def test_a_full_disk_is_found_before_the_download(artefacts: Artefacts, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: usage(10**9, 10**9, 2**20))
    with pytest.raises(ResourceError, match="point the cache to another disk"):
        fetch(artefacts, FileServer())


def test_a_coordinator_that_is_gone_is_unreachable(artefacts: Artefacts) -> None:
    with connected(ScriptedCoordinator()) as connection:
        pass
    with grpc.insecure_channel(connection.address) as channel:
        from edge_client.connection import Connection
        from nightshift.v1 import device_pb2_grpc

        gone = Connection(connection.address, device_pb2_grpc.DeviceServiceStub(channel))
        with pytest.raises(UnreachableError, match="cannot be reached"):
            artefacts.fetch(gone, SHA256, size_bytes=None, size_limit_bytes=10)
