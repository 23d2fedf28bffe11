"""Exit codes, one sentence on stderr, and text that cannot steer a terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from nightshift.host.console import emit, exit_with, note, printable
from nightshift.protocol.errors import NightshiftError, by_reason

ROOT = Path(__file__).resolve().parents[3]


def raising(error: BaseException) -> int:
    def command() -> NoReturn:
        raise error

    return exit_with(command)


def test_success_is_zero_and_silent(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_with(lambda: None) == 0
    assert exit_with(lambda: "done") == 0
    assert capsys.readouterr() == ("", "")


def test_an_exit_code_that_a_command_returns_is_kept() -> None:
    assert exit_with(lambda: 17) == 17


PLAIN = sorted(
    (kind for kind in by_reason().values() if kind.__init__ is Exception.__init__), key=lambda kind: kind.__name__
)


@pytest.mark.parametrize("kind", PLAIN)
def test_each_error_has_its_sentence_and_its_code(
    kind: type[NightshiftError], capsys: pytest.CaptureFixture[str]
) -> None:
    assert raising(kind("what to do next")) == kind.exit_code
    assert capsys.readouterr() == ("", "error: what to do next\n")


# The table that scripts rely on.
@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("INTERNAL", 1),
        ("USAGE", 2),
        ("PARTIAL", 3),
        ("DECLINED", 4),
        ("NOT_JOINED", 10),
        ("LOCKED", 11),
        ("REVOKED", 12),
        ("UNREACHABLE", 13),
        ("EQUIVOCATION", 14),
        ("LOG_INCONSISTENT", 14),
        ("INCOMPATIBLE", 15),
        ("NO_SPACE", 16),
    ],
)
def test_the_codes_that_scripts_rely_on(reason: str, code: int) -> None:
    assert raising(by_reason()[reason]("x")) == code


def test_an_interruption_is_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert raising(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "stopped\n"


def test_an_unexpected_error_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NIGHTSHIFT_TRACEBACK", raising=False)
    assert raising(ZeroDivisionError("division by zero")) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("error: unexpected ZeroDivisionError: division by zero; set NIGHTSHIFT_TRACEBACK=1")


def test_an_unexpected_error_shows_its_place_where_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        raising(ZeroDivisionError())


def test_a_command_that_exits_by_itself_keeps_its_code() -> None:
    with pytest.raises(SystemExit) as caught:
        raising(SystemExit(5))
    assert caught.value.code == 5


def test_a_real_process_ends_with_the_code() -> None:
    code = (
        "import sys\nfrom nightshift.host.console import exit_with\n"
        "from nightshift.protocol.errors import ResourceError\n"
        "def command(): raise ResourceError('disk full')\n"
        "sys.exit(exit_with(command))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (16, "", "error: disk full\n")


def test_the_result_goes_to_stdout_as_text_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"name": "Gerät \x1b[2J", "count": 3}
    emit(value, as_json=False, text="3 devices")
    assert capsys.readouterr() == ("3 devices\n", "")
    emit(value, as_json=True, text="3 devices")
    out, err = capsys.readouterr()
    assert json.loads(out) == value
    assert out.count("\n") == 1
    assert "\x1b" not in out
    assert err == ""


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("plain text, ünïcode 🌙", "plain text, ünïcode 🌙"),
        ("two\nlines", "two\nlines"),
        ("\x1b[2J\x1b]0;owned\x07", "\\x1b[2J\\x1b]0;owned\\x07"),
        ("ok\rerror", "ok\\rerror"),
        ("a\u202egnp.exe", "a\\u202egnp.exe"),
        ("\x9b31m", "\\x9b31m"),
        ("\0", "\\x00"),
        ("\udc80", "\\udc80"),
    ],
)
def test_what_could_steer_a_terminal_is_shown_instead(
    hostile: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert printable(hostile) == shown
    note(hostile)
    assert capsys.readouterr().err == shown + "\n"
    raising(NightshiftError(hostile))
    assert capsys.readouterr().err == f"error: {shown}\n"
