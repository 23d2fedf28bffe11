"""The real program: exit codes, messages that say what to do, and JSON for programs."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from edge_client.cli.main import COMMANDS
from edge_client.home import Home
from edge_client.identity import Membership, create_identity, save_membership
from nightshift.host.tokens import JoinToken
from tests.support.authority import DAY_S, Authority, der


class Device:
    """A home directory and the program on it."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def __call__(self, *arguments: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith(("NIGHTSHIFT_", "EDGE_CLIENT_"))
        }
        done = subprocess.run(
            [sys.executable, "-m", "edge_client.cli.main", *arguments],
            capture_output=True,
            text=True,
            env={**clean, "NIGHTSHIFT_HOME": str(self.home), **environment},
            timeout=60,
            check=False,
        )
        assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", code=code).stdout)

    def join_nobody(self, *, from_s: int = -60, until_s: int = DAY_S) -> None:
        """A membership of a coordinator that is not there, with a certificate for these seconds from now."""
        now = int(time.time())
        home = Home(self.home / "config.toml", self.home, self.home / "cache")
        home.prepare()
        identity = create_identity(home)
        authority = Authority.make()
        save_membership(
            home,
            Membership(
                certificate=authority.issue(
                    identity.private_key.public_key(),
                    not_before_unix_s=now + from_s,
                    not_after_unix_s=now + until_s,
                ),
                root=der(authority.root),
                signing_certificate=authority.issue(authority.signing_key.public_key()),
                join_address="127.0.0.1:1",
                device_address="127.0.0.1:1",
                log_origin="nobody/log",
                device_name="",
                joined_unix_s=now - 60,
            ),
        )


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path / "home")


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_every_command_explains_itself_with_an_example(device: Device, command: tuple[str, ...]) -> None:
    from click.testing import CliRunner

    from edge_client.cli.main import cli

    result = CliRunner().invoke(cli, [*command, "--help"])
    assert result.exit_code == 0
    pages = [result.output]
    if "Commands:" in result.output and command:
        names = [line.split()[0] for line in result.output.split("Commands:")[1].splitlines() if line.startswith("  ")]
        pages = [CliRunner().invoke(cli, [*command, name, "--help"]).output for name in names]
    assert all("Example: edge-client" in page for page in pages)


@pytest.mark.parametrize(
    "command", [("run",), ("run", "--now"), ("log", "verify"), ("policy", "check"), ("model", "pull")]
)
def test_before_joining_what_needs_a_coordinator_exits_10(device: Device, command: tuple[str, ...]) -> None:
    assert "edge-client join TOKEN" in device(*command, code=10).stderr


def test_before_joining_status_says_what_to_do(device: Device) -> None:
    assert device.json("status")["joined"] is False
    assert device("status").stdout.startswith("not joined")


def test_a_running_pass_is_left_alone(device: Device) -> None:
    device.join_nobody()
    with (device.home / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "another run" in device("run", "--now", code=11).stderr


def test_an_expired_certificate_must_be_renewed_before_anything_else(device: Device) -> None:
    device.join_nobody(from_s=-2 * DAY_S, until_s=-DAY_S)
    (problem,) = device.json("run", "--now", code=13)["problems"]
    assert "has expired and must be renewed first" in problem["message"]


def test_a_clock_before_the_join_exits_4(device: Device) -> None:
    device.join_nobody(from_s=DAY_S, until_s=2 * DAY_S)
    (problem,) = device.json("run", "--now", code=4)["problems"]
    assert "set the clock" in problem["message"]


def test_a_coordinator_that_is_gone_exits_13_and_nothing_is_entered(device: Device) -> None:
    device.join_nobody()
    (problem,) = device.json("run", "--now", code=13)["problems"]
    assert "it will be tried again" in problem["message"]
    assert device.json("ledger") == []
    assert "exit 13" in device.json("status")["last_pass"]


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("hello", "this is not a join token"),
        ("nightshift1AAAA", "incomplete or altered"),
        (JoinToken(b"root", "a:1", "a:2", bytes(32)).encode()[:-3], "incomplete or altered"),
    ],
)
def test_a_token_that_is_none_exits_2(device: Device, token: str, message: str) -> None:
    assert message in device("join", token, code=2).stderr


