"""Which profile a recorded machine gets, and why; ambiguous machines by the documented rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from edge_client.profiles.choice import EVIDENCE, Choice, choose, match_profile
from edge_client.profiles.facts import Facts, Host
from edge_client.profiles.profile import DeviceProfile
from edge_client.profiles.reading import read_facts
from edge_client.profiles.settings import settings_for
from edge_client.profiles.shipped import load_profiles

MACHINES = Path(__file__).resolve().parents[2] / "data" / "machines"
PROFILES = load_profiles()
PAGES = {"raspberry-pi-5": 16384, "laptop-apple-linux": 16384, "laptop-apple-macos": 16384}
EXPECTED = {
    "raspberry-pi-4": "raspberry-pi-4",
    "raspberry-pi-5": "raspberry-pi-5",
    "raspberry-pi-zero-2": "raspberry-pi-zero-2",
    "laptop-x86": "laptop-x86",
    "laptop-apple-macos": "laptop-apple",
    "laptop-apple-linux": "laptop-apple",
    "jetson-orin-nano": "jetson-orin-nano",
    "android-termux": "android-termux",
    "unknown-arm64": "generic-arm64",
    "unknown-x86": "generic-x86",
}


def recorded(name: str) -> Facts:
    folder = MACHINES / name
    system, release, machine = (folder / "uname").read_text().split()
    host = Host(system, release, machine, python_bits=64, page_size_bytes=PAGES.get(name, 4096))

    def run(command: Sequence[str]) -> str:
        return (folder / Path(command[0]).name).read_text()

    return read_facts(folder, host=host, run=run)


def chosen(facts: Facts) -> tuple[DeviceProfile, Choice]:
    choice = choose(facts, PROFILES)
    assert choice.profile is not None
    return choice.profile, choice


def test_every_recorded_machine_has_an_expectation() -> None:
    assert {path.name for path in MACHINES.iterdir() if path.is_dir()} == set(EXPECTED)
    assert set(EXPECTED.values()) == {profile.name for profile in PROFILES}


@pytest.mark.parametrize(("machine", "profile"), EXPECTED.items())
def test_a_recorded_machine_gets_its_profile(machine: str, profile: str) -> None:
    found, choice = chosen(recorded(machine))
    assert found.name == profile
    assert choice.why


@pytest.mark.parametrize("machine", EXPECTED)
def test_no_recorded_machine_is_a_tie(machine: str) -> None:
    facts = recorded(machine)
    found = [match for profile in PROFILES if (match := match_profile(facts, profile)) is not None]
    assert len({match.evidence for match in found}) == len(found)


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        ("raspberry-pi-4", "board is 'Raspberry Pi 4 Model B Rev 1.5'"),
        ("android-termux", "runs inside Android"),
        ("laptop-x86", "is portable (SMBIOS enclosure type 10, has a battery)"),
        ("laptop-apple-macos", "is portable (has a battery)"),
        ("unknown-arm64", "architecture is aarch64"),
    ],
)
def test_the_reason_names_the_telling_fact_first(machine: str, words: str) -> None:
    assert next(why for why in chosen(recorded(machine))[1].why if why != "processor is Apple's") == words


# Each pair of profiles that one machine can satisfy at once, and who wins.


def test_a_board_beats_the_generic_machine() -> None:
    for machine in (
        "raspberry-pi-4",
        "raspberry-pi-5",
        "raspberry-pi-zero-2",
        "jetson-orin-nano",
        "laptop-apple-linux",
    ):
        _, choice = chosen(recorded(machine))
        assert [other.profile.name for other in choice.alternatives] == ["generic-arm64"]


def test_a_laptop_beats_the_generic_machine() -> None:
    assert [other.profile.name for other in chosen(recorded("laptop-x86"))[1].alternatives] == ["generic-x86"]


def test_android_beats_the_board_it_runs_on() -> None:
    facts = replace(recorded("raspberry-pi-4"), android=True)
    found, choice = chosen(facts)
    assert found.name == "android-termux"
    assert [other.profile.name for other in choice.alternatives] == ["raspberry-pi-4", "generic-arm64"]


def test_a_pi_on_a_battery_stays_a_pi() -> None:
    assert chosen(replace(recorded("raspberry-pi-5"), battery=True))[0].name == "raspberry-pi-5"


def test_a_desktop_with_an_uninterruptible_supply_is_no_laptop() -> None:
    facts = replace(recorded("unknown-x86"), battery=True)
    assert facts.portable is False
    assert chosen(facts)[0].name == "generic-x86"


def test_a_laptop_that_hides_its_enclosure_is_known_by_its_battery() -> None:
    assert chosen(replace(recorded("laptop-x86"), chassis=2))[0].name == "laptop-x86"
    assert chosen(replace(recorded("laptop-x86"), chassis=None))[0].name == "laptop-x86"
    assert chosen(replace(recorded("laptop-x86"), chassis=None, battery=None))[0].name == "generic-x86"


def test_an_apple_desktop_is_no_laptop() -> None:
    facts = replace(recorded("laptop-apple-macos"), board="Macmini9,1", battery=False)
    assert chosen(facts)[0].name == "generic-arm64"


def test_an_apple_laptop_whose_battery_is_not_shown_is_known_by_its_name() -> None:
    found, choice = chosen(replace(recorded("laptop-apple-linux"), battery=None))
    assert (found.name, choice.why[0]) == ("laptop-apple", "board is 'Apple MacBook Air (M1, 2020)'")


def test_an_intel_mac_is_an_x86_laptop() -> None:
    facts = replace(recorded("laptop-apple-macos"), architecture="x86_64", apple=False, board="MacBookPro15,2")
    assert chosen(facts)[0].name == "laptop-x86"


def test_an_older_pi_is_a_generic_machine_that_does_not_train() -> None:
    facts = replace(recorded("raspberry-pi-zero-2"), board="Raspberry Pi 3 Model B Plus Rev 1.3", memory_mb=909)
    found, _ = chosen(facts)
    assert found.name == "generic-arm64"
    assert not settings_for(found, facts).training.allowed


def test_the_order_of_the_files_does_not_matter() -> None:
    facts = replace(recorded("raspberry-pi-4"), android=True)
    expected = choose(facts, PROFILES)
    for shift in range(len(PROFILES)):
        rotated = PROFILES[shift:] + PROFILES[:shift]
        assert choose(facts, rotated) == choose(facts, rotated[::-1]) == expected


def test_with_equal_evidence_the_name_decides() -> None:
    one = next(profile for profile in PROFILES if profile.name == "generic-x86")
    twin = one.model_copy(update={"name": "aardvark"})
    facts = recorded("unknown-x86")
    assert [m.profile.name for m in choose(facts, [one, twin]).alternatives] == ["generic-x86"]
    assert [m.profile.name for m in choose(facts, [twin, one]).alternatives] == ["generic-x86"]


def test_an_unknown_fact_matches_nothing() -> None:
    facts = Facts(system="Linux", architecture="aarch64")
    assert chosen(facts)[0].name == "generic-arm64"
    assert choose(facts, PROFILES).alternatives == ()


@pytest.mark.parametrize("architecture", ["armv7l", "riscv64", ""])
def test_a_machine_that_no_profile_fits_is_said_to_be_so(architecture: str) -> None:
    choice = choose(Facts(system="Linux", architecture=architecture, board="Raspberry Pi 4 Model B Rev 1.5"), PROFILES)
    assert choice.profile is None
    assert f"architecture is {architecture or 'unknown'}" in choice.why


def test_rules_for_cores_and_memory() -> None:
    base = next(profile for profile in PROFILES if profile.name == "generic-arm64")
    rule = base.match[0].model_copy(update={"cores": ("0x41:0xd08",), "at_least_mb": 1000, "at_most_mb": 4000})
    profile = base.model_copy(update={"match": (rule,)})
    pi = recorded("raspberry-pi-4")
    match = match_profile(pi, profile)
    assert match is not None
    assert match.why == ("has 0x41:0xd08 cores", "memory is 3790 MiB", "architecture is aarch64")
    assert match.evidence == tuple(name in {"cores", "memory", "architecture"} for name in EVIDENCE)
    for changed in (replace(pi, memory_mb=999), replace(pi, memory_mb=4001), replace(pi, memory_mb=None)):
        assert match_profile(changed, profile) is None
    assert match_profile(replace(pi, cores=frozenset({(0x41, 0xD0B)})), profile) is None


def test_this_machine_gets_a_profile() -> None:
    facts = read_facts()
    found, _ = chosen(facts)
    assert facts.python_bits in {32, 64}
    assert facts.page_size_bytes >= 4096
    assert settings_for(found, facts).inference.threads >= 1
