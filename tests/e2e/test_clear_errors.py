"""What a person sees when something is wrong: which input, what was expected, what to do; the right exit code.

Real commands of both programs against a real coordinator; none of them may show a stack trace.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nightshift.host.tokens import JoinToken
from scripts.night.fleet import Coordinator, Device, Finished, installed, run_command
from tests.support.fleets import TASK, Fleet, Snapshots, copy_fleet, status

USAGE, NOT_JOINED, LOCKED, UNREACHABLE, UNVERIFIED, NO_SPACE = 2, 10, 11, 13, 14, 16


@pytest.fixture(scope="module")
def fleet(snapshots: Snapshots, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Three joined devices and a serving coordinator; the tests of this module leave both as they were."""
    copied = copy_fleet(snapshots.joined(3), tmp_path_factory.mktemp("errors") / "fleet")
    with copied.serving():
        yield copied


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> JoinToken:
    """A token of a coordinator with other keys, at other addresses."""
    coordinator = Coordinator.init(tmp_path_factory.mktemp("stranger") / "coordinator")
    return JoinToken.decode(coordinator.command("token", "create", "--json").json["token"])


@pytest.fixture
def newcomer(tmp_path: Path, fleet: Fleet) -> Device:
    """A device that belongs to nobody."""
    return Device(tmp_path / "newcomer", dict(fleet.devices[0].environment))


def fails(done: Finished, code: int, *expected: str) -> None:
    """See one error with an exit code and these patterns in its text."""
    assert done.code == code, f"exit {done.code}\n{done.stdout}{done.stderr}"
    assert "Traceback" not in done.stdout + done.stderr
    assert "error: " in done.stderr
    for pattern in expected:
        assert re.search(pattern, done.stderr), f"{pattern!r} is not in:\n{done.stderr}"


def new_token(fleet: Fleet, *flags: str) -> JoinToken:
    return JoinToken.decode(fleet.coordinator.command("token", "create", "--json", *flags).json["token"])


# Data files.


def test_a_bad_line_in_a_data_file_is_named_and_does_no_harm(fleet: Fleet, tmp_path: Path) -> None:
    """Tries: a file with one line of garbage among good ones. The rest is used, the line and the reason are told."""
    device = fleet.devices[0]
    path = tmp_path / "mixed.jsonl"
    good = json.dumps({"prompt": "wake me at six", "completion": "alarm"})
    path.write_text(f"{good}\n{good}\n{{not json\n{json.dumps({'prompt': 'no answer'})}\n", "utf-8")
    done = device.command("data", "add", str(path), "--format", "prompt", "--json")
    assert done.json["rows"] == 2
    assert f"{path}: line 3: not JSON" in done.stderr
    assert f"{path}: line 4: a field is missing" in done.stderr
    device.command("data", "remove", str(done.json["number"]))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\x00\x01\x02SQLite", "looks binary"),
        (b"{]\nplain words\n", "line 1: not JSON"),
        (b"", "empty"),
        (b"\xff\xfe\xfd\n", "not UTF-8"),
        (None, "no such file"),
    ],
)
def test_a_bad_data_file(content: bytes | None, expected: str, fleet: Fleet, tmp_path: Path) -> None:
    """Tries: files that hold nothing usable. Stopped by `edge-client data add`; nothing is kept of them."""
    device = fleet.devices[0]
    path = tmp_path / "bad.jsonl"
    if content is not None:
        path.write_bytes(content)
    done = device.command("data", "add", str(path), "--format", "prompt", expect=None)
    fails(done, USAGE, re.escape(str(path)), expected)
    assert len(device.command("data", "list", "--json").json) == 1


# Tokens.


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda word: "please", "should begin with 'nightshift1'"),
        (lambda word: word[:-9], "incomplete or altered"),
        (lambda word: word[:60] + ("A" if word[60] != "A" else "B") + word[61:], "incomplete or altered"),
    ],
)
def test_a_wrong_token(spoil: Callable[[str], str], expected: str, fleet: Fleet, newcomer: Device) -> None:
    """Tries: words that are no token, cut short, or with a typing error. Stopped on the device, before any network."""
    done = newcomer.command("join", spoil(new_token(fleet).encode()), expect=None)
    fails(done, USAGE, expected, "[Aa]sk|copy")


