"""The profiles that come with the program: all are there, all are valid, all make sense together."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import pytest

from edge_client.profiles.profile import DeviceProfile
from edge_client.profiles.shipped import DIRECTORY, find_profile, load_profile, load_profiles
from nightshift.protocol.errors import UsageError

EXPECTED = {
    "raspberry-pi-4",
    "raspberry-pi-5",
    "raspberry-pi-zero-2",
    "laptop-x86",
    "laptop-apple",
    "jetson-orin-nano",
    "android-termux",
    "generic-x86",
    "generic-arm64",
}
PROFILES = {profile.name: profile for profile in load_profiles()}
TRAINING = [profile for profile in PROFILES.values() if profile.training is not None]

# shared design, models-and-training: peaks of one step, 135M Llama shape, 1 x 256 tokens, LoRA r=8 on q and v.
RECOMPUTED_JEMALLOC_MB = 472
RECOMPUTED_PLAIN_MB = 730
KEPT_PLAIN_MB = 926


def test_every_promised_profile_is_there_and_no_other() -> None:
    assert set(PROFILES) == EXPECTED


def test_the_folder_at_the_top_is_the_one_that_is_installed() -> None:
    top = Path(__file__).resolve().parents[3] / "device_profiles"
    assert DIRECTORY.resolve() == top
    assert {path.stem for path in top.iterdir()} == EXPECTED


@pytest.mark.parametrize("profile", TRAINING, ids=lambda profile: profile.name)
def test_the_least_machine_that_trains_has_room_for_a_step(profile: DeviceProfile) -> None:
    training = profile.training
    assert training is not None
    ceiling_mb = min(training.memory_ceiling_mb, training.minimum_memory_mb * training.memory_share)
    assert ceiling_mb >= RECOMPUTED_JEMALLOC_MB
    assert training.minimum_memory_mb <= training.recompute_below_mb, "the least machine must recompute"


@pytest.mark.parametrize("profile", TRAINING, ids=lambda profile: profile.name)
def test_a_machine_that_keeps_its_activations_has_room_for_them(profile: DeviceProfile) -> None:
    training = profile.training
    assert training is not None
    ceiling_mb = min(training.memory_ceiling_mb, training.recompute_below_mb * training.memory_share)
    # The table is for one example; activations grow with the micro-batch, weights do not.
    growth = KEPT_PLAIN_MB - RECOMPUTED_PLAIN_MB
    assert ceiling_mb >= KEPT_PLAIN_MB + growth * (training.micro_batch_size * training.max_tokens / 256 - 1)


def test_only_the_pi_zero_refuses_to_train_and_it_says_why() -> None:
    refusing = [profile for profile in PROFILES.values() if profile.training is None]
    assert [profile.name for profile in refusing] == ["raspberry-pi-zero-2"]
    assert "512 MB" in (refusing[0].inference_only or "")


def test_every_number_has_a_source() -> None:
    for profile in PROFILES.values():
        assert all(source.startswith("https://") for source in profile.hardware.sources)
        text = (DIRECTORY / f"{profile.name}.toml").read_text("utf-8")
        assert "docs/device-profiles.md" in text


def test_a_machine_never_trains_where_its_maker_already_throttles() -> None:
    for profile in PROFILES.values():
        pause, throttles = profile.thermal.pause_above_celsius, profile.thermal.throttles_at_celsius
        if pause is not None and throttles is not None:
            assert pause < throttles


def test_boards_do_not_claim_each_others_names() -> None:
    patterns = {name: [p for rule in one.match for p in rule.board] for name, one in PROFILES.items()}
    for (one, mine), (other, theirs) in itertools.permutations(patterns.items(), 2):
        prefixes = [pattern.rstrip("*") for pattern in theirs]
        clashes = [p for p in mine if any(prefix.startswith(p.rstrip("*")) for prefix in prefixes)]
        assert clashes == [], f"{one} would match boards of {other}"


def copy_of(name: str, directory: Path, *, without: str = "", instead: str = "") -> Path:
    file = directory / f"{name}.toml"
    shutil.copyfile(DIRECTORY / f"{name}.toml", file)
    if without:
        text = file.read_text("utf-8")
        assert text.count(without) == 1
        file.write_text(text.replace(without, instead), "utf-8")
    return file


@pytest.mark.parametrize(
    ("without", "instead", "expected"),
    [
        ("rank = 4", "rnak = 4", "training.rnak: .*did you mean 'training.rank'"),
        ("board = [", "bord = [", "match.0.bord: .*did you mean 'match.0.board'"),
        ("pause_above_celsius", "pause_over_celsius", "did you mean 'thermal.pause_above_celsius'"),
        ("rank = 4", 'rank = "4"', "training.rank: .*integer"),
        ("rank = 4", "rank = 0", "training.rank: .*greater than or equal to 1"),
        ("memory_share = 0.5", "memory_share = 1.5", "training.memory_share"),
        ("jemalloc = true", "jemalloc = 1", "training.jemalloc: .*boolean"),
        ("pause_above_celsius = 75.0", "pause_above_celsius = 90.0", "must not be above throttles_at_celsius 80"),
        ("resume_below_celsius = 65.0", "resume_below_celsius = 75.0", "must be less than pause_above_celsius"),
        ("resume_below_celsius = 65.0", "", "come together"),
        ('"llama.cpp", "onnxruntime"', '"ollama"', "inference.engines.0"),
        ('"llama.cpp", "onnxruntime"', '"llama.cpp", "llama.cpp"', "names an engine twice"),
        ('name = "raspberry-pi-4"', 'name = "raspberry-pi-5"', "expected the file's own name 'raspberry-pi-4'"),
        ('system = "Linux"', 'cores = ["cortex-a72"]', "implementer:part"),
        ("[training]", 'inference_only = "no"\n[training]', "inference.inference_only: Extra"),
        ('architecture = "aarch64"', 'architecture = "armv7l"', "match.0.architecture"),
        ('architecture = "aarch64"', "", "match.0.architecture"),
        ("[[match]]", "[match", "could not be read as TOML"),
    ],
)
def test_a_wrong_profile_is_refused_with_a_sentence(tmp_path: Path, without: str, instead: str, expected: str) -> None:
    with pytest.raises(UsageError, match=expected) as refused:
        load_profile(copy_of("raspberry-pi-4", tmp_path, without=without, instead=instead))
    assert "raspberry-pi-4.toml" in str(refused.value)


def test_a_profile_either_trains_or_says_why_not(tmp_path: Path) -> None:
    silent = copy_of("raspberry-pi-zero-2", tmp_path, without="inference_only =", instead="# inference_only =")
    with pytest.raises(UsageError, match="inference_only with the reason"):
        load_profile(silent)
    both = copy_of("raspberry-pi-4", tmp_path, without="[[match]]", instead='inference_only = "no"\n[[match]]')
    with pytest.raises(UsageError, match="inference_only with the reason"):
        load_profile(both)


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no device profile"):
        load_profiles(tmp_path)


def test_a_misspelt_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'raspberry-pi-5'"):
        find_profile("rasberry-pi5", load_profiles())
    with pytest.raises(UsageError, match="there are: android-termux"):
        find_profile("zx81", load_profiles())
