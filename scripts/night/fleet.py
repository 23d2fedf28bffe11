"""A coordinator and its devices as real processes, each with a directory of its own.

The demo and the end-to-end tests drive both programs only through their
command lines, as people and timers do.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STARTUP_S = 60.0
COMMAND_LIMIT_S = 300.0


class CommandFailedError(Exception):
    """A command ended with another exit code than expected; its output is the message."""


@dataclass(frozen=True, slots=True)
class Finished:
    """What a command did."""

    code: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def json(self) -> Any:
        """The one JSON object on stdout."""
        return json.loads(self.stdout)


def installed(program: str) -> str:
    """The path of a command of this environment, as `pip install` put it there."""
    return str(Path(sys.executable).parent / program)


def run_command(
    program: str, arguments: Sequence[str], environment: Mapping[str, str], *, limit_s: float = COMMAND_LIMIT_S
) -> Finished:
    """Run one of the programs to its end."""
    start = time.monotonic()
    done = subprocess.run(
        [installed(program), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=limit_s,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return Finished(done.returncode, done.stdout, done.stderr, time.monotonic() - start)


def free_port() -> int:
    """A TCP port on loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Coordinator:
    """The service: its data directory and, while it serves, its process."""

    directory: Path
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    ports: tuple[int, int] = (0, 0)

    @classmethod
    def init(cls, directory: Path, environment: Mapping[str, str] | None = None, *options: str) -> Coordinator:
        """Make keys, certificates and an empty database, with more options of `coordinator init`."""
        coordinator = cls(directory, dict(environment or {}), ports=(free_port(), free_port()))
        port, join_port = coordinator.ports
        ports = ("--port", str(port), "--join-port", str(join_port), "--admin-port", str(free_port()))
        coordinator.command("init", "--address", "127.0.0.1", *ports, *options)
        return coordinator

    def command(self, *arguments: str, expect: int = 0, environment: Mapping[str, str] | None = None) -> Finished:
        """Run `coordinator ARGUMENTS` on the data directory.

        Raises:
            CommandFailedError: it ended with another code than expected.
        """
        done = run_command(
            "coordinator",
            ["--data", str(self.directory), *arguments],
            {**self.environment, **(environment or {})},
        )
        if done.code != expect:
            raise CommandFailedError(
                f"coordinator {' '.join(arguments)}: exit {done.code}, expected {expect}\n{done.stdout}{done.stderr}"
            )
        return done

    def serve(self, environment: Mapping[str, str] | None = None, *, program: Sequence[str] = ()) -> None:
        """Start the service and wait until it says that it is ready.

        Args:
            environment: more variables for the process.
            program: what to run in place of `coordinator`, with the same arguments.

        Raises:
            CommandFailedError: it ended, or did not listen in time; the message holds its log.
        """
        path = self.directory / "serve.log"
        with path.open("ab") as log:
            said_before = log.tell()
            self.process = subprocess.Popen(
                [*(program or [installed("coordinator")]), "--data", str(self.directory), "serve"],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **self.environment, **(environment or {})},
            )
        deadline = time.monotonic() + STARTUP_S
        # An open port is not enough: another process could be the one that listens there.
        while b"ready: " not in path.read_bytes()[said_before:]:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise CommandFailedError(f"coordinator serve did not start:\n{self.log_tail()}")
            time.sleep(0.05)

    def log_tail(self) -> str:
        """The last lines of the service's log."""
        return "\n".join((self.directory / "serve.log").read_text("utf-8", "replace").splitlines()[-30:])

    def kill(self) -> None:
        """End the service as a power cut would."""
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        """End the service as systemd would."""
        self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(timeout=30)
        self.process = None


@dataclass
class Device:
    """One device: its home directory."""

    home: Path
    environment: dict[str, str] = field(default_factory=dict)

    def command(self, *arguments: str, expect: int | None = 0, **environment: str) -> Finished:
        """Run `edge-client ARGUMENTS` in this home.

        Args:
            arguments: the command and its flags.
            expect: the exit code that is right; None allows any.
            environment: more variables for this one process.

        Raises:
            CommandFailedError: it ended with another code than expected.
        """
        done = run_command(
            "edge-client",
            ["--home", str(self.home), *arguments],
            {**self.environment, **environment},
        )
        if expect is not None and done.code != expect:
            raise CommandFailedError(
                f"{self.home.name}: edge-client {' '.join(arguments)}: exit {done.code}, expected {expect}\n"
                f"{done.stdout}{done.stderr}"
            )
        return done

    def run(self, *, expect: int | None = 0, **environment: str) -> Finished:
        """One nightly pass, whatever the conditions say."""
        return self.command("run", "--now", "--json", expect=expect, **environment)
