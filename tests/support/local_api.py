"""A device's home with models and adapters, and `edge-client serve` as a real process over it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil

from edge_client.adapters_in_use import adapter_file
from edge_client.engines.sessions import layout_for
from edge_client.home import Home
from edge_client.store import open_store
from edge_client.store.adapters import StoredAdapter
from nightshift.packages.package import ModelPackage
from nightshift.protocol.adapters import AdapterLayout, Tensors, initialise
from nightshift.protocol.adapters.formats import to_safetensors
from nightshift.protocol.plan import layout_to_proto

START_WITHIN_S = 60


def put_package(home: Path, built: ModelPackage) -> ModelPackage:
    """Move a package that was just built to where the device looks for it."""
    folder = home / "cache" / "packages" / built.package_id.hex()
    folder.parent.mkdir(parents=True, exist_ok=True)
    built.directory.rename(folder)
    return ModelPackage.open(folder)


def loud_adapter(package: ModelPackage, seed: int) -> tuple[Tensors, AdapterLayout]:
    """An adapter that changes answers: B is not zero as in a fresh one."""
    layout = layout_for(package.manifest, rank=4, alpha=8.0)
    random = np.random.default_rng(seed)
    fresh = initialise(layout, bytes(32))
    return {n: t + 0.3 * random.standard_normal(t.shape).astype(np.float32) for n, t in fresh.items()}, layout


def adopt(home: Path, package: ModelPackage, name: str, *, seed: int) -> tuple[Tensors, AdapterLayout]:
    """Put an adapter on the device and in use, as a release or personal training does."""
    located = Home.locate(home)
    located.prepare()
    tensors, layout = loud_adapter(package, seed)
    data = to_safetensors(tensors, layout)
    sha256 = hashlib.sha256(data).digest()
    adapter_file(located, sha256).write_bytes(data)
    stored = StoredAdapter(
        name=name,
        task=name.partition("/")[0],
        sha256=sha256,
        base_model=package.package_id,
        layout=layout_to_proto(layout).SerializeToString(),
        release_id=None,
        adopted_at_unix_s=1_700_000_000 + seed,
    )
    with open_store(located) as store:
        store.adapters.adopt(stored)
    return tensors, layout


@dataclass(frozen=True, slots=True)
class Server:
    """A running `edge-client serve`."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        assert parts.hostname
        assert parts.port
        return parts.hostname, parts.port

    @property
    def engine(self) -> psutil.Process:
        """Its engine process."""
        (child,) = psutil.Process(self.process.pid).children()
        return child

    def raw(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        """Send bytes and read one answer to the end of the connection."""
        with socket.create_connection(self.address, timeout=30) as connection:
            connection.sendall(request)
            data = b""
            while chunk := connection.recv(65536):
                data += chunk
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        return int(first.split()[1]), headers, body

    def post(self, path: str, body: bytes | dict[str, Any], **headers: str) -> tuple[int, dict[str, str], bytes]:
        """POST on a connection of its own."""
        return self.raw(self.message(path, body, **headers))

    def message(self, path: str, body: bytes | dict[str, Any], **headers: str) -> bytes:
        """The bytes of a POST."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        fields = {
            "host": "127.0.0.1",
            "content-type": "application/json",
            "content-length": str(len(data)),
            "connection": "close",
        } | {name.replace("_", "-"): value for name, value in headers.items()}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + data

    def health(self) -> dict[str, Any]:
        """GET /health."""
        _, _, body = self.raw(b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
        value: dict[str, Any] = json.loads(body)
        return value

    def wait_for(self, condition: Callable[[dict[str, Any]], bool], *, within_s: float = 10) -> dict[str, Any]:
        """Poll /health until it says so."""
        deadline = time.monotonic() + within_s
        while not condition(state := self.health()):
            assert time.monotonic() < deadline, f"still {state} after {within_s} s"
            time.sleep(0.02)
        return state


def command(home: Path, *arguments: str) -> list[str]:
    """The argument list of an `edge-client` of this checkout."""
    return [sys.executable, "-m", "edge_client.cli.main", "--home", str(home), *arguments]


def environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    """The test's own, without settings that the tester may have."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("EDGE_CLIENT_", "NIGHTSHIFT_"))} | (extra or {})


@contextmanager
def serving(
    home: Path, *arguments: str, log: Path, extra_environment: dict[str, str] | None = None
) -> Iterator[Server]:
    """Run the server until the block ends; everything it writes goes to `log`."""
    settings = {"EDGE_CLIENT_INFERENCE_THREADS": "1"} | (extra_environment or {})
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command(home, "serve", "--port", "0", "--json", *arguments),
            stdout=stream,
            stderr=stream,
            env=environment(settings),
        )
    try:
        yield Server(process, _announced(process, log)["url"], log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise


def _announced(process: subprocess.Popen[bytes], log: Path) -> dict[str, Any]:
    deadline = time.monotonic() + START_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        for line in log.read_text("utf-8").splitlines(keepends=True):
            if line.startswith("{") and line.endswith("\n"):
                value: dict[str, Any] = json.loads(line)
                return value
        time.sleep(0.05)
    raise AssertionError(f"no server after {START_WITHIN_S} s: {log.read_text('utf-8')}")


def events(body: bytes) -> Sequence[Any]:
    """The JSON of server-sent events, the end mark as a string."""
    # Chunked transfer puts sizes between the events; only data lines matter.
    lines = [line[6:] for line in body.decode().splitlines() if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]