def test_a_used_token(fleet: Fleet, newcomer: Device, tmp_path: Path) -> None:
    """Tries: a second device with a token of one use. Stopped by the coordinator (enrolment/tokens.py, `redeem`)."""
    word = new_token(fleet).encode()
    newcomer.command("join", word)
    second = Device(tmp_path / "second", newcomer.environment)
    fails(second.command("join", word, expect=None), USAGE, "used up", "ask the operator")
    assert status(second)["joined"] is False


def test_an_expired_token(fleet: Fleet, newcomer: Device) -> None:
    """Tries: a token a second after its end. Stopped by the coordinator (enrolment/tokens.py, `redeem`)."""
    word = new_token(fleet, "--ttl", "60s").encode()
    fleet.move_clock(61)
    try:
        fails(newcomer.command("join", word, expect=None), USAGE, "expired", "ask the operator")
    finally:
        fleet.move_clock(-61)


def test_a_token_of_another_coordinator(fleet: Fleet, newcomer: Device, stranger: JoinToken) -> None:
    """Tries: a secret that another coordinator gave out. Stopped by the coordinator, which does not know it."""
    ours = new_token(fleet)
    mixed = JoinToken(ours.root_der, ours.join_address, ours.device_address, stranger.secret)
    fails(newcomer.command("join", mixed.encode(), expect=None), USAGE, "does not know the join token")


def test_a_device_of_one_coordinator_joins_no_other(fleet: Fleet, stranger: JoinToken) -> None:
    """Tries: another coordinator's token in a home that has joined. Stopped on the device; its membership stays."""
    device = fleet.devices[0]
    done = device.command("join", stranger.encode(), expect=None)
    fails(done, USAGE, "belongs to the coordinator at 127.0.0.1:", "--home")
    device.command("log", "verify")


def test_a_wrong_root_certificate(fleet: Fleet, newcomer: Device, stranger: JoinToken) -> None:
    """Tries: a server with another root than the token's (somebody in the middle). Stopped by TLS on the device."""
    ours = new_token(fleet)
    mixed = JoinToken(stranger.root_der, ours.join_address, ours.device_address, ours.secret)
    done = newcomer.command("join", mixed.encode(), expect=None)
    fails(done, UNVERIFIED, re.escape(ours.join_address), "certificate of the expected root", "nothing was sent")
    newcomer.command("join", ours.encode())


# Processes.


def test_a_port_in_use(tmp_path: Path) -> None:
    """Tries: to serve where another program listens. Stopped by the coordinator; it names port and setting."""
    coordinator = Coordinator.init(tmp_path / "coordinator")
    for place, key in enumerate(("port", "join_port")):
        with socket.socket() as other:
            other.bind(("127.0.0.1", coordinator.ports[place]))
            other.listen()
            done = coordinator.command("serve", expect=USAGE)
        fails(done, USAGE, f"port {coordinator.ports[place]} ", rf"\b{key}\b in coordinator.toml")


def test_a_second_service_for_the_same_directory(fleet: Fleet) -> None:
    """Tries: to serve one directory twice. Stopped by the lock; the first goes on."""
    fails(fleet.coordinator.command("serve", expect=LOCKED), LOCKED, "another run holds")
    fleet.devices[0].command("log", "verify")


def test_a_directory_without_a_coordinator(tmp_path: Path) -> None:
    """Tries: to serve an empty directory. Stopped, with the command that makes a coordinator."""
    done = run_command("coordinator", ["--data", str(tmp_path), "serve"], {})
    fails(done, USAGE, "holds no coordinator", "init")


def test_a_device_that_has_not_joined(newcomer: Device) -> None:
    """Tries: a pass in an empty home. Stopped, with the command that joins."""
    fails(newcomer.run(expect=None), NOT_JOINED, "edge-client join TOKEN")


