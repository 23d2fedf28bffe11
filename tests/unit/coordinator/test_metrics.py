"""What Prometheus is told, asked over HTTP during a real night."""

from __future__ import annotations

import re
import socket
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from prometheus_client.parser import text_string_to_metric_families

from coordinator.deployment import Deployment
from coordinator.home import Home
from coordinator.metrics import Standing
from coordinator.service.server import serving
from coordinator.storage.database import Database
from nightshift.protocol.errors import UnavailableError, UsageError
from tests.support.coordinators import free_port, make_home, open_home
from tests.support.nights import night

ROOT = Path(__file__).resolve().parents[3]
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scraped(port: int) -> tuple[Samples, str]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
        text: str = reply.read().decode()
    samples: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples[sample.name, frozenset(sample.labels.items())] = sample.value
    return samples, text


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def test_a_night_as_prometheus_sees_it(
    tmp_path: Path, package: Path, clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("NIGHTSHIFT_COORDINATOR_METRICS_PORT", str(port))
    with night(tmp_path / "coordinator", package, clock, devices=3) as tonight:
        samples, _ = scraped(port)
        assert value(samples, "nightshift_devices", state="enrolled") == 3
        assert value(samples, "nightshift_rounds", state="running") == 1
        assert value(samples, "nightshift_cohorts", state="open") == 1
        assert value(samples, "nightshift_contributions", state="counted") == 0
        before = value(samples, "nightshift_uploaded_bytes_total")
        prepared = tonight.contribute(*tonight.devices)
        tonight.answer(*tonight.members())
        samples, text = scraped(port)
        assert value(samples, "nightshift_uploaded_bytes_total") - before == sum(len(one.body) for one in prepared)
        assert value(samples, "nightshift_contributions", state="counted") == 3
        assert value(samples, "nightshift_cohorts", state="opened") == 1
        assert value(samples, "nightshift_rounds", state="published") == 1
        assert value(samples, "nightshift_releases_total") == 2
        assert value(samples, "nightshift_database_up") == 1
        assert value(samples, "nightshift_deadline_overdue_seconds") == 0
        answered = {"listener": "device", "method": "Answer", "code": "OK"}
        assert value(samples, "nightshift_calls_total", **answered) == 3
        joined = {"listener": "join", "method": "Join"}
        assert value(samples, "nightshift_call_duration_seconds_count", **joined) == 3
        assert value(samples, "nightshift_calls_under_way", listener="device") == 0
        for device in tonight.devices:
            assert device.device_id.hex()[:8] not in text, "no label names a device"


def test_names_are_as_prometheus_wants_them_and_as_the_documentation_lists_them(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("NIGHTSHIFT_COORDINATOR_METRICS_PORT", str(port))
    with open_home(home) as deployment, serving(deployment):
        _, text = scraped(port)
    kinds = dict(re.findall(r"^# TYPE (nightshift_\w+) (\w+)$", text, re.MULTILINE))
    assert {name for name, kind in kinds.items() if kind == "counter"} == {
        name for name in kinds if name.endswith("_total")
    }
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    assert dict(re.findall(r"^\| `(nightshift_\w+)` \| (\w+) \|", page, re.MULTILINE)) == kinds


def test_a_database_that_is_down_is_said_and_nothing_is_made_up(deployment: Deployment) -> None:
    class Down:
        @contextmanager
        def reading(self) -> Iterator[None]:
            raise UnavailableError("the database does not answer")
            yield

    found = {metric.name: metric for metric in Standing(replace(deployment, database=cast(Database, Down()))).collect()}
    assert [sample.value for sample in found["nightshift_database_up"].samples] == [0]
    assert set(found) == {
        "nightshift_build_info",
        "nightshift_certificate_expiry_timestamp_seconds",
        "nightshift_database_up",
    }
    whole = {metric.name: metric for metric in Standing(deployment).collect()}
    assert [sample.value for sample in whole["nightshift_database_up"].samples] == [1]
    assert "nightshift_devices" in whole


def test_a_port_in_use_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = make_home(tmp_path / "coordinator")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setenv("NIGHTSHIFT_COORDINATOR_METRICS_PORT", str(taken.getsockname()[1]))
        with (
            pytest.raises(UsageError, match=r"cannot be used for metrics.*change metrics\.port"),
            open_home(home) as deployment,
            serving(deployment),
        ):
            pass
