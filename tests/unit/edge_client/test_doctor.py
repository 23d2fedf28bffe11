"""A check-up: each line that is not ok says how to mend it, and the exit status is that of the first problem."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from edge_client.conditions.checklist import Machine
from edge_client.conditions.system_bus import SystemBus
from edge_client.configuration import ConditionSettings
from edge_client.doctor.machine import check_machine
from edge_client.doctor.network import Proxy, proxy_for
from edge_client.doctor.service import same_configuration
from edge_client.home import Home
from edge_client.machine_files import MachineFiles
from edge_client.service.plan import Scope, plan_service
from edge_client.service.systemd import Installed, service_unit
from edge_client.store import open_store
from edge_client.store.records import LEFT, SecurityEvent
from nightshift.host.clock import now_unix_s
from nightshift.host.findings import Finding, Grade, exit_code
from nightshift.protocol.errors import ExitCode
from tests.support.authority import DAY_S
from tests.unit.edge_client.test_command_line import Device, write

MACHINES = Path(__file__).parents[2] / "data" / "machines"
NO_BUS = SystemBus(("there-is-no-such-program",))


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path / "home")


def graded(shown: dict[str, list[dict[str, str]]]) -> dict[str, str]:
    return {each["name"]: each["grade"] for each in shown["findings"]}


def test_a_device_that_has_not_joined_says_how_to(device: Device) -> None:
    shown = device.json("doctor", code=10)
    (problem,) = [each for each in shown["findings"] if each["grade"] == "problem"]
    assert problem["name"] == "membership"
    assert "edge-client join TOKEN" in problem["fix"]
    assert graded(shown)["configuration"] == graded(shown)["cache"] == graded(shown)["store"] == "ok"


def test_everything_that_is_not_ok_has_a_fix(device: Device) -> None:
    device.join_nobody()
    shown = device.json("doctor", code=13)
    for each in shown["findings"]:
        assert bool(each["fix"]) is (each["grade"] in {"warning", "problem"}), each
    assert graded(shown)["TCP"] == "problem", "nobody listens on port 1"
    assert graded(shown)["certificate"] == "ok"
    assert graded(device.json("doctor", "--no-network")).get("TCP") is None


def test_a_misspelt_setting_is_found_before_anything_else(device: Device) -> None:
    device.home.mkdir()
    (device.home / "config.toml").write_text("[conditions]\nmaximum_lod = 1\n")
    (finding,) = device.json("doctor", code=2)["findings"]
    assert "did you mean 'conditions.maximum_load'" in finding["value"]
    assert "did you mean" in device("doctor", code=2).stdout


def test_an_expired_certificate(device: Device) -> None:
    device.join_nobody(from_s=-2 * DAY_S, until_s=-DAY_S)
    assert graded(device.json("doctor", "--no-network", code=12))["certificate"] == "problem"


def test_what_the_coordinator_may_not_do_is_told_until_the_device_leaves_it(device: Device) -> None:
    device.join_nobody()
    assert graded(device.json("doctor", "--no-network"))["evidence"] == "ok"
    with open_store(Home.locate(device.home)) as store:
        store.records.add_security_event(SecurityEvent(now_unix_s(), "fork", "two heads of one size; \x1b[2Jkeep both"))
    shown = device.json("doctor", "--no-network", code=14)
    (problem,) = [each for each in shown["findings"] if each["grade"] == "problem"]
    assert problem["name"] == "evidence"
    assert "1 thing that it may not do" in problem["value"]
    assert "two heads of one size" in problem["value"]
    assert "\x1b" not in device("doctor", "--no-network", code=14).stdout
    with open_store(Home.locate(device.home)) as store:
        store.database.put(**{LEFT: now_unix_s()})
    assert graded(device.json("doctor", "--no-network"))["evidence"] == "ok"


def test_data_that_is_gone_or_cannot_be_read(device: Device, tmp_path: Path) -> None:
    device.join_nobody()
    paths = [write(tmp_path / f"{n}.txt", "some words to learn from, and then some") for n in range(2)]
    for path in paths:
        device("data", "add", str(path), "--format", "text")
    assert graded(device.json("doctor", "--no-network"))["data source 2"] == "ok"
    paths[1].unlink()
    shown = device.json("doctor", "--no-network", code=2)
    assert graded(shown)["data source 1"] == "ok"
    (problem,) = [each for each in shown["findings"] if each["grade"] == "problem"]
    assert "edge-client data remove 2" in problem["fix"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write everywhere")
def test_a_cache_that_cannot_be_written(device: Device, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    device.join_nobody()
    shown = json.loads(
        device("doctor", "--no-network", "--json", code=16, EDGE_CLIENT_CACHE_DIRECTORY=str(closed)).stdout
    )
    assert graded(shown)["cache"] == "problem"


def findings_of(name: str, tmp_path: Path, **settings: object) -> dict[str, Finding]:
    chosen = ConditionSettings.model_validate(settings)
    machine = Machine(MachineFiles(MACHINES / name), NO_BUS)
    return {finding.name: finding for finding in check_machine(chosen, tmp_path, machine)}


def test_recorded_machines(tmp_path: Path) -> None:
    pi = findings_of("raspberry-pi-5", tmp_path)
    assert pi["temperature"].value.startswith("48.2 °C")
    assert pi["supply voltage"].grade is Grade.OK
    hot = findings_of("raspberry-pi-5", tmp_path, maximum_temperature_celsius=40)
    assert (hot["temperature"].grade, hot["temperature"].exit_code) == (Grade.PROBLEM, ExitCode.NOT_NOW)
    machine = Machine(MachineFiles(MACHINES / "unknown-x86"), NO_BUS)
    lacks = [finding for finding in check_machine(ConditionSettings(), tmp_path, machine) if "AVX" in finding.value]
    assert ["onnxruntime engine" in finding.fix for finding in lacks] == [True]


def test_the_exit_status_is_that_of_the_first_problem() -> None:
    first = Finding.problem("a", "x", "y", ExitCode.NO_SPACE)
    second = Finding.problem("b", "x", "y", ExitCode.UNREACHABLE)
    assert exit_code([Finding.ok("c", "x"), Finding.warning("d", "x", "y"), first, second]) is ExitCode.NO_SPACE
    assert exit_code([Finding.ok("c", "x"), Finding.unknown("d", "x")]) is ExitCode.OK


@pytest.mark.parametrize(
    ("host", "environment", "expected"),
    [
        ("night.example", {}, None),
        ("night.example", {"https_proxy": "http://p:8080"}, Proxy("https_proxy", "p", 8080)),
        ("night.example", {"HTTPS_PROXY": "http://p:8080"}, None),
        ("night.example", {"http_proxy": "http://u:s@p"}, Proxy("http_proxy", "p", 80)),
        ("night.example", {"grpc_proxy": "http://g:1", "https_proxy": "http://p:2"}, Proxy("grpc_proxy", "g", 1)),
        ("night.example", {"grpc_proxy": "", "https_proxy": "http://p:2"}, None),
        ("night.example", {"https_proxy": "http://p:2", "no_proxy": "localhost, .example"}, None),
        ("127.0.0.1", {"https_proxy": "http://p:2", "no_proxy": "127.0.0.1"}, None),
        ("night.example", {"https_proxy": "http://p:2", "no_proxy": "other.example"}, Proxy("https_proxy", "p", 2)),
    ],
)
def test_the_proxy_that_grpc_takes(host: str, environment: dict[str, str], expected: Proxy | None) -> None:
    assert proxy_for(host, environment) == expected


@pytest.fixture
def unit(tmp_path: Path) -> tuple[Home, Path]:
    home = Home.locate(tmp_path / "home")
    path = tmp_path / "nightshift-edge.service"
    path.write_text(service_unit(plan_service(Scope.USER, home)))
    return home, path


def compared(home: Home, unit: Path, **environment: str) -> list[tuple[Grade, str]]:
    found = same_configuration(home, Scope.USER, Installed("systemd", (unit,), active=True), environment)
    return [(finding.grade, finding.value) for finding in found]


def test_a_service_that_sees_what_this_shell_sees(unit: tuple[Home, Path]) -> None:
    home, path = unit
    assert compared(home, path, PATH="/bin", NIGHTSHIFT_HOME="x") == [(Grade.OK, f"as here: {home.config_file}")]


def test_variables_that_only_this_shell_has(unit: tuple[Home, Path]) -> None:
    home, path = unit
    here = {"EDGE_CLIENT_POLICY_MINIMUM_COHORT": "5", "https_proxy": "http://p:1"}
    ((grade, value),) = compared(home, path, **here)
    assert grade is Grade.PROBLEM
    assert "EDGE_CLIENT_POLICY_MINIMUM_COHORT, https_proxy" in value
    beside = Path(f"{path}.d")
    beside.mkdir()
    (beside / "override.conf").write_text(
        '[Service]\nEnvironment="https_proxy=http://p:1"\nEnvironment=EDGE_CLIENT_POLICY_MINIMUM_COHORT=5\n'
    )
    assert [grade for grade, _ in compared(home, path, **here)] == [Grade.OK]


def test_a_service_for_another_home_or_installation(unit: tuple[Home, Path], tmp_path: Path) -> None:
    _, path = unit
    other = Home.locate(tmp_path / "other")
    ((grade, value),) = compared(other, path)
    assert (grade, "another home or another installation" in value) == (Grade.PROBLEM, True)
