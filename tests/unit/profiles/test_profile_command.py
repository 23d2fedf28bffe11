"""`edge-client profile`, as a process: its words, its JSON and its exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edge_client.profiles.shipped import load_profiles

NAMES = [profile.name for profile in load_profiles()]


def edge_client(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edge_client.cli.main", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_detect_says_which_why_and_what_follows() -> None:
    told = edge_client("profile", "detect")
    assert told.returncode == 0, told.stderr
    assert told.stdout.split(":")[0] in NAMES
    for heading in ("because:", "this machine:", "what follows:", "  engine: "):
        assert heading in told.stdout
    answer = json.loads(edge_client("profile", "detect", "--json").stdout)
    assert answer["profile"] == told.stdout.split(":")[0]
    assert set(answer) == {"profile", "why", "alternatives", "facts", "settings", "missing"}
    assert answer["settings"]["inference"]["engine"] in {"llama.cpp", "onnxruntime"}
    assert all(set(one) == {"what", "consequence", "remedy"} for one in answer["missing"])


def test_list_names_all() -> None:
    assert [line.split()[0] for line in edge_client("profile", "list").stdout.splitlines()] == NAMES
    listed = json.loads(edge_client("profile", "list", "--json").stdout)
    assert [one["name"] for one in listed] == NAMES
    assert [one["name"] for one in listed if not one["trains"]] == ["raspberry-pi-zero-2"]


@pytest.mark.parametrize("name", ["raspberry-pi-zero-2", "laptop-apple"])
def test_show(name: str) -> None:
    shown = edge_client("profile", "show", name)
    assert shown.returncode == 0
    assert shown.stdout.startswith(name)
    profile = next(profile for profile in load_profiles() if profile.name == name)
    assert json.loads(edge_client("profile", "show", name, "--json").stdout)["description"] == profile.description
    if profile.inference_only:
        assert profile.inference_only in shown.stdout
    else:
        assert "or matches:" in shown.stdout


def test_a_misspelt_profile_is_a_usage_error() -> None:
    refused = edge_client("profile", "show", "raspbery-pi-4")
    assert refused.returncode == 2
    assert "did you mean 'raspberry-pi-4'" in refused.stderr
    assert refused.stdout == ""


def test_a_machine_that_fits_no_profile_is_incompatible() -> None:
    code = (
        "import sys\n"
        "from edge_client.profiles import reading\n"
        "from edge_client.profiles.facts import Facts\n"
        "reading.read_facts = lambda: Facts(system='Linux', architecture='armv7l')\n"
        "sys.argv = ['edge-client', 'profile', 'detect']\n"
        "from edge_client.cli.main import main\n"
        "main()\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert told.returncode == 15
    assert "architecture is armv7l" in told.stderr
    assert "32-bit Arm is not supported" in told.stderr


def test_the_settings_say_which_of_them_a_profile_advised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.toml").write_text('[device]\nprofile = "raspberry-pi-4"\n[inference]\nthreads = 1\n')
    monkeypatch.setenv("EDGE_CLIENT_TRAINING_RECOMPUTE", "true")
    done = edge_client("--home", str(tmp_path), "config", "show", "--origin", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["inference.quantisation"] == {"value": "q4_0", "origin": "device profile raspberry-pi-4"}
    assert shown["inference.threads"] == {"value": 1, "origin": str(tmp_path / "config.toml")}
    assert shown["training.recompute"] == {"value": True, "origin": "environment EDGE_CLIENT_TRAINING_RECOMPUTE"}
    assert shown["training.personal_steps"]["origin"] == "default"
