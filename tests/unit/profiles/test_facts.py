"""Reading a machine: the formats, and files that lie, are endless, or are not files."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_client.machine_files import ENTRY_LIMIT, READ_LIMIT_BYTES, read_bounded
from edge_client.profiles import reading
from edge_client.profiles.choice import choose
from edge_client.profiles.facts import (
    MAXIMUM_TEXT,
    Facts,
    Host,
    architecture_name,
    is_android_release,
    parse_cpuinfo,
    parse_memory_limit_mb,
    parse_memory_mb,
    parse_number,
    powers_the_machine,
    printable_text,
)
from edge_client.profiles.reading import PMSET, SYSCTL, read_facts
from edge_client.profiles.settings import settings_for
from edge_client.profiles.shipped import load_profiles

MACHINES = Path(__file__).resolve().parents[2] / "data" / "machines"
ARM = Host("Linux", "6.6.51", "aarch64", python_bits=64, page_size_bytes=4096)


def test_arm_cpuinfo() -> None:
    cpu = parse_cpuinfo((MACHINES / "android-termux/proc/cpuinfo").read_text())
    assert cpu.logical == 8
    assert cpu.physical == 8
    assert cpu.cores == {(0x51, 0x805), (0x41, 0xD0D)}
    assert "asimddp" in cpu.flags
    assert cpu.board == ""


def test_x86_cpuinfo_counts_cores_without_their_siblings() -> None:
    cpu = parse_cpuinfo((MACHINES / "laptop-x86/proc/cpuinfo").read_text())
    assert (cpu.logical, cpu.physical) == (8, 4)
    assert cpu.name.startswith("11th Gen Intel(R) Core(TM) i5-1135G7")
    assert {"avx2", "fma"} <= cpu.flags
    assert cpu.cores == frozenset()


def test_two_sockets_with_the_same_core_ids_are_two_cores() -> None:
    text = "".join(f"processor\t: {n}\nphysical id\t: {n}\ncore id\t\t: 0\n\n" for n in range(2))
    assert parse_cpuinfo(text).physical == 2


def test_the_first_flags_count_and_the_board_is_named_by_a_raspberry_kernel() -> None:
    cpu = parse_cpuinfo("processor: 0\nFeatures: fp asimd\nprocessor: 1\nFeatures: fp\nModel: Raspberry Pi 4 Model B\n")
    assert cpu.flags == {"fp", "asimd"}
    assert cpu.board == "Raspberry Pi 4 Model B"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("MemTotal:        3881460 kB\nMemFree: 1 kB\n", 3790),
        ("MemFree: 1 kB\n", None),
        ("MemTotal: 3881460\n", None),
        ("MemTotal: 3881460 MB\n", None),
        ("MemTotal: -1 kB\n", None),
        ("MemTotal: 100 kB\n", None),
        ("MemTotal: 999999999999999 kB\n", None),
        ("MemTotal: 99999999999999999999999999 kB\n", None),
        ("MemTotal: ٣٤٥ kB\n", None),
        ("", None),
    ],
)
def test_memory(text: str, expected: int | None) -> None:
    assert parse_memory_mb(text) == expected


def test_a_control_group_can_allow_less_than_the_machine_has(tmp_path: Path) -> None:
    write(tmp_path, "proc/meminfo", "MemTotal: 8256048 kB\n")
    write(tmp_path, "sys/fs/cgroup/memory.max", "1073741824\n")
    assert read_facts(tmp_path, host=ARM).memory_mb == 1024
    write(tmp_path, "sys/fs/cgroup/memory.max", "max\n")
    assert read_facts(tmp_path, host=ARM).memory_mb == 8062
    assert parse_memory_limit_mb("9223372036854771712") is None


@pytest.mark.parametrize(
    ("supply", "expected"),
    [
        ({"type": "Battery\n"}, True),
        ({"type": "Battery", "scope": "System", "present": "1"}, True),
        ({"type": "Battery", "scope": "Device"}, False),  # a wireless mouse
        ({"type": "Battery", "present": "0"}, False),  # an empty bay
        ({"type": "Mains"}, False),
        ({"type": "UPS"}, False),
        ({}, False),
    ],
)
def test_batteries(supply: dict[str, str], expected: bool) -> None:
    assert powers_the_machine(supply) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("10\n", 10), ("0xd08", 0xD08), ("010", 10), ("-1", None), ("", None), ("abc", None), ("9" * 5000, None)],
)
def test_numbers(text: str, expected: int | None) -> None:
    assert parse_number(text) == expected


def test_names() -> None:
    assert printable_text("Raspberry Pi 5 Model B Rev 1.0\0") == "Raspberry Pi 5 Model B Rev 1.0"
    assert printable_text("\x1b[31mred\x07\u202e") == "[31mred"
    assert len(printable_text("x" * 10**6)) == MAXIMUM_TEXT
    assert [architecture_name(name) for name in ("arm64", "AMD64", "armv7l")] == ["aarch64", "x86_64", "armv7l"]


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ("6.17.0-PRoot-Distro", True),
        ("5.10.177-android12-9-00001", True),
        ("6.6.51+rpt-rpi-v8", False),
        ("6.8.0-45-generic", False),
    ],
)
def test_android_is_known_by_its_kernel(release: str, expected: bool) -> None:
    assert is_android_release(release) is expected


def test_android_is_known_by_termux(tmp_path: Path) -> None:
    assert not read_facts(tmp_path, host=ARM).android
    (tmp_path / reading.TERMUX).mkdir(parents=True)
    assert read_facts(tmp_path, host=ARM).android


def test_a_container_hides_the_device_tree_but_not_the_board(tmp_path: Path) -> None:
    write(tmp_path, "proc/cpuinfo", (MACHINES / "raspberry-pi-4/proc/cpuinfo").read_text())
    assert read_facts(tmp_path, host=ARM).board == "Raspberry Pi 4 Model B Rev 1.5"
    write(tmp_path, "sys/firmware/devicetree/base/model", "Another board\0")
    assert read_facts(tmp_path, host=ARM).board == "Another board"


def test_a_mac_is_read_through_its_commands() -> None:
    asked: list[Sequence[str]] = []

    def run(command: Sequence[str]) -> str:
        asked.append(command)
        return (MACHINES / "laptop-apple-macos" / Path(command[0]).name).read_text()

    facts = read_facts(host=Host("Darwin", "23.6.0", "arm64", 64, 16384), run=run)
    assert asked == [SYSCTL, PMSET]
    assert (facts.architecture, facts.board, facts.processor) == ("aarch64", "MacBookAir10,1", "Apple M1")
    assert (facts.memory_mb, facts.physical_cores, facts.apple, facts.battery) == (8192, 8, True, True)


def test_a_mac_whose_commands_fail_is_unknown_not_broken() -> None:
    facts = read_facts(host=Host("Darwin", "23.6.0", "arm64"), run=lambda command: "")
    assert (facts.memory_mb, facts.battery, facts.portable, facts.unread) == (None, None, None, ("sysctl", "pmset"))
    assert choose(facts, load_profiles()).profile is not None


def test_a_command_that_is_absent_gives_nothing() -> None:
    assert reading._run(("/nonexistent/sysctl",)) == ""


# Hostile, broken and absent files.


def write(root: Path, name: str, content: str | bytes) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def settle(facts: Facts) -> None:
    """Whatever was read leads to a profile and to numbers."""
    choice = choose(facts, load_profiles())
    assert choice.profile is not None
    settings = settings_for(choice.profile, facts)
    assert settings.inference.threads >= 1
    assert settings.training.threads >= 1
    assert settings.training.memory_ceiling_mb > 0


def test_nothing_at_all(tmp_path: Path) -> None:
    facts = read_facts(tmp_path, host=ARM)
    assert facts.unread == ("proc/cpuinfo", "proc/meminfo", "sys/class/power_supply")
    assert (facts.memory_mb, facts.processors, facts.battery, facts.board) == (None, None, None, "")
    settle(facts)


SOURCES = (
    "proc/cpuinfo",
    "proc/meminfo",
    "proc/device-tree/model",
    "sys/class/dmi/id/chassis_type",
    "sys/class/dmi/id/product_name",
    "sys/fs/cgroup/memory.max",
    "sys/class/power_supply/BAT0/type",
)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 70000,
        b"\xff\xfe\x80" * 5000,
        b":" * 100000,
        b"\n" * 100000,
        b"processor : 0\n" * 20000,  # beyond belief
        b"MemTotal: " + b"9" * 100000 + b" kB\n",
        b"flags : " + b"a " * 100000 + b"\nprocessor : 0\n",
        b"CPU implementer : 0x" + b"f" * 5000 + b"\nCPU part : -1\nprocessor:\n",
        os.urandom(100000),
    ],
    ids=["empty", "zeros", "not text", "colons", "lines", "processors", "digits", "flags", "hexadecimal", "random"],
)
def test_garbage_is_unknown(tmp_path: Path, content: bytes) -> None:
    for name in SOURCES:
        write(tmp_path, name, content)
    facts = read_facts(tmp_path, host=ARM)
    assert facts.memory_mb is None
    assert facts.processors in {None, 1}
    assert len(facts.flags) <= 1024
    settle(facts)


def test_an_endless_file_is_read_only_so_far(tmp_path: Path) -> None:
    for name in SOURCES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.truncate(2**40)  # sparse: a terabyte of zeros
    assert len(read_bounded(tmp_path / SOURCES[0])) == READ_LIMIT_BYTES
    settle(read_facts(tmp_path, host=ARM))


def test_what_is_not_a_file_is_not_read(tmp_path: Path) -> None:
    for name in SOURCES[:3]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(tmp_path / "proc/cpuinfo")
    (tmp_path / "proc/meminfo").mkdir()
    (tmp_path / "proc/device-tree/model").symlink_to("/dev/zero")
    (tmp_path / "sys").symlink_to("sys")  # a loop
    started = time.monotonic()
    facts = read_facts(tmp_path, host=ARM)
    assert time.monotonic() - started < 5
    assert facts.unread == ("proc/cpuinfo", "proc/meminfo", "sys/class/power_supply")
    settle(facts)


def test_a_crowded_folder_is_listed_only_so_far(tmp_path: Path) -> None:
    for number in range(ENTRY_LIMIT + 50):
        (tmp_path / f"sys/class/thermal/thermal_zone{number}").mkdir(parents=True)
    assert read_facts(tmp_path, host=ARM).thermal_zones == ENTRY_LIMIT


@given(
    st.text(max_size=2000) | st.from_regex(r"(processor|CPU part|core id|MemTotal|flags)\s*: .{0,20}\n", fullmatch=True)
)
def test_no_text_breaks_a_parser(text: str) -> None:
    cpu = parse_cpuinfo(text)
    assert cpu.logical is None or (cpu.physical is not None and 1 <= cpu.physical <= cpu.logical)
    assert cpu.name.isprintable()
    memory_mb = parse_memory_mb(text)
    assert memory_mb is None or memory_mb > 0
