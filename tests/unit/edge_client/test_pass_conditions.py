"""The real program, with and without the owner's leave: pause, hours, pace, and a dry run that says why."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from edge_client.agent import eligibility, nightly_pass, pace
from edge_client.conditions import moment
from edge_client.configuration import load_configuration
from edge_client.home import Home
from edge_client.store import open_store
from nightshift.host.clock import Synchronised
from tests.support.authority import DAY_S
from tests.unit.edge_client.test_command_line import Device

QUIET = {  # this machine's own sensors decide nothing
    "EDGE_CLIENT_CONDITIONS_MAXIMUM_LOAD": "1000",
    "EDGE_CLIENT_CONDITIONS_POWER": "mains",
    "EDGE_CLIENT_CONDITIONS_METERED": "no",
    "EDGE_CLIENT_CONDITIONS_MINIMUM_IDLE_S": "0",
    "EDGE_CLIENT_CONDITIONS_MAXIMUM_TEMPERATURE_CELSIUS": "120",
    "EDGE_CLIENT_CONDITIONS_BEGIN_BELOW_CELSIUS": "120",
    "EDGE_CLIENT_CONDITIONS_MINIMUM_FREE_DISK_MB": "0",
    "EDGE_CLIENT_CONDITIONS_MINIMUM_FREE_MEMORY_MB": "0",
}
UNREACHABLE, NOT_NOW = 13, 4


@pytest.fixture
def device(tmp_path: Path) -> Device:
    made = Device(tmp_path / "home")
    made.join_nobody()
    return made


def run(device: Device, *arguments: str, code: int, **environment: str) -> Any:
    return json.loads(device("run", "--json", *arguments, code=code, **{**QUIET, **environment}).stdout)


def home_of(device: Device) -> Home:
    return Home.locate(device.home)


def test_a_pause_holds_the_timer_and_not_the_owner(device: Device) -> None:
    assert device.json("pause", "3d")["until"]
    report = run(device, code=NOT_NOW)
    assert "edge-client resume" in report["problems"][0]["message"]
    assert (
        "paused by its owner" in device.json("status")["health"]
        or "no text to learn" in device.json("status")["health"]
    )
    run(device, "--now", code=UNREACHABLE)
    assert device.json("resume") == {"paused": False, "was_paused": True}
    # The owner's pass found nobody, so the timer's own patience is what holds it now, and no pause.
    assert run(device, code=0)["waiting_until"] is not None
    assert device.json("resume")["was_paused"] is False


def test_a_pause_without_an_end_and_one_that_is_over(device: Device) -> None:
    assert device.json("pause")["until"] is None
    run(device, code=NOT_NOW)
    with open_store(home_of(device)) as store:
        store.database.put(**{eligibility.PAUSED_UNTIL: int(time.time()) - 1})
    run(device, code=UNREACHABLE)


@pytest.mark.parametrize("span", ["3x", "0d", "-1d", "d", "3 days", "999999d"])
def test_what_is_no_span(device: Device, span: str) -> None:
    assert "45m, 12h, 3d or 2w" in device("pause", "--", span, code=2).stderr


def test_pausing_before_joining_exits_10(tmp_path: Path) -> None:
    for command in ("pause", "resume"):
        Device(tmp_path / "empty")(command, code=10)


def test_a_dry_run_names_every_sensor_and_why_not(device: Device) -> None:
    other_hour = (time.localtime().tm_hour + 6) % 24
    hours = f"{other_hour:02}:00-{(other_hour + 2) % 24:02}:00"
    said = device("run", "--dry-run", code=NOT_NOW, **QUIET, EDGE_CLIENT_CONDITIONS_HOURS=hours)
    lines = {line.split(":")[0]: line for line in said.stdout.splitlines()}
    assert "(no, local time)" in lines["hours"]
    assert "(ok, conditions.power)" in lines["power"]
    assert {"pause", "clock", "input", "disk", "temperature", "load", "memory", "network", "traffic"} <= set(lines)
    assert f"outside {hours} (conditions.hours)" in said.stderr
    assert device.json("status")["last_pass"] is None, "a dry run is no pass"


def test_a_refusal_by_the_conditions_is_remembered_for_the_morning(device: Device) -> None:
    device("pause")
    run(device, code=NOT_NOW)
    assert "exit 4: failed: not now: paused" in device.json("status")["last_pass"]


def test_the_timer_keeps_the_agreed_time_and_the_owner_need_not(device: Device) -> None:
    later = int(time.time()) + 3000
    with open_store(home_of(device)) as store:
        store.database.put(**{pace.NEXT_CHECK_IN: later})
    report = run(device, code=0)
    assert report["waiting_until"] is not None
    assert report["summary"].startswith("nothing is due before ")
    assert device.json("status")["waiting_until"] == report["waiting_until"]
    assert f"connect after {report['waiting_until']}" in device("status").stdout
    run(device, "--now", code=UNREACHABLE)


def test_after_nobody_answered_the_timer_waits_and_begins_again(device: Device) -> None:
    run(device, code=UNREACHABLE)
    report = run(device, code=0)
    assert report["waiting_until"] is not None
    with sqlite3.connect(device.home / "store.sqlite3") as connection:
        (until,) = connection.execute("SELECT value FROM meta WHERE name = ?", (pace.RETRY_AFTER,)).fetchone()
        assert 400 < until - time.time() < 1400, "a quarter of an hour, more or less by half"
        connection.execute("UPDATE meta SET value = ? WHERE name = ?", (int(time.time()) - 1, pace.RETRY_AFTER))
    connection.close()
    run(device, code=UNREACHABLE)


def test_a_clock_years_ahead_stops_even_the_owner_and_wipes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 10: the certificate ended two years ago by a clock that nobody keeps. It connects to nobody."""
    device = Device(tmp_path / "home")
    device.join_nobody(from_s=-760 * DAY_S, until_s=-730 * DAY_S)
    monkeypatch.setattr(moment, "synchronised", lambda: Synchronised.NO)
    monkeypatch.setattr(nightly_pass, "connect", lambda *_: pytest.fail("it connected"))
    home = home_of(device)
    before = {path: path.read_bytes() for path in device.home.iterdir() if path.suffix in {".pem", ".json"}}
    report = nightly_pass.run_pass(home, load_configuration(home).values, now=True, dry_run=False)
    assert report.exit_code == NOT_NOW
    assert "far ahead of this device's certificate" in report.problems[0].message
    assert {path: path.read_bytes() for path in before} == before
    # Local use goes on.
    for command in (("status",), ("ledger",), ("adapter", "list"), ("model", "list")):
        device(*command)