def test_a_coordinator_that_does_not_answer_exits_13(device: Device) -> None:
    token = JoinToken(der(Authority.make().root), "127.0.0.1:1", "127.0.0.1:1", bytes(32)).encode()
    assert "cannot be reached" in device("join", token, code=13).stderr
    # The key that was made is kept for the next try; nothing was joined.
    assert (device.home / "identity.pem").exists()
    device("run", "--now", code=10)


def test_a_name_that_is_too_long_exits_2(device: Device) -> None:
    token = JoinToken(der(Authority.make().root), "127.0.0.1:1", "127.0.0.1:1", bytes(32)).encode()
    for name in ("x" * 65, "bell\x07"):
        assert "64 printable" in device("join", token, "--name", name, code=2).stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rnu",), "did you mean 'run'"),
        (("frobnicate",), "edge-client --help"),
        (("run", "--nwo"), "--now"),
        (("data", "add"), "PATH"),
        (("data", "add", "x", "--format", "xml"), "xml"),
        (("ledger", "--since", "yesterday"), "neither a span"),
        (("train",), "train --local"),
        (("generate", "hi", "--base", "--task", "t"), "--base means no adapter"),
        (("adapter", "use"), "name one adapter"),
        (("adapter", "use", "none/1"), "no adapter 'none/1'"),
        (("adapter", "rollback", "none"), "nothing to go back from"),
        (("adapter", "export", "none/1", "x"), "no adapter 'none/1'"),
        (("model", "show", "ab"), "no model package 'ab'"),
        (("generate", "hi"), "edge-client model pull"),
    ],
)
def test_what_cannot_work_exits_2_and_says_what_would(device: Device, arguments: tuple[str, ...], message: str) -> None:
    assert message in device(*arguments, code=2).stderr


def test_a_misspelt_setting_stops_everything_that_reads_settings(device: Device) -> None:
    device.home.mkdir()
    (device.home / "config.toml").write_text("[policy]\nminimum_cohrt = 50\n")
    for command in (("status",), ("run",), ("config", "show"), ("policy", "show")):
        assert "did you mean 'policy.minimum_cohort'" in device(*command, code=2).stderr


def test_config_says_where_each_value_comes_from(device: Device) -> None:
    device.home.mkdir()
    (device.home / "config.toml").write_text("[policy]\nminimum_cohort = 50\n")
    shown = json.loads(device("config", "show", "--origin", "--json", EDGE_CLIENT_TRAINING_THREADS="3").stdout)
    assert shown["policy.minimum_cohort"] == {"value": 50, "origin": str(device.home / "config.toml")}
    assert shown["training.threads"] == {"value": 3, "origin": "environment EDGE_CLIENT_TRAINING_THREADS"}
    assert shown["cache.quota_mb"] == {"value": 0, "origin": "default"}


def test_home_is_understood_before_and_after_the_command(device: Device, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.toml").write_text("[policy]\nminimum_cohort = 77\n")
    for arguments in (("--home", str(other), "policy", "show"), ("policy", "show", "--home", str(other))):
        assert device.json(*arguments)["minimum_cohort"] == 77


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(line + "\n" for line in lines), "utf-8")
    return path


def test_data_is_added_counted_listed_and_removed(device: Device, tmp_path: Path) -> None:
    good = write(tmp_path / "good.jsonl", *(json.dumps({"prompt": f"p{n}", "completion": "c"}) for n in range(40)))
    added = device.json("data", "add", str(good), "--format", "prompt")
    assert (added["rows"], added["skipped"]) == (40, {})
    again = device.json("data", "add", str(good), "--format", "prompt")
    assert again["number"] == added["number"]
    (counted,) = device.json("data", "stats")
    assert counted["rows"] == 40
    assert 0 < counted["held_out"] < 40
    assert [source["path"] for source in device.json("data", "list")] == [str(good)]
    device("data", "remove", str(added["number"]))
    device("data", "remove", str(added["number"]), code=2)
    assert device.json("data", "list") == []
    assert good.exists()


