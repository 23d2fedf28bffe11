"""Networks that people have: a proxy that speaks CONNECT and may refuse, and IPv6 alone.

Real commands against a real coordinator.
"""

from __future__ import annotations

import os
import resource
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.configuration import Listen
from coordinator.deployment import initialise
from coordinator.home import Home
from scripts.night.fleet import Coordinator, Device, free_port, installed
from tests.support.connect_proxy import ConnectProxy
from tests.support.fleets import Fleet, Snapshots, copy_fleet

pytestmark = pytest.mark.slow

UNREACHABLE = 13


@pytest.fixture(scope="module")
def fleet(snapshots: Snapshots, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    copied = copy_fleet(snapshots.joined(3), tmp_path_factory.mktemp("ways") / "fleet")
    with copied.serving():
        yield copied


def behind(device: Device, **variables: str) -> Device:
    """The device with other variables."""
    return Device(device.home, device.environment | variables)


@pytest.fixture(autouse=True)
def _no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "http_proxy", "no_proxy", "grpc_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)


def test_through_a_proxy_with_a_password(fleet: Fleet) -> None:
    with ConnectProxy("pi:raspberry").serving() as proxy:
        way = f"http://pi:raspberry@127.0.0.1:{proxy.port}"
        report = behind(fleet.devices[0], https_proxy=way).run().json
        assert report["exit_code"] == 0
        assert proxy.asked[0] == f"CONNECT 127.0.0.1:{fleet.coordinator.ports[0]} HTTP/1.1"
        findings = behind(fleet.devices[0], https_proxy=f"http://127.0.0.1:{proxy.port}").command(
            "doctor", "--no-hashes", "--json", expect=None
        ).json["findings"]  # fmt: skip
    (refusal,) = [each for each in findings if each["name"] == "proxy" and each["grade"] == "problem"]
    assert "407" in refusal["value"]


@pytest.mark.parametrize(("credentials", "allowed", "status"), [("pi:raspberry", True, "407"), ("", False, "403")])
def test_a_proxy_that_refuses_is_named_with_its_status(
    fleet: Fleet, credentials: str, allowed: bool, status: str
) -> None:
    with ConnectProxy(credentials, tunnels_allowed=allowed).serving() as proxy:
        way = f"http://pi:wrong@127.0.0.1:{proxy.port}"
        done = behind(fleet.devices[0], https_proxy=way).run(expect=UNREACHABLE)
    (problem,) = done.json["problems"]
    assert f"refused with status {status}" in problem["message"]
    assert "proxy" in problem["message"]
    assert "wrong" not in done.stdout + done.stderr, "a proxy's password is nobody's business"


@pytest.mark.parametrize("direct", ["127.0.0.1", "other.example,127.0.0.1"])
def test_what_no_proxy_names_is_reached_directly(fleet: Fleet, direct: str) -> None:
    with ConnectProxy(tunnels_allowed=False).serving() as proxy:
        way = f"http://127.0.0.1:{proxy.port}"
        behind(fleet.devices[0], https_proxy=way, no_proxy=direct).run()
        assert proxy.asked == []


def test_a_pass_with_nothing_to_do_takes_under_a_second_of_processor_time(fleet: Fleet) -> None:
    """The timer calls six of them a night: TLS, the check-in, the log, the releases, and nothing is new."""
    device = behind(fleet.devices[2])
    device.run()
    used = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert device.run().json["summary"] == "nothing was due"
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(used) < 1.0, used


def test_doctor_sees_a_healthy_device(fleet: Fleet) -> None:
    shown = behind(fleet.devices[1]).command("doctor", "--json").json
    grades = {each["name"]: each["grade"] for each in shown["findings"]}
    for name in (
        "configuration",
        "platform",
        "membership",
        "certificate authority",
        "certificate",
        "DNS",
        "TCP",
        "TLS",
    ):
        assert grades[name] == "ok", shown
    assert grades["data source 1"] == "ok"
    assert any(name.startswith("model ") and grade == "ok" for name, grade in grades.items())


def test_doctor_names_the_step_that_fails(fleet: Fleet, tmp_path: Path) -> None:
    """Nobody at the port; another program at the port; another coordinator at the port."""
    port = fleet.coordinator.ports[0]
    fleet.coordinator.stop()
    try:
        shown = behind(fleet.devices[1]).command("doctor", "--no-hashes", "--json", expect=UNREACHABLE).json
        assert _problem(shown) == "TCP"
        with socket.create_server(("127.0.0.1", port)) as portal:
            portal.settimeout(30)
            process = subprocess.Popen(
                [installed("edge-client"), "--home", str(fleet.devices[1].home), "doctor", "--no-hashes"],
                stdout=subprocess.PIPE,
                env={**os.environ, **behind(fleet.devices[1]).environment},
            )
            connection, _ = portal.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: http://login.example/\r\n\r\n")
            stdout, _ = process.communicate(timeout=60)
        assert process.returncode == UNREACHABLE
        assert b"captive portal" in stdout
    finally:
        fleet.coordinator.serve()


def test_a_name_that_no_server_knows(fleet: Fleet) -> None:
    """Tries: the coordinator's name is gone from the DNS (RFC 6761: `.invalid` never resolves); then it is back."""
    device = behind(fleet.devices[2])
    file = device.home / "membership.json"
    known = file.read_text("utf-8")
    port = fleet.coordinator.ports[0]
    file.write_text(known.replace(f"127.0.0.1:{port}", f"nowhere.invalid:{port}"), "utf-8")
    try:
        done = device.run(expect=UNREACHABLE)
        assert f"nowhere.invalid:{port} cannot be reached" in done.stderr
        assert done.json["problems"][0]["reason"] == "UNREACHABLE"
        shown = device.command("doctor", "--no-hashes", "--json", expect=UNREACHABLE).json
        assert _problem(shown) == "DNS"
        waiting = device.command("status", "--json").json["waiting_until"]
        assert waiting is not None, "the timer's next passes are patient"
    finally:
        file.write_text(known, "utf-8")
    assert device.run().json["exit_code"] == 0


def _problem(shown: dict[str, list[dict[str, str]]]) -> str:
    return next(each["name"] for each in shown["findings"] if each["grade"] == "problem")


def test_over_ipv6_alone(fleet: Fleet, tmp_path: Path) -> None:
    if not socket.has_ipv6 or not _has_ipv6_loopback():
        pytest.skip("this machine has no ::1")
    ports = free_port(), free_port()
    listen = Listen(addresses=["::1"], host="::1", port=ports[0], join_port=ports[1], admin_port=free_port())
    initialise(Home(tmp_path / "coordinator"), listen)
    coordinator = Coordinator(tmp_path / "coordinator", {}, ports=ports)
    coordinator.serve()
    try:
        token = coordinator.command("token", "create", "--json").json["token"]
        device = behind(Device(tmp_path / "device", {}))
        joined = device.command("join", token, "--json").json
        assert joined["coordinator"] == f"[::1]:{ports[0]}"
        assert device.run().json["exit_code"] == 0
        shown = device.command("doctor", "--json", expect=None).json
        assert {each["name"]: each["grade"] for each in shown["findings"]}["TLS"] == "ok"
    finally:
        coordinator.stop()


def _has_ipv6_loopback() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False
