"""What can be known of a machine, and the text formats that say it.

The parsers take text that anybody could have written: they skip what they do
not understand, bound every number, and leave a fact unknown (None, or an empty
string or set) rather than guess. Formats: proc(5), the kernel's
Documentation/ABI/stable/sysfs-class-power and sysfs-devices-system-cpu, the
SMBIOS specification (DSP0134, table 17) and sysctl(8) and pmset(1) of macOS.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

MAXIMUM_PROCESSORS = 4096
MAXIMUM_MEMORY_MB = 64 * 2**20  # 64 TiB
MAXIMUM_TEXT = 128  # characters of a board's or a processor's name

PORTABLE_CHASSIS = frozenset({8, 9, 10, 11, 14, 30, 31, 32})
"""Portable, laptop, notebook, hand held, sub notebook, tablet, convertible, detachable (DSP0134, table 17)."""

UNTELLING_CHASSIS = frozenset({1, 2})
"""Other and unknown: what virtual machines and careless vendors write."""

APPLE_IMPLEMENTER = 0x61
_NUMBER = re.compile(r"(0x[0-9a-fA-F]{1,8}|[0-9]{1,9})\b")
_PROOT_RELEASE = re.compile(r"PRoot-Distro|-android", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Host:
    """What the interpreter knows without reading a file.

    Attributes:
        system: `uname -s`: "Linux", "Darwin".
        release: `uname -r`.
        machine: `uname -m`.
        python_bits: pointer size of the interpreter, bits; 0 means unknown.
        page_size_bytes: of the kernel; 0 means unknown.
    """

    system: str
    release: str
    machine: str
    python_bits: int = 0
    page_size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Facts:
    """A machine as far as it could be read.

    Attributes:
        system: "Linux" or "Darwin".
        architecture: "x86_64", "aarch64", or what else `uname -m` says.
        python_bits: 32 or 64; 0 means unknown.
        page_size_bytes: of the kernel; 0 means unknown.
        android: inside an Android system (Termux, through proot-distro).
        board: device-tree model, Apple's model identifier, or the DMI product name.
        apple: a processor that Apple made.
        chassis: SMBIOS enclosure type.
        battery: one that powers the machine; None where nothing says.
        processor: its name, where the kernel tells one.
        cores: (implementer, part) of the Arm cores present.
        flags: instruction-set flags, as /proc/cpuinfo spells them.
        processors: logical ones.
        physical_cores: without the siblings of simultaneous multithreading.
        memory_mb: MiB that the kernel manages, or the control group allows if that is less.
        thermal_zones: sensors that can be read.
        jemalloc: libjemalloc.so.2 lies where the training process looks for it.
        unread: sources that were absent, unreadable or held nothing of use.
    """

    system: str = ""
    architecture: str = ""
    python_bits: int = 0
    page_size_bytes: int = 0
    android: bool = False
    board: str = ""
    apple: bool = False
    chassis: int | None = None
    battery: bool | None = None
    processor: str = ""
    cores: frozenset[tuple[int, int]] = frozenset()
    flags: frozenset[str] = frozenset()
    processors: int | None = None
    physical_cores: int | None = None
    memory_mb: int | None = None
    thermal_zones: int = 0
    jemalloc: bool = False
    unread: tuple[str, ...] = ()

    @property
    def portable(self) -> bool | None:
        """Whether a person carries it about; None where neither enclosure nor battery says.

        The enclosure has the last word: a desktop computer can have an
        uninterruptible supply that calls itself a battery.
        """
        if self.chassis is not None and self.chassis not in UNTELLING_CHASSIS:
            return self.chassis in PORTABLE_CHASSIS
        return self.battery


@dataclass(frozen=True, slots=True)
class Processors:
    """What /proc/cpuinfo says; see `Facts` for the attributes."""

    name: str = ""
    board: str = ""
    cores: frozenset[tuple[int, int]] = frozenset()
    flags: frozenset[str] = frozenset()
    logical: int | None = None
    physical: int | None = None


def parse_cpuinfo(text: str) -> Processors:
    """Read /proc/cpuinfo of x86 or Arm; what is not there stays unknown."""
    logical, name, board = 0, "", ""
    cores: set[tuple[int, int]] = set()
    flags: set[str] = set()
    places: set[tuple[str, str]] = set()
    implementer: int | None = None
    package = "0"
    for key, value in _pairs(text):
        if key == "processor":  # old Arm kernels also write "Processor", which is a name
            logical += 1
        elif key == "physical id":
            package = value[:16]
        elif key == "core id":
            places.add((package, value[:16]))
        elif key == "CPU implementer":
            implementer = parse_number(value)
        elif key == "CPU part":
            part = parse_number(value)
            if implementer is not None and part is not None:
                cores.add((implementer, part))
        elif key in {"flags", "Features"} and not flags:
            flags = {flag for flag in value.split()[:1024] if len(flag) <= 32}
        elif key == "model name" and not name:
            name = printable_text(value)
        elif key == "Model" and not board:  # Raspberry Pi kernels name the board here
            board = printable_text(value)
    plausible = 0 < logical <= MAXIMUM_PROCESSORS
    return Processors(
        name=name,
        board=board,
        cores=frozenset(cores),
        flags=frozenset(flags),
        logical=logical if plausible else None,
        physical=(min(len(places), logical) or logical) if plausible else None,
    )


def parse_memory_mb(meminfo: str) -> int | None:
    """MemTotal of /proc/meminfo, in MiB; None if it is absent or beyond belief."""
    for key, value in _pairs(meminfo):
        if key == "MemTotal" and (match := re.fullmatch(r"([0-9]{1,15}) kB", value)):
            return _plausible_mb(int(match[1]) // 1024)
    return None


def parse_memory_limit_mb(memory_max: str) -> int | None:
    """`memory.max` of a version 2 control group, in MiB; None where there is no limit ("max")."""
    text = memory_max.strip()
    return _plausible_mb(int(text) // 2**20) if re.fullmatch(r"[0-9]{1,19}", text) else None


def powers_the_machine(supply: Mapping[str, str]) -> bool:
    """Whether an entry of /sys/class/power_supply is a battery of the machine itself.

    A wireless mouse reports a battery too, with the scope "Device".

    Args:
        supply: contents of the entry's files `type`, `scope` and `present`.
    """
    return (
        supply.get("type", "").strip() == "Battery"
        and supply.get("scope", "").strip() != "Device"
        and supply.get("present", "1").strip() != "0"
    )


def parse_sysctl(text: str) -> dict[str, str]:
    """`name: value` lines of sysctl(8)."""
    return dict(_pairs(text))


def darwin_facts(host: Host, sysctl: str, batteries: str) -> Facts:
    """A Mac, from the output of `sysctl` and of `pmset -g batt`."""
    values = parse_sysctl(sysctl)
    memory = values.get("hw.memsize", "")
    processor = printable_text(values.get("machdep.cpu.brand_string", ""))
    return Facts(
        system=host.system,
        architecture=architecture_name(host.machine),
        python_bits=host.python_bits,
        page_size_bytes=host.page_size_bytes,
        board=printable_text(values.get("hw.model", "")),
        apple=processor.startswith("Apple"),
        battery="InternalBattery" in batteries if batteries else None,
        processor=processor,
        processors=_count(values.get("hw.logicalcpu", "")),
        physical_cores=_count(values.get("hw.physicalcpu", "")),
        memory_mb=_plausible_mb(int(memory) // 2**20) if re.fullmatch(r"[0-9]{1,19}", memory) else None,
        unread=tuple(name for name, output in (("sysctl", sysctl), ("pmset", batteries)) if not output),
    )


def architecture_name(machine: str) -> str:
    """One name for each architecture: macOS says arm64 and some systems amd64."""
    return {"arm64": "aarch64", "amd64": "x86_64"}.get(machine.lower(), printable_text(machine))


def is_android_release(release: str) -> bool:
    """Whether `uname -r` is that of an Android kernel, or the one that proot-distro pretends."""
    return _PROOT_RELEASE.search(release) is not None


def printable_text(text: str) -> str:
    """A name without control characters (device-tree strings end in NUL), cut to a sane length."""
    return "".join(letter for letter in text[: 4 * MAXIMUM_TEXT] if letter.isprintable()).strip()[:MAXIMUM_TEXT]


def parse_number(text: str) -> int | None:
    """A decimal or hexadecimal number of at most 32 bits."""
    match = _NUMBER.match(text.strip())
    return int(match[1], 0 if match[1].startswith("0x") else 10) if match else None


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for line in _lines(text):
        key, colon, value = line.partition(":")
        if colon:
            yield key.strip(), value.strip()


def _lines(text: str) -> Iterable[str]:
    return text.split("\n")  # not splitlines: a control character must not begin a line


def _count(text: str) -> int | None:
    number = parse_number(text)
    return number if number is not None and 0 < number <= MAXIMUM_PROCESSORS else None


def _plausible_mb(size_mb: int) -> int | None:
    return size_mb if 0 < size_mb <= MAXIMUM_MEMORY_MB else None
