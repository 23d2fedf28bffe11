"""A PostgreSQL server and an S3 server of the test run's own, each started once and only if a test asks for it."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import psycopg.sql
import pytest

from coordinator.configuration import Storage

DATABASES = ("sqlite", "postgresql")
STORES = ("directory", "s3")
PAIRS = tuple(f"{database}-{store}" for database in DATABASES for store in STORES)
"""What a coordinator may keep its rows and its objects in."""
StorageOf = Callable[[str], Storage]

_UNPRIVILEGED = ("postgres", "nobody")
_BINARIES = "/usr/lib/postgresql/*/bin"
START_S = 60.0
S3_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _binaries() -> Path:
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).parent
    found = sorted(Path("/").glob(_BINARIES.lstrip("/")))
    if not found:
        pytest.skip("PostgreSQL is not installed; on Debian or Ubuntu: apt install postgresql")
    return found[-1]


@dataclass
class PostgreSql:
    """A server in a directory of its own, that a test may stop and start.

    Attributes:
        directory: of its files.
        port: on 127.0.0.1.
        as_user: how its programs are called: PostgreSQL refuses to run as root.
        binaries: directory of its programs.
    """

    directory: Path
    port: int
    as_user: list[str]
    binaries: Path

    def start(self) -> None:
        """Start, and wait until it answers."""
        # fsync off: what is tested is this project, not whether PostgreSQL survives a power cut.
        options = (
            f"-p {self.port} -k {self.directory} -c listen_addresses=127.0.0.1 -c max_connections=300 -c fsync=off"
        )
        self._control("-w", "-t", str(int(START_S)), "-l", str(self.directory / "log"), "-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop; `immediate` is as if its power was cut."""
        self._control("-w", "-m", mode, "stop")

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"test_{secrets.token_hex(8)}"
        server = f"postgresql://nightshift@127.0.0.1:{self.port}"
        with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
            connection.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name)))
        return f"{server}/{name}"

    def _control(self, *arguments: str) -> None:
        self._run("pg_ctl", "-D", str(self.directory / "data"), *arguments)

    def _run(self, program: str, *arguments: str) -> None:
        # The server keeps what it inherits open: a pipe would never end.
        done = subprocess.run(
            [*self.as_user, str(self.binaries / program), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            check=False,
        )
        assert done.returncode == 0, f"{program} {arguments} ended with {done.returncode}; see {self.directory}"


@contextmanager
def postgresql() -> Iterator[PostgreSql]:
    """A running server with an empty cluster; skips, visibly, where PostgreSQL is not installed."""
    binaries = _binaries()
    # Not below pytest's directory, which only root may enter, and short: a socket's path has 107 bytes.
    directory = Path(tempfile.mkdtemp(prefix="nightshift-pg-"))
    as_user: list[str] = []
    if os.geteuid() == 0:
        user = next(entry for entry in pwd.getpwall() if entry.pw_name in _UNPRIVILEGED)
        os.chown(directory, user.pw_uid, user.pw_gid)
        as_user = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--"]
    server = PostgreSql(directory, _free_port(), as_user, binaries)
    try:
        server._run("initdb", "-D", str(directory / "data"), "-U", "nightshift", "--auth=trust", "--no-sync")
        server.start()
        yield server
    finally:
        subprocess.run(
            [*as_user, str(binaries / "pg_ctl"), "-D", str(directory / "data"), "-m", "immediate", "stop"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            check=False,
        )
        shutil.rmtree(directory, ignore_errors=True)


@dataclass(frozen=True)
class S3:
    """A moto server. Attributes: endpoint: its http URL."""

    endpoint: str

    def new_bucket(self) -> str:
        """The URL of an empty bucket."""
        name = f"test-{secrets.token_hex(8)}"
        with closing(urllib.request.urlopen(urllib.request.Request(f"{self.endpoint}/{name}", method="PUT"))) as reply:
            assert reply.status == 200
        return f"s3://{name}"


@contextmanager
def s3(environment: Mapping[str, str] = os.environ) -> Iterator[S3]:
    """A running S3 server with no buckets; its process ends with the block."""
    port = _free_port()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=output,
            stderr=output,
            env={**environment, **S3_CREDENTIALS},
        )
        endpoint = f"http://127.0.0.1:{port}"
        try:
            _wait_for(endpoint, process)
            yield S3(endpoint)
        finally:
            process.terminate()
            process.wait(timeout=30)


def _wait_for(endpoint: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert process.poll() is None, "the S3 server ended at once; is moto[server] installed?"
        try:
            with closing(urllib.request.urlopen(f"{endpoint}/moto-api/")):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise AssertionError("the S3 server did not answer in time")