def test_columns_of_a_csv_are_named(device: Device, tmp_path: Path) -> None:
    table = write(tmp_path / "mail.csv", "question,answer", "when,now", "where,here")
    named = "prompt=question,completion=answer"
    assert device.json("data", "add", str(table), "--format", "csv", "--columns", named)["rows"] == 2
    wrong = device("data", "add", str(table), "--format", "csv", "--columns", "prompt=x,completion=answer", code=2)
    assert "no column 'x'" in wrong.stderr
    assert "ROLE=NAME" in device("data", "add", str(table), "--format", "csv", "--columns", "question", code=2).stderr


def test_a_bad_line_is_named_and_does_no_harm(device: Device, tmp_path: Path) -> None:
    mixed = write(tmp_path / "mixed.jsonl", '{"prompt": "a", "completion": "b"}', "", '{"prompt": 1}', "not json")
    done = device("data", "add", str(mixed), "--format", "prompt")
    assert "line 3: a field is missing" in done.stderr
    assert "line 4: not JSON" in done.stderr
    assert "1 row to learn from, 2 skipped" in done.stdout


def test_a_file_without_any_usable_row_exits_2_with_line_and_reason(device: Device, tmp_path: Path) -> None:
    bad = write(tmp_path / "bad.jsonl", "not json", '{"text": "x"}')
    done = device("data", "add", str(bad), "--format", "prompt", code=2)
    assert "line 1: not JSON" in done.stderr
    assert '{"prompt": "…", "completion": "…"}' in done.stderr
    assert device.json("data", "list") == []


@pytest.mark.parametrize("kind", ["missing", "folder", "binary", "empty", "loop"])
def test_what_is_no_data_file_exits_2(device: Device, tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind == "folder":
        path.mkdir()
    elif kind == "binary":
        path.write_bytes(bytes(range(256)))
    elif kind == "empty":
        path.touch()
    elif kind == "loop":
        path.symlink_to(path)
    assert str(path) in device("data", "add", str(path), "--format", "text", code=2).stderr


def test_json_is_one_object_and_nothing_else(device: Device) -> None:
    for command in (
        ("status",),
        ("ledger",),
        ("data", "list"),
        ("adapter", "list"),
        ("model", "list"),
        ("policy", "show"),
    ):
        device.json(*command)


def test_an_empty_ledger_says_so(device: Device) -> None:
    assert device("ledger").stdout == "nothing has left this device\n"


def test_a_store_that_is_malformed_does_not_stop_the_device(device: Device) -> None:
    device("data", "list")
    (device.home / "store.sqlite3").write_bytes(b"no database at all" * 100)
    assert device.json("data", "list") == []
    assert len(list(device.home.glob("store.sqlite3.corrupt-*"))) == 1


KEYS = "cryptography.hazmat.primitives.asymmetric.ec"
HEAVY = ("grpc", "numpy", "onnxruntime", "llama_cpp", "rich", "tokenizers", KEYS)


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        (["--help"], set()),
        (["run"], {KEYS}),
        (["ledger"], set()),
        (["data", "list"], set()),
    ],
)
def test_a_command_imports_only_what_it_uses(device: Device, arguments: list[str], allowed: set[str]) -> None:
    probe = f"""
import sys
from edge_client.cli.main import main
sys.argv[1:] = {arguments!r}
try:
    main()
except SystemExit:
    pass
print("loaded:", *(name for name in {HEAVY!r} if name in sys.modules))
"""
    environment = {**os.environ, "NIGHTSHIFT_HOME": str(device.home)}
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, env=environment, check=True)
    loaded = set(done.stdout.splitlines()[-1].split()[1:])
    assert loaded <= allowed
