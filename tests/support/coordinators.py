"""A coordinator in a directory of the test, served in this process or in one of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import psutil

from coordinator.configuration import Listen, Storage
from coordinator.deployment import Deployment, initialise, opened
from coordinator.enrolment.tokens import create_token
from coordinator.home import Home
from coordinator.models import catalogue
from coordinator.rounds.task_settings import TaskSettings
from coordinator.rounds.tasks import create_task
from coordinator.storage.rows import Task
from nightshift.host.clock import now_unix_s
from nightshift.host.tokens import JoinToken

TASK = "commands"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def make_home(directory: Path, storage: Storage | None = None, *, operators: bool = False) -> Home:
    """An initialised coordinator; with an admin listener, if operators shall call it."""
    home = Home(directory)
    listen = Listen(
        addresses=["127.0.0.1"],
        host="127.0.0.1",
        port=free_port(),
        join_port=free_port(),
        admin_port=free_port() if operators else 0,
    )
    initialise(home, listen, storage)
    return home


def make_replica(home: Home, directory: Path) -> Home:
    """A second coordinator on the same stores, as docs/operations.md says: keys and configuration are copied."""
    directory.mkdir(mode=0o700)
    shutil.copytree(home.keys_directory, directory / "keys")
    ports = {"port": free_port(), "join_port": free_port()}
    lines = home.configuration_file.read_text("utf-8").splitlines()
    changed = [f"{key} = {ports[key]}" if (key := line.partition(" = ")[0]) in ports else line for line in lines]
    replica = Home(directory)
    replica.configuration_file.write_text("\n".join(changed) + "\n", "utf-8")
    return replica


def make_token(deployment: Deployment, *, uses: int = 16, ttl_s: int = 3600) -> JoinToken:
    with deployment.database.transaction() as session:
        _, secret = create_token(session, uses=uses, ttl_s=ttl_s, now_unix_s=now_unix_s())
    configuration = deployment.configuration
    return JoinToken(
        deployment.authority.root_der, configuration.join_address(), configuration.device_address(), secret
    )


def make_task(deployment: Deployment, package: Path, **sections: object) -> Task:
    """A small task: rank 2 on q_proj, rounds of one cohort, opened by hand with as few devices as may contribute."""
    data = {
        "name": TASK,
        "model": "tiny",
        "adapter": {"rank": 2, "targets": ["q_proj"], "method": "alternate"},
        "cohort": {"n_max": 8, "n_min": 3},
        "rounds": {"upload_window_s": 600, "answer_window_s": 600, "cohorts": 1},
    } | sections
    cohort = data["cohort"]
    assert isinstance(cohort, dict)
    data["cohort"] = {"pool_min": cohort["n_min"]} | cohort
    settings = TaskSettings.model_validate(data)
    manifest = catalogue.store_package(deployment.objects, package)
    with deployment.database.transaction() as session:
        catalogue.add_model(session, manifest, "tiny", now_unix_s())
        return create_task(session, deployment, settings, now_unix_s())


@contextmanager
def open_home(home: Home) -> Iterator[Deployment]:
    with opened(home.directory) as deployment:
        yield deployment


class ServeProcess:
    """`coordinator serve` in a process of its own, to be killed.

    Attributes:
        started: those that nobody has seen end; what a test that failed leaves there, tests/conftest.py ends.
    """

    started: ClassVar[list[ServeProcess]] = []

    def __init__(self, home: Home, **environment: str) -> None:
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "from coordinator.cli.main import main; main()",
                "--data",
                str(home.directory),
                "serve",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        self.started.append(self)

    def wait_until_ready(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith("ready:"), self._process.communicate()
        return line

    def kill(self) -> None:
        self._process.kill()
        self._finish()

    def terminate(self) -> int:
        self._process.send_signal(signal.SIGTERM)
        return self._finish()

    def wait_for_death(self) -> int:
        return self._finish()

    def wait_until_paused(self, timeout_s: float = 60.0) -> None:
        """Wait until the process has reached a failpoint that pauses it."""
        deadline = time.monotonic() + timeout_s
        while psutil.Process(self._process.pid).status() != psutil.STATUS_STOPPED:
            assert self.running, self._process.communicate()
            assert time.monotonic() < deadline, "the process did not pause"
            time.sleep(0.05)

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def _finish(self) -> int:
        self.output, self.errors = self._process.communicate(timeout=30)
        if self in self.started:
            self.started.remove(self)
        return self._process.returncode
