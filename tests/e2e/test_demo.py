"""The demo as a newcomer runs it: `scripts/demo --json --keep DIR`, once, and what it promises.

Six real devices, three nights, real text. How long it takes depends on the machine
and is not judged here.
"""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.support.fleets import Fleet, status

ROOT = Path(__file__).parents[2]
LIMIT_S = 900
DEVICES, ROUNDS = 6, 3
# A device adopts the last release under the name of the demo's task.
LAST_ADAPTER = f"home-commands/{ROUNDS}"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(LIMIT_S + 60)]


@dataclass(frozen=True)
class Demo:
    """What one run of the demo left."""

    report: dict[str, Any]
    directory: Path
    told: str


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """Run it; stdout must be one JSON object and nothing else."""
    directory = tmp_path_factory.mktemp("demo") / "kept"
    done = subprocess.run(
        [ROOT / "scripts" / "demo", "--json", "--keep", directory],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return Demo(json.loads(done.stdout), directory, done.stderr)


def test_the_json_has_what_programs_expect(demo: Demo) -> None:
    """Tries: the contract of `--json`, key by key."""
    report = demo.report
    assert report["devices"] == DEVICES
    assert report["rounds"] == ROUNDS
    assert report["seconds"] > 0
    assert len(report["local_devices"]) == DEVICES
    assert len(report["nights"]) == ROUNDS
    for score in (report["base"], report["local"], report["federated"], report["central"]):
        assert set(score) == {"loss", "accuracy"}
        assert score["loss"] > 0
        assert 0 <= score["accuracy"] <= 1
    assert report["federated"] == report["nights"][-1]
    assert report["local"] in report["local_devices"]
    assert report["local"]["accuracy"] == max(score["accuracy"] for score in report["local_devices"])
    assert report["bytes_per_device"] > 0
    assert "onnx" in report["engines"]


def test_every_opened_sum_was_exact(demo: Demo) -> None:
    """Tries: the demo's own comparison of opened and encoded integers, and that there was something to compare."""
    assert demo.report["sum_exact"] is True
    assert len(list((demo.directory / "coordinator" / "objects" / "sums").glob("*.npy"))) == ROUNDS


def test_learning_together_beats_every_device_alone(demo: Demo) -> None:
    """Tries: the claim, by both measures, on text that none of them learned from."""
    report = demo.report
    together = report["federated"]
    assert together["loss"] < min(score["loss"] for score in report["local_devices"])
    assert together["accuracy"] > max(score["accuracy"] for score in report["local_devices"])
    assert together["loss"] < report["base"]["loss"]
    assert all(later["loss"] < earlier["loss"] for earlier, later in pairwise([report["base"], *report["nights"]]))


def test_the_page_needs_no_other_file(demo: Demo) -> None:
    """Tries: a report that loads something: a script, a font, a picture, a style from elsewhere."""
    page = (demo.directory / "report.html").read_text("utf-8")
    assert "<svg" in page
    without_namespaces = re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
    assert not re.search(r"https?:|//\w|@import|url\(|<script|<link|<iframe|src=", without_namespaces, re.IGNORECASE)


def test_what_was_kept_can_be_looked_into(demo: Demo) -> None:
    """Tries: the kept directories with the ordinary commands, with everything stopped."""
    fleet = Fleet.at(demo.directory)
    assert len(fleet.devices) == DEVICES
    for device in fleet.devices:
        shown = status(device)
        assert shown["adapters_in_use"] == [LAST_ADAPTER]
        assert shown["security_events"] == []
        assert shown["contributions"] == ROUNDS
    assert fleet.releases() == list(range(ROUNDS + 1))
    assert str(demo.directory / "report.html") in demo.told
