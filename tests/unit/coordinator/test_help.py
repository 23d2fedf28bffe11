"""What the command says of itself, and how a round is watched on a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from coordinator.admin import round_verbs
from coordinator.admin.operator import Operator
from coordinator.cli.main import run_command_line, whole
from coordinator.deployment import Deployment
from coordinator.home import Home
from coordinator.rounds.plans import open_round
from coordinator.storage.rows import Task
from nightshift.admin.v1 import admin_pb2
from nightshift.host.clock import now_unix_s
from nightshift.host.console import exit_with
from tests.support.coordinators import TASK, make_task
from tests.support.scripted_device import ScriptedDevice


def commands() -> Iterator[tuple[str, click.Command]]:
    def below(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[str, click.Command]]:
        if isinstance(command, click.Group):
            for name, child in command.commands.items():
                yield from below(child, (*path, name))
        else:
            yield " ".join(path), command

    return below(whole(), ())


@pytest.mark.parametrize(
    ("path", "command"), list(commands()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_command_explains_itself_with_an_example_that_it_can_read(path: str, command: click.Command) -> None:
    assert command.help
    example = command.epilog or ""
    assert example.startswith("Example: "), "help without an example"
    wanted = re.search(rf"coordinator (?:--\S+ \S+ )*{path}\b([^|&)]*)", example)
    assert wanted, f"the example shows another command: {example}"
    words = shlex.split(wanted[1])
    context = command.make_context(path, list(words), resilient_parsing=False)
    assert context.params is not None


def test_every_command_that_people_script_has_json() -> None:
    without = [path for path, command in commands() if "as_json" not in {option.name for option in command.params}]
    assert sorted(without) == ["completion", "serve", "service print"]


def test_what_changes_a_running_round_or_ends_a_right_asks_first() -> None:
    asks = {path for path, command in commands() if "yes" in {option.name for option in command.params}}
    assert asks >= {"device revoke", "device clear", "round abort", "admin revoke", "ca offline"}


def test_a_round_is_drawn_in_place_on_a_terminal(
    home: Home, served: Deployment, join: Callable[[], ScriptedDevice], package: Path
) -> None:
    make_task(served, package)
    for _ in range(3):
        join().check_in(new_prekeys=1)
    with served.database.transaction() as session:
        open_round(session, served, session.get_one(Task, TASK), now_unix_s())
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from coordinator.cli.main import main; main()",
            "--data",
            str(home.directory),
            "round",
            "watch",
            f"{TASK}/1",
            "--every",
            "0.1",
        ],
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80", "NO_COLOR": "1"},
    )
    os.close(theirs)
    seen = bytearray()

    def read() -> None:
        while True:
            try:
                data = os.read(ours, 65536)
            except OSError:  # the other end is closed
                return
            if not data:
                return
            seen.extend(data)

    reader = threading.Thread(target=read)
    reader.start()
    deadline = time.monotonic() + 30
    while b"is running" not in seen and time.monotonic() < deadline:
        time.sleep(0.05)
    request = admin_pb2.AbortRoundRequest(name=f"{TASK}/1", reason="seen enough")
    round_verbs.abort_round(Operator(served), request)
    assert process.wait(timeout=30) == 0
    reader.join(10)
    os.close(ours)
    text = seen.decode()
    assert "round 1 of commands is running" in text
    assert "round 1 of commands is void" in text
    assert "seen enough" in text
    assert "\x1b[" in text, "drawn over, not below"
    assert re.search(r"open +0 \(3 to 8\) +0 of 3 +\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", text), "a whole line in 80 columns"
    assert "…" not in text


def test_in_a_pipe_it_is_lines_and_objects(
    home: Home,
    served: Deployment,
    join: Callable[[], ScriptedDevice],
    package: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_task(served, package)
    for _ in range(3):
        join().check_in(new_prekeys=1)
    with served.database.transaction() as session:
        open_round(session, served, session.get_one(Task, TASK), now_unix_s())
    request = admin_pb2.AbortRoundRequest(name=f"{TASK}/1", reason="seen enough")
    round_verbs.abort_round(Operator(served), request)
    for flags in ([], ["--json"]):
        monkeypatch.setattr(
            sys, "argv", ["coordinator", "--data", str(home.directory), "round", "watch", f"{TASK}/1", *flags]
        )
        capsys.readouterr()
        assert exit_with(run_command_line) == 0
        (line,) = capsys.readouterr().out.splitlines()
        assert "\x1b" not in line
        assert (json.loads(line)["state"] if flags else line).endswith("void" if flags else "answers")
