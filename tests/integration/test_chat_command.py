"""`edge-client chat` as a real process: in a pipe, and on a pseudo-terminal with a person's ctrl-c."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.local_api import adopt, command, environment, put_package
from tests.support.slow_model import STOPPED_WITHIN_S, build_slow_model
from tests.support.stories import build_stories

SETTINGS = {"EDGE_CLIENT_INFERENCE_THREADS": "1"}


@pytest.fixture(scope="module", autouse=True)
def ctrl_c_is_heard() -> Iterator[None]:
    """As in a person's shell: what a script starts in the background ignores SIGINT from its first moment."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("device")
    package = put_package(directory, build_stories(directory / "built"))
    for number, name in enumerate(["tale/1", "tale/2"]):
        adopt(directory, package, name, seed=number)
    return directory


@pytest.fixture(scope="module")
def slow_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("slow")
    put_package(directory, build_slow_model(directory))
    (directory / "config.toml").write_text("[inference]\ncontext_tokens = 8192\n")
    return directory


def talk(home: Path, lines: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(home, "chat", "--engine", "onnx", "--temperature", "0", "--max-tokens", "12", *arguments),
        input=lines,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=environment(SETTINGS),
    )


def test_in_a_pipe_answers_alone_come_out(home: Path, tmp_path: Path) -> None:
    saved = tmp_path / "saved.jsonl"
    script = f"Once upon a time\n/base\nOnce upon a time\n\n/adapter tale/1\n/nothing\n/adapter\nHello\n/save {saved}\n"
    done = talk(home, script + "/reset\n/system be kind\n/help\n/quit\nnever asked\n", "--system", "tell tales")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    conversation = json.loads(saved.read_text("utf-8"))["messages"]
    assert [each["role"] for each in conversation] == ["system", *["user", "assistant"] * 3]
    answers = [each["content"] for each in conversation if each["role"] == "assistant"]
    assert done.stdout == "".join(answer + "\n" for answer in answers)
    assert saved.stat().st_mode & 0o077 == 0
    assert "there is no /nothing" in done.stderr
    assert "tale/1\ntale/2" in done.stderr
    assert "/save PATH" in done.stderr
    assert "system: be kind" in done.stderr


def test_the_base_model_is_another_voice(home: Path) -> None:
    adapted = talk(home, "Once upon a time\n")
    base = talk(home, "Once upon a time\n", "--base")
    switched = talk(home, "/base\nOnce upon a time\n")
    assert base.stdout == switched.stdout != adapted.stdout


def test_a_pipe_learns_that_something_failed(home: Path) -> None:
    assert talk(home, "/adapter tale/9\n").returncode == 2
    long = talk(home, "word " * 600 + "\n")
    assert long.returncode == 2
    assert "Shorten it" in long.stderr


class Terminal:
    """A person at a terminal."""

    def __init__(self, home: Path, *arguments: str) -> None:
        self._screen, inside = pty.openpty()
        self.process = subprocess.Popen(
            command(home, "chat", "--engine", "onnx", "--temperature", "0", *arguments),
            stdin=inside,
            stdout=inside,
            stderr=inside,
            env=environment(SETTINGS | {"TERM": "dumb"}),
            start_new_session=True,
        )
        os.close(inside)
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self._screen, text.encode())

    def ctrl_c(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def press_ctrl_c_at_the_prompt(self, expected: str) -> None:
        """Ctrl-c until it is taken note of.

        A signal that comes between two waits of readline is kept, and becomes one with the next.
        """
        self.wait_until_it_waits()
        for _ in range(5):
            self.ctrl_c()
            try:
                self.read_until(expected, within_s=3)
            except AssertionError:
                continue
            return
        pytest.fail(f"five times ctrl-c, and no {expected!r} in {self.seen!r}")

    def wait_until_it_waits(self) -> None:
        """A person sees the prompt a moment before pressing a key."""
        deadline, times = time.monotonic() + 30, 0
        while times < 5:
            assert time.monotonic() < deadline, "it never waits for a key"
            time.sleep(0.05)
            times = times + 1 if psutil.Process(self.process.pid).status() == psutil.STATUS_SLEEPING else 0

    def read_until(self, pattern: str, *, within_s: float = 30) -> str:
        """What appears up to a pattern."""
        deadline = time.monotonic() + within_s
        while (match := re.search(pattern, self.seen)) is None:
            assert time.monotonic() < deadline, f"no {pattern!r} in {self.seen!r}"
            if select.select([self._screen], [], [], 0.1)[0]:
                self.seen += os.read(self._screen, 65536).decode("utf-8", "replace")
        text, self.seen = self.seen[: match.end()], self.seen[match.end() :]
        return text

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._screen)


@pytest.fixture
def terminal(slow_home: Path) -> Iterator[Terminal]:
    opened = Terminal(slow_home, "--max-tokens", "8000")
    yield opened
    opened.close()


def test_ctrl_c_stops_the_answer_and_keeps_the_conversation(terminal: Terminal, tmp_path: Path) -> None:
    saved = tmp_path / "saved.jsonl"
    terminal.read_until("slow on ONNX Runtime|/help lists")
    terminal.read_until("> ")
    terminal.type("hello\n")
    terminal.read_until(r"hello\r\n[^\r]{20}")
    started = time.monotonic()
    terminal.ctrl_c()
    terminal.read_until(r"\n> ")
    assert time.monotonic() - started < STOPPED_WITHIN_S
    terminal.type("again\n")
    terminal.read_until(r"again\r\n[^\r]{20}")
    terminal.ctrl_c()
    terminal.read_until(r"\n> ")
    terminal.type(f"/save {saved}\n")
    terminal.read_until("saved to .*\n")
    messages = json.loads(saved.read_text("utf-8"))["messages"]
    assert [each["role"] for each in messages] == ["user", "assistant", "user", "assistant"]
    assert all(len(each["content"]) > 10 for each in messages if each["role"] == "assistant")
    terminal.read_until("> ")
    terminal.press_ctrl_c_at_the_prompt("ctrl-c again")
    terminal.type("/quit\n")
    assert terminal.process.wait(10) == 0
