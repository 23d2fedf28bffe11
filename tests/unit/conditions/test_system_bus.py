"""Properties over a real bus by the real busctl, and answers that are none."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_client.conditions.system_bus import SystemBus, parse_properties

DRIVER = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")


@pytest.fixture
def real_bus(tmp_path: Path) -> Iterator[SystemBus]:
    """A message bus of this test alone, asked by the system's busctl."""
    if shutil.which("busctl") is None or shutil.which("dbus-daemon") is None:
        pytest.skip("this system has no busctl or no dbus-daemon (Debian: systemd, dbus-daemon)")
    address = f"unix:path={tmp_path / 'bus'}"
    daemon = subprocess.Popen(
        ["dbus-daemon", "--session", "--nofork", "--print-address=1", f"--address={address}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert daemon.stdout is not None
    daemon.stdout.readline()
    yield SystemBus(("busctl", f"--address={address}"))
    daemon.terminate()
    daemon.wait()
    daemon.stdout.close()


def test_properties_of_a_service_that_runs(real_bus: SystemBus) -> None:
    """The bus itself has properties (D-Bus specification, Features and Interfaces)."""
    found = real_bus.properties(*DRIVER)
    assert found is not None
    assert isinstance(found["Interfaces"], list)


def test_a_service_that_does_not_run_is_not_started(real_bus: SystemBus) -> None:
    assert real_bus.properties("org.freedesktop.NetworkManager", "/x", "org.freedesktop.NetworkManager") is None


def test_no_bus_at_all(tmp_path: Path) -> None:
    assert SystemBus(("busctl", f"--address=unix:path={tmp_path / 'none'}")).properties(*DRIVER) is None


def test_a_bus_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_client.conditions import system_bus

    monkeypatch.setattr(system_bus, "ANSWER_WITHIN_S", 0.2)
    program = tmp_path / "busctl"
    program.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(30)\n")
    program.chmod(0o755)
    assert SystemBus((str(program),)).properties(*DRIVER) is None


@pytest.mark.parametrize(
    "answer",
    [b"", b"[]", b"{}", b"null", b'{"data": []}', b'{"data": [{"a": 1}]}', b'{"data": 5}', b"\xff", b" " * 2**21],
)
def test_what_is_no_answer(answer: bytes) -> None:
    assert parse_properties(answer) is None
