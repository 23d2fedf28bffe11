"""Looking at the machine: /proc and /sys under a root (`MachineFiles`), or macOS's own commands.

What cannot be read is a fact that is unknown, never an error.
"""

from __future__ import annotations

import os
import platform
import struct
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge_client.machine_files import READ_LIMIT_BYTES, MachineFiles
from edge_client.profiles.facts import (
    APPLE_IMPLEMENTER,
    Facts,
    Host,
    Processors,
    architecture_name,
    darwin_facts,
    is_android_release,
    parse_cpuinfo,
    parse_memory_limit_mb,
    parse_memory_mb,
    parse_number,
    powers_the_machine,
    printable_text,
)
from edge_client.training.allocator import JEMALLOC_DIRECTORIES

COMMAND_LIMIT_S = 5.0

SYSCTL = (
    "/usr/sbin/sysctl",
    "-i",  # skip names that this macOS does not know
    "hw.model",
    "hw.memsize",
    "hw.logicalcpu",
    "hw.physicalcpu",
    "machdep.cpu.brand_string",
)
PMSET = ("/usr/bin/pmset", "-g", "batt")
TERMUX = "data/data/com.termux/files/usr"

Run = Callable[[Sequence[str]], str]
"""Runs a command and returns its standard output, empty if it failed."""


def read_facts(root: Path = Path("/"), *, host: Host | None = None, run: Run | None = None) -> Facts:
    """Look once.

    Args:
        root: where proc/ and sys/ lie; another one than "/" is a recorded machine.
        host: what `uname` said; this machine's by default.
        run: runs a command of macOS; the real thing by default.
    """
    known = this_host() if host is None else host
    if known.system == "Darwin":
        execute = _run if run is None else run
        return darwin_facts(known, execute(SYSCTL), execute(PMSET))
    return _linux_facts(_Source(MachineFiles(root)), known)


def this_host() -> Host:
    """What this interpreter runs on."""
    name = platform.uname()
    return Host(
        system=name.system,
        release=name.release,
        machine=name.machine,
        python_bits=8 * struct.calcsize("P"),
        page_size_bytes=os.sysconf("SC_PAGE_SIZE"),
    )


@dataclass(slots=True)
class _Source:
    """Files under a root, and the names of those that gave nothing."""

    files: MachineFiles
    unread: list[str] = field(default_factory=list)

    def text(self, name: str, *, note: bool = False) -> str:
        """The beginning of a file; empty, and noted if asked, when it cannot be read."""
        text = self.files.text(name)
        if note and not text.strip("\0 \n"):
            self.unread.append(name)
        return text

    def first(self, *names: str) -> str:
        """The first file that holds a name."""
        return next((text for name in names if (text := printable_text(self.text(name)))), "")

    def entries(self, name: str) -> list[str] | None:
        """Names in a directory; None if it cannot be listed."""
        return self.files.entries(name)

    def exists(self, name: str) -> bool:
        """Whether there is anything of this name."""
        return _exists(self.files.root / name)


def _linux_facts(source: _Source, host: Host) -> Facts:
    cpu = parse_cpuinfo(source.text("proc/cpuinfo", note=True))
    if not cpu.flags and "proc/cpuinfo" not in source.unread:
        source.unread.append("proc/cpuinfo")
    memory_mb = parse_memory_mb(source.text("proc/meminfo", note=True))
    if memory_mb is None and "proc/meminfo" not in source.unread:
        source.unread.append("proc/meminfo")
    limit_mb = parse_memory_limit_mb(source.text("sys/fs/cgroup/memory.max"))
    battery = _battery(source)
    zones = [name for name in source.entries("sys/class/thermal") or () if name.startswith("thermal_zone")]
    return Facts(
        system=host.system,
        architecture=architecture_name(host.machine),
        python_bits=host.python_bits,
        page_size_bytes=host.page_size_bytes,
        android=is_android_release(host.release) or source.exists(TERMUX),
        board=_board(source, cpu),
        apple=any(implementer == APPLE_IMPLEMENTER for implementer, _ in cpu.cores),
        chassis=parse_number(source.text("sys/class/dmi/id/chassis_type")),
        battery=battery,
        processor=cpu.name,
        cores=cpu.cores,
        flags=cpu.flags,
        processors=cpu.logical,
        physical_cores=cpu.physical,
        memory_mb=min((size for size in (memory_mb, limit_mb) if size is not None), default=None),
        thermal_zones=len(zones),
        jemalloc=any(source.exists(f"{str(place)[1:]}/libjemalloc.so.2") for place in JEMALLOC_DIRECTORIES),
        unread=tuple(source.unread),
    )


def _board(source: _Source, cpu: Processors) -> str:
    """The device tree names the board; containers hide it, but not what cpuinfo says; PCs have DMI."""
    tree = source.first("proc/device-tree/model", "sys/firmware/devicetree/base/model")
    return tree or cpu.board or source.first("sys/class/dmi/id/product_name")


def _battery(source: _Source) -> bool | None:
    """Whether the machine has a battery; None where power supplies are not shown at all.

    Virtual machines and boards have the directory and nothing in it: no battery.
    """
    names = source.entries("sys/class/power_supply")
    if names is None:
        source.unread.append("sys/class/power_supply")
        return None
    return any(
        powers_the_machine(
            {
                key: text
                for key in ("type", "scope", "present")
                if (text := source.text(f"sys/class/power_supply/{name}/{key}"))
            }
        )
        for name in names
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def _run(command: Sequence[str]) -> str:
    try:
        finished = subprocess.run(  # noqa: S603 - fixed commands of macOS by absolute path, no shell
            command, capture_output=True, timeout=COMMAND_LIMIT_S, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return finished.stdout[:READ_LIMIT_BYTES].decode("utf-8", "replace")
