"""Settings: who wins, where each value came from, and what a misspelling says."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_client.configuration import Configuration, cache_directory, load_configuration
from edge_client.home import Home
from edge_client.profiles.facts import Facts
from edge_client.profiles.layer import Advice, advice_for
from nightshift.protocol.errors import UsageError

NO_ADVICE = Advice()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "config.toml", tmp_path, tmp_path / "cache")


def test_without_anything_the_defaults_hold(home: Home) -> None:
    loaded = load_configuration(home, environment={}, advice=NO_ADVICE)
    assert loaded.values == Configuration()
    assert loaded.values.policy.minimum_cohort == 10
    assert (loaded.values.policy.minimum_committee, loaded.values.policy.smallest_committee) == (None, 10)
    assert loaded.origins == {}


def test_flag_over_environment_over_file_over_default(home: Home) -> None:
    home.config_file.write_text("[policy]\nminimum_cohort = 11\nminimum_committee = 4\n[training]\nthreads = 1\n")
    environment = {"EDGE_CLIENT_POLICY_MINIMUM_COHORT": "12", "EDGE_CLIENT_TRAINING_THREADS": "2"}
    loaded = load_configuration(home, environment=environment, overrides={"training.threads": 3}, advice=NO_ADVICE)
    assert loaded.values.policy.minimum_committee == 4
    assert loaded.values.policy.minimum_cohort == 12
    assert loaded.values.training.threads == 3
    assert loaded.origins == {
        "policy.minimum_committee": str(home.config_file),
        "policy.minimum_cohort": "environment EDGE_CLIENT_POLICY_MINIMUM_COHORT",
        "training.threads": "command line",
    }


PI_4 = Facts(
    system="Linux",
    architecture="aarch64",
    board="Raspberry Pi 4 Model B Rev 1.4",
    physical_cores=4,
    memory_mb=3791,
    page_size_bytes=4096,
)


def test_the_device_profile_is_above_the_defaults_and_below_everything_else(home: Home) -> None:
    advice = advice_for("auto", Configuration, PI_4)
    assert advice.profile == "raspberry-pi-4"
    loaded = load_configuration(home, environment={}, advice=advice)
    assert (loaded.values.training.recompute, loaded.values.training.memory_ceiling_mb) == (True, 1895)
    assert loaded.origins["training.recompute"] == "device profile raspberry-pi-4"
    assert loaded.values.inference.quantisation == "q4_0"
    for key, value in {"rank": 4, "max_tokens": 256, "micro_batch_size": 1}.items():
        assert getattr(loaded.values.training, key) == value
        assert loaded.origins[f"training.{key}"] == "device profile raspberry-pi-4"
    assert "training.personal_steps" not in loaded.origins  # the default: no profile speaks of it

    home.config_file.write_text("[training]\nrecompute = false\nmemory_ceiling_mb = 900\nthreads = 3\nrank = 16\n")
    environment = {"EDGE_CLIENT_TRAINING_MEMORY_CEILING_MB": "800", "EDGE_CLIENT_TRAINING_THREADS": "2"}
    loaded = load_configuration(home, environment=environment, overrides={"training.threads": 1}, advice=advice)
    training = loaded.values.training
    assert (training.recompute, training.memory_ceiling_mb, training.threads) == (False, 800, 1)
    assert (training.rank, loaded.origins["training.rank"]) == (16, str(home.config_file))
    assert {key: loaded.origins[f"training.{key}"] for key in ("recompute", "memory_ceiling_mb", "threads")} == {
        "recompute": str(home.config_file),
        "memory_ceiling_mb": "environment EDGE_CLIENT_TRAINING_MEMORY_CEILING_MB",
        "threads": "command line",
    }
    assert loaded.origins["inference.quantisation"] == "device profile raspberry-pi-4"


def test_the_owner_names_a_profile_or_wants_none(home: Home) -> None:
    home.config_file.write_text('[device]\nprofile = "raspberry-pi-zero-2"\n')
    loaded = load_configuration(home, environment={})
    assert loaded.values.training.enabled is False
    assert loaded.origins["training.enabled"] == "device profile raspberry-pi-zero-2"
    without = load_configuration(home, environment={"EDGE_CLIENT_DEVICE_PROFILE": "none"})
    assert not any(origin.startswith("device profile") for origin in without.origins.values())
    with pytest.raises(UsageError, match="did you mean 'raspberry-pi-5'"):
        load_configuration(home, environment={"EDGE_CLIENT_DEVICE_PROFILE": "raspbery-pi-5"})


def test_this_machine_is_looked_at(home: Home) -> None:
    loaded = load_configuration(home, environment={})
    assert loaded.origins["inference.engine"].startswith("device profile ")
    assert loaded.values.inference.threads >= 1


def test_a_machine_that_no_profile_fits_keeps_the_defaults() -> None:
    assert advice_for("auto", Configuration, Facts(system="Linux", architecture="riscv64")) == NO_ADVICE


def test_a_variable_holds_a_list_as_words_with_commas(home: Home) -> None:
    loaded = load_configuration(home, environment={"EDGE_CLIENT_POLICY_TASKS": "notes, mail-*"})
    assert loaded.values.policy.tasks == ("notes", "mail-*")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[policy]\nminimum_cohrt = 4\n", "did you mean 'policy.minimum_cohort'"),
        ("[polcy]\nminimum_cohort = 4\n", "did you mean 'policy.minimum_cohort'"),
        ("[policy]\nminimum_cohort = 2\n", "minimum_cohort.*greater than or equal to 3"),
        ("[policy]\nminimum_openness = 'IV'\n", "minimum_openness"),
        ("[training]\nmax_tokens = 31\n", "max_tokens.*at least 32"),
        ("[policy\n", "TOML"),
    ],
)
def test_a_limit_that_would_not_hold_is_an_error(home: Home, text: str, message: str) -> None:
    home.config_file.write_text(text)
    with pytest.raises(UsageError, match=message):
        load_configuration(home, environment={})


def test_a_misspelt_variable_is_an_error(home: Home) -> None:
    with pytest.raises(UsageError, match="did you mean 'EDGE_CLIENT_POLICY_MINIMUM_COHORT'"):
        load_configuration(home, environment={"EDGE_CLIENT_POLICY_MINIMUM_COHOR": "4"})


def test_the_cache_can_lie_elsewhere(home: Home, tmp_path: Path) -> None:
    assert cache_directory(home, Configuration().cache) == home.cache
    settings = load_configuration(home, environment={"EDGE_CLIENT_CACHE_DIRECTORY": str(tmp_path / "big")}).values
    assert cache_directory(home, settings.cache) == tmp_path / "big"


def test_a_home_is_named_by_flag_or_environment_or_follows_xdg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path / "environment"))
    assert Home.locate(tmp_path / "flag").state == tmp_path / "flag"
    assert Home.locate(None).state == tmp_path / "environment"
    monkeypatch.delenv("NIGHTSHIFT_HOME")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "c"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "d"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "k"))
    found = Home.locate(None)
    assert found.config_file == tmp_path / "c" / "nightshift" / "config.toml"
    assert (found.state, found.cache) == (tmp_path / "d" / "nightshift", tmp_path / "k" / "nightshift")