def test_what_a_timer_and_an_owner_call_often_loads_no_runtime(device: Device) -> None:
    """What `status` and a pass that ends at its conditions cost is mostly imports (`scripts/bench client` measures)."""
    device("pause")
    for command in ("status", "run"):
        loaded = modules_after(device, command)
        assert "edge_client.configuration" in loaded
        assert not HEAVY & loaded, command


HEAVY = {"numpy", "onnxruntime", "grpc", "tokenizers", "huggingface_hub", "llama_cpp", "tuf", "asyncio"}


def modules_after(device: Device, command: str) -> set[str]:
    """What a command imported by its end, whole packages only or modules of ours."""
    code = (
        "import atexit, sys; from edge_client.cli.main import main;"
        "atexit.register(lambda: print('loaded', *sys.modules, file=sys.stderr)); main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--home", str(device.home), command], capture_output=True, text=True, check=False
    )
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("loaded ")]
    return set(line.split())


def test_sigterm_outside_of_training_ends_the_pass_at_once(device: Device) -> None:
    """The pass waits for a coordinator that accepts the connection and says nothing."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        membership = device.home / "membership.json"
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        membership.write_text(membership.read_text().replace("127.0.0.1:1", address))
        process = subprocess.Popen(
            [sys.executable, "-m", "edge_client.cli.main", "--home", str(device.home), "run", "--now"],
            stderr=subprocess.PIPE,
        )
        silent.settimeout(30)
        connection, _ = silent.accept()
        with connection:
            process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert time.monotonic() - began < 15, "the silent coordinator would be waited for longer"
    assert b"stopped" in stderr
    assert "stopped by a person or by the system" in device.json("status")["last_pass"]


def test_completion_knows_the_commands(device: Device) -> None:
    assert "_EDGE_CLIENT_COMPLETE=bash_complete" in device("completion", "bash").stdout
    words = {"_EDGE_CLIENT_COMPLETE": "bash_complete", "COMP_WORDS": "edge-client ser", "COMP_CWORD": "1"}
    assert device(**words).stdout.split() == ["plain,service", "plain,serve"]


def test_another_coordinator_is_not_made_to_wait_for_what_the_last_one_said(device: Device) -> None:
    said = (pace.NEXT_CHECK_IN, pace.RETRY_AFTER, pace.FAILURES, pace.CUT_OFF_UNTIL)
    with open_store(home_of(device)) as store:
        store.database.put(**dict.fromkeys(said, int(time.time()) + 3000))
    device("leave", "--yes")
    with open_store(home_of(device)) as store:
        assert [store.database.number(name) for name in said] == [None] * 4


def test_leaving_says_that_past_sums_stay(device: Device) -> None:
    asked = subprocess.run(
        [sys.executable, "-m", "edge_client.cli.main", "--home", str(device.home), "leave", "--wipe"],
        input="n\n", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "past sums that hold this device's part cannot be withdrawn" in asked.stderr
    assert (device.home / "identity.pem").exists()
    left = device.json("leave", "--wipe", "--yes")
    assert left["past_sums_withdrawn"] is False
    assert not (device.home / "identity.pem").exists()