def test_two_runs_at_once(fleet: Fleet) -> None:
    """Tries: a second pass while the first waits for the coordinator. The second ends; the first goes on."""
    device = fleet.devices[1]
    process = fleet.coordinator.process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    try:
        first = subprocess.Popen(
            [installed("edge-client"), "--home", str(device.home), "run", "--now", "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **device.environment},
        )
        _wait_for_lock(device.home / "lock", first)
        fails(device.run(expect=None), LOCKED, "another run holds", "wait for it to end")
    finally:
        process.send_signal(signal.SIGCONT)
    stdout, stderr = first.communicate(timeout=60)
    assert first.returncode == 0, stdout + stderr


def _wait_for_lock(path: Path, holder: subprocess.Popen[bytes]) -> None:
    from nightshift.host.files import exclusive_lock
    from nightshift.protocol.errors import BusyError
    from tests.support.fleets import wait_until

    def held() -> bool:
        assert holder.poll() is None, holder.communicate()
        try:
            with exclusive_lock(path):
                return False
        except BusyError:
            return True

    wait_until(held)


@pytest.mark.slow
def test_a_coordinator_that_is_down(fleet: Fleet) -> None:
    """Tries: a pass with nobody at the address. The device says so, and its model answers all the same."""
    device = fleet.devices[1]
    fleet.coordinator.stop()
    try:
        done = device.run(expect=None)
        fails(done, UNREACHABLE, rf"127\.0\.0\.1:{fleet.coordinator.ports[0]} cannot be reached", "tried again")
        assert device.command("generate", "once upon", "--engine", "onnx", "--base", "--max-tokens", "2").stdout.strip()
    finally:
        fleet.coordinator.serve()
    device.run()


# Room for the cache.


@pytest.fixture
def empty_cache(fleet: Fleet, newcomer: Device) -> Device:
    """A joined device that holds no model."""
    newcomer.command("join", new_token(fleet).encode())
    assert not (newcomer.home / "cache" / "packages").exists()
    return newcomer


def test_a_cache_beyond_its_quota(empty_cache: Device) -> None:
    """Tries: a model larger than the owner's quota. Declined before it is fetched (edge_client/model_packages.py)."""
    done = empty_cache.command("model", "pull", TASK, expect=None, EDGE_CLIENT_CACHE_QUOTA_MB="1")
    fails(done, NO_SPACE, "cache.quota_mb", "raise the quota")
    empty_cache.command("model", "pull", TASK)


def test_a_full_disk_for_the_cache(empty_cache: Device) -> None:
    """Tries: a cache on a file system of 1 MiB, in a mount namespace of its own. Refused before the download."""
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("this system lets no user make a mount namespace; the next test fills a file instead")
    cache = empty_cache.home / "small"
    cache.mkdir()
    script = 'mount -t tmpfs -o size=1m none "$1" && shift && exec "$@"'
    command = [installed("edge-client"), "--home", str(empty_cache.home), "model", "pull", TASK]
    environment = {**os.environ, **empty_cache.environment, "EDGE_CLIENT_CACHE_DIRECTORY": str(cache)}
    done = _run([*namespace, "sh", "-c", script, "sh", str(cache), *command], environment)
    fails(done, NO_SPACE, re.escape(str(cache)), "free some space or point the cache to another disk")
    empty_cache.command("model", "pull", TASK)


def test_a_write_to_the_cache_that_fails(empty_cache: Device) -> None:
    """Tries: the kernel refuses to let a file grow (ulimit -f), in mid-download. What came is kept and continued."""
    command = [installed("edge-client"), "--home", str(empty_cache.home), "model", "pull", TASK]
    script = 'ulimit -f 256 && exec "$@"'
    done = _run(["bash", "-c", script, "bash", *command], {**os.environ, **empty_cache.environment})
    fails(done, NO_SPACE, "cannot write", "nothing was lost", "Free space")
    partial = list((empty_cache.home / "cache" / "partial").iterdir())
    assert [path.stat().st_size for path in partial] == [256 * 1024]
    empty_cache.command("model", "pull", TASK)
    empty_cache.command("model", "verify")


def _run(command: list[str], environment: dict[str, str]) -> Finished:
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    return Finished(done.returncode, done.stdout, done.stderr, 0.0)
