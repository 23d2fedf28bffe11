"""A profile's advice as numbers for one machine, what it lacks, and the layer under the owner's file."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from edge_client.profiles.facts import Facts
from edge_client.profiles.settings import (
    DeviceSettings,
    TrainingAdvice,
    configuration_layer,
    missing_flags,
    settings_for,
)
from edge_client.profiles.shipped import find_profile, load_profiles
from nightshift.host.configuration import load
from nightshift.protocol.errors import UsageError

PROFILES = load_profiles()
AVX2 = frozenset({"sse4_2", "avx", "avx2", "fma", "f16c", "bmi2"})
PI = Facts(
    system="Linux",
    architecture="aarch64",
    python_bits=64,
    page_size_bytes=4096,
    battery=False,
    flags=frozenset({"fp", "asimd", "crc32"}),
    processors=4,
    physical_cores=4,
    memory_mb=3790,
    thermal_zones=1,
    jemalloc=True,
)
PC = replace(PI, architecture="x86_64", flags=AVX2, processors=8, physical_cores=4, memory_mb=15711)


def settings(name: str, facts: Facts) -> DeviceSettings:
    return settings_for(find_profile(name, PROFILES), facts)


def lacks(name: str, facts: Facts) -> str:
    return "\n".join(f"{one.what}: {one.consequence}" for one in settings(name, facts).shortcomings)


def test_a_pi_4_of_4_gb() -> None:
    training = settings("raspberry-pi-4", PI).training
    assert training == TrainingAdvice(
        allowed=True,
        rank=4,
        max_tokens=256,
        micro_batch_size=1,
        threads=4,
        memory_ceiling_mb=1895,  # half of 3790
        recompute=True,
        jemalloc=True,
        trim_malloc=False,  # jemalloc is there
    )


def test_a_pi_4_of_8_gb_keeps_its_activations() -> None:
    training = settings("raspberry-pi-4", replace(PI, memory_mb=7800)).training
    assert (training.recompute, training.memory_ceiling_mb) == (False, 3900)


def test_a_pi_4_of_1_gb_does_not_train() -> None:
    found = settings("raspberry-pi-4", replace(PI, memory_mb=909))
    assert not found.training.allowed
    assert "909 MiB" in found.training.reason
    assert "1500 MiB" in found.training.reason
    assert "does not train" in lacks("raspberry-pi-4", replace(PI, memory_mb=909))


def test_a_pi_zero_2_does_not_train_whatever_it_holds() -> None:
    training = settings("raspberry-pi-zero-2", replace(PI, memory_mb=100000)).training
    assert not training.allowed
    assert "512 MB" in training.reason
    numbers = [getattr(training, one.name) for one in fields(training) if one.name not in {"allowed", "reason"}]
    assert not any(numbers)


def test_the_ceiling_is_never_above_the_profiles() -> None:
    assert settings("generic-x86", replace(PC, memory_mb=500_000)).training.memory_ceiling_mb == 8192


def test_unknown_memory_is_taken_as_the_least_that_trains() -> None:
    training = settings("raspberry-pi-4", replace(PI, memory_mb=None)).training
    assert (training.allowed, training.recompute, training.memory_ceiling_mb) == (True, True, 750)


def test_threads_follow_the_cores_that_are_there() -> None:
    assert settings("raspberry-pi-4", replace(PI, processors=2, physical_cores=2)).training.threads == 2
    assert settings("laptop-x86", PC).inference.threads == 4  # cores, not their siblings
    assert settings("generic-x86", replace(PC, processors=None, physical_cores=None)).training.threads == 1


def test_without_jemalloc_memory_is_given_back_where_it_is_short() -> None:
    assert settings("raspberry-pi-4", replace(PI, jemalloc=False)).training.trim_malloc
    assert not settings("laptop-x86", replace(PC, jemalloc=False)).training.trim_malloc
    assert "libjemalloc.so.2 is not installed" in lacks("raspberry-pi-4", replace(PI, jemalloc=False))
    assert "jemalloc" not in lacks("raspberry-pi-4", PI)


def test_jemalloc_is_not_preloaded_on_large_pages() -> None:
    facts = replace(PI, page_size_bytes=16384)
    training = settings("raspberry-pi-5", facts).training
    assert (training.jemalloc, training.trim_malloc) == (False, True)
    assert "pages are 16 KiB" in lacks("raspberry-pi-5", facts)


@pytest.mark.parametrize("flag", sorted(AVX2))
def test_llama_cpp_is_not_offered_to_a_processor_without(flag: str) -> None:
    facts = replace(PC, flags=AVX2 - {flag})
    assert missing_flags(facts) == (flag,)
    inference = settings("generic-x86", facts).inference
    assert (inference.engine, inference.engines) == ("onnxruntime", ("onnxruntime",))
    assert f"no {flag.upper()}" in lacks("generic-x86", facts)
    assert "illegal instruction" in lacks("generic-x86", facts)


def test_llama_cpp_comes_first_where_it_runs() -> None:
    assert settings("generic-x86", PC).inference.engines == ("llama.cpp", "onnxruntime")
    assert settings("android-termux", PI).inference.engine == "onnxruntime"


def test_unknown_flags_refuse_nothing() -> None:
    assert missing_flags(replace(PC, flags=frozenset())) == ()


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (replace(PI, python_bits=32), "32-bit"),
        (PI, "no dot-product"),
        (replace(PI, thermal_zones=0), "no thermal zone"),
        (replace(PI, battery=None), "whether there is a battery"),
        (replace(PI, unread=("proc/meminfo",)), "proc/meminfo gave nothing"),
    ],
)
def test_what_is_missing_is_said(facts: Facts, words: str) -> None:
    assert words in lacks("raspberry-pi-4", facts)


def test_a_machine_that_lacks_nothing() -> None:
    assert settings("laptop-x86", PC).shortcomings == ()


# The layer.


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Training(_Section):
    threads: int = 0
    memory_ceiling_mb: int = 0
    recompute: bool = False


class _Inference(_Section):
    engine: str = "auto"


class _Conditions(_Section):
    maximum_temperature_celsius: float = 0


class _Configuration(_Section):
    training: _Training = _Training()
    inference: _Inference = _Inference()
    conditions: _Conditions = _Conditions()


def layer() -> dict[str, object]:
    return configuration_layer(settings("raspberry-pi-4", PI), _Configuration)


def test_the_layer_holds_what_the_configuration_knows() -> None:
    assert layer() == {
        "inference.engine": "llama.cpp",
        "training.threads": 4,
        "training.memory_ceiling_mb": 1895,
        "training.recompute": True,
        "conditions.maximum_temperature_celsius": 75.0,
    }


def test_a_machine_that_does_not_train_sets_no_numbers_of_training() -> None:
    found = configuration_layer(settings("raspberry-pi-zero-2", PI), _Configuration)
    assert found == {"inference.engine": "llama.cpp"}


def test_the_layer_fits_the_clients_own_configuration() -> None:
    from edge_client.configuration import Configuration

    for profile in PROFILES:
        found = configuration_layer(settings_for(profile, PI), Configuration)
        assert load(Configuration, environment={}, profile=found, profile_name=profile.name).values
    assert "training.threads" in configuration_layer(settings("raspberry-pi-4", PI), Configuration)


def test_everything_overrides_the_profile(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[training]\nthreads = 3\nmemory_ceiling_mb = 700\n")
    loaded = load(
        _Configuration,
        file=file,
        environment={"TEST_TRAINING_MEMORY_CEILING_MB": "800"},
        prefix="TEST_",
        overrides={"inference.engine": "onnxruntime"},
        profile=layer(),
        profile_name="raspberry-pi-4",
    )
    assert loaded.values.training == _Training(threads=3, memory_ceiling_mb=800, recompute=True)
    assert loaded.values.inference.engine == "onnxruntime"
    assert loaded.origins == {
        "training.threads": str(file),
        "training.memory_ceiling_mb": "environment TEST_TRAINING_MEMORY_CEILING_MB",
        "training.recompute": "device profile raspberry-pi-4",
        "inference.engine": "command line",
        "conditions.maximum_temperature_celsius": "device profile raspberry-pi-4",
    }


def test_a_profile_overrides_the_default_alone() -> None:
    loaded = load(_Configuration, environment={}, profile={"training.threads": 2}, profile_name="x")
    assert loaded.values.training.threads == 2
    assert loaded.values.training.memory_ceiling_mb == 0


def test_a_layer_with_an_unknown_key_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"unknown key 'training\.thread' in device profile x; did you mean"):
        load(_Configuration, environment={}, profile={"training.thread": 2}, profile_name="x")
