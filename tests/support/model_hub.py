"""A model hub on this machine: the part of the Hugging Face hub's HTTP interface that fetching a model needs.

    GET  /api/models/ORG/NAME[/revision/REVISION]   the repository at a commit, with sizes and hashes
    GET  /ORG/NAME/resolve/COMMIT/FILE              a file; large ones are redirected, as to the hub's own store
    GET  /store/SHA256                              a large file; ranges are honoured

Statuses and the X-Error-Code header are those the real hub answers with. A `Trouble` makes it misbehave.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE_BYTES = 10_000
CHUNK_BYTES = 64 * 1024


@dataclass
class Trouble:
    """What goes wrong.

    Attributes:
        status: answered to the listing instead of it.
        file_status: answered to every file instead of it.
        error_code: X-Error-Code beside either.
        cut_after_bytes: the connection is closed in the middle of a large file after so many bytes of one answer.
        other_bytes: large files come with a byte changed.
        more_bytes: so many more than announced.
        ignores_ranges: a range is answered with the whole file.
        pause_s: between chunks.
    """

    status: int = 0
    file_status: int = 0
    error_code: str = ""
    cut_after_bytes: int | None = None
    other_bytes: bool = False
    more_bytes: int = 0
    ignores_ranges: bool = False
    pause_s: float = 0.0


@dataclass
class Repository:
    """Files of a model, at one commit that all names point to.

    Attributes:
        files: name -> content.
        licence: in the model card.
        revisions: branches and tags.
    """

    files: dict[str, bytes]
    licence: str = "apache-2.0"
    revisions: tuple[str, ...] = ("main", "v1.0")

    @property
    def commit(self) -> str:
        """Changes with the content."""
        digest = hashlib.sha1(usedforsecurity=False)
        for name, content in sorted(self.files.items()):
            digest.update(name.encode() + b"\0" + content)
        return digest.hexdigest()


@dataclass
class ModelHub:
    """The hub: repositories by name, what goes wrong, and what was asked."""

    repositories: dict[str, Repository]
    trouble: Trouble = field(default_factory=Trouble)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    address: str = ""
    sent_bytes: int = 0

    def ranges(self) -> list[str]:
        """The Range header of each request for a large file's bytes, in order."""
        return [range_ for method, path, range_ in self.asked if method == "GET" and path.startswith("/store/")]

    def environment(self) -> dict[str, str]:
        """Variables that point the client here."""
        return {"HF_ENDPOINT": self.address}


def listing(repository: str, content: Repository) -> dict[str, Any]:
    """The hub's answer about a repository (`?blobs=true`)."""
    siblings = []
    for name, data in content.files.items():
        git = hashlib.sha1(f"blob {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()
        entry: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": git}
        if len(data) >= LARGE_BYTES:
            sha256 = hashlib.sha256(data).hexdigest()
            entry["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": 135}
            entry["blobId"] = "0" * 40  # the pointer's hash, not the content's
        siblings.append(entry)
    return {
        "_id": "1",
        "id": repository,
        "modelId": repository,
        "sha": content.commit,
        "private": False,
        "tags": [],
        "downloads": 0,
        "likes": 0,
        "cardData": {"license": content.licence} if content.licence else {},
        "siblings": siblings,
    }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: ModelHub

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append((self.command, path, self.headers.get("Range", "")))
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self._listing(found[1], found[2])
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(found[1], found[2], found[3], with_body=with_body)
        elif found := re.fullmatch(r"/store/([0-9a-f]{64})", path):
            self._large(found[1], with_body=with_body)
        else:
            self._error(404, "")

    def _listing(self, name: str, revision: str | None) -> None:
        trouble, content = self.hub.trouble, self.hub.repositories.get(name)
        if trouble.status:
            self._error(trouble.status, trouble.error_code)
        elif content is None:
            # The real hub does not tell strangers what exists.
            self._error(401, "RepoNotFound")
        elif revision not in (None, content.commit, *content.revisions):
            self._error(404, "RevisionNotFound")
        else:
            self._reply(200, json.dumps(listing(name, content)).encode(), {"Content-Type": "application/json"})

    def _file(self, name: str, revision: str, file: str, *, with_body: bool) -> None:
        trouble, content = self.hub.trouble, self.hub.repositories[name]
        if trouble.file_status:
            self._error(trouble.file_status, trouble.error_code)
            return
        if revision != content.commit or file not in content.files:
            self._error(404, "EntryNotFound")
            return
        data = content.files[file]
        headers = {"X-Repo-Commit": content.commit, "Accept-Ranges": "bytes"}
        if len(data) < LARGE_BYTES:
            self._reply(200, data if with_body else b"", {**headers, "ETag": '"small"'}, length=len(data))
            return
        sha256 = hashlib.sha256(data).hexdigest()
        headers |= {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(data))}
        self._reply(302, b"", {**headers, "Location": f"{self.hub.address}/store/{sha256}"})

    def _large(self, sha256: str, *, with_body: bool) -> None:
        trouble = self.hub.trouble
        data = next(
            data
            for content in self.hub.repositories.values()
            for data in content.files.values()
            if hashlib.sha256(data).hexdigest() == sha256
        )
        if trouble.other_bytes:
            data = data[:-1] + bytes([data[-1] ^ 1])
        start = 0
        if (asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))) and not trouble.ignores_ranges:
            start = int(asked[1])
        body = data[start:] + bytes(trouble.more_bytes)
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{sha256}"')
        self.send_header("Content-Length", str(len(body)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if with_body:
            self._send(body)

    def _send(self, body: bytes) -> None:
        trouble = self.hub.trouble
        end = len(body) if trouble.cut_after_bytes is None else min(trouble.cut_after_bytes, len(body))
        with suppress(BrokenPipeError, ConnectionResetError):
            for start in range(0, end, CHUNK_BYTES):
                part = body[start : min(start + CHUNK_BYTES, end)]
                self.wfile.write(part)
                self.hub.sent_bytes += len(part)
                time.sleep(trouble.pause_s)
        if end < len(body):
            self.close_connection = True
            self.connection.close()

    def _error(self, status: int, code: str) -> None:
        self._reply(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code} if code else {})

    def _reply(self, status: int, body: bytes, headers: dict[str, str], *, length: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def model_hub(repositories: dict[str, Repository]) -> Iterator[ModelHub]:
    """Serve a hub on a free port of this machine."""
    hub = ModelHub(repositories)
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
