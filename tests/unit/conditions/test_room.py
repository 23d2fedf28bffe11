"""Room on the disk and in the memory."""

from __future__ import annotations

from pathlib import Path

from edge_client.conditions import Verdict
from edge_client.conditions.room import FreeDisk, FreeMemory
from tests.unit.conditions.conftest import MachineNamed


def test_free_disk_is_that_of_the_nearest_existing_folder(tmp_path: Path) -> None:
    missing = tmp_path / "not" / "there" / "yet"
    assert FreeDisk(missing, 0).read().verdict is Verdict.OK
    full = FreeDisk(missing, 1 << 40).read()
    assert full.verdict is Verdict.NO
    assert "conditions.minimum_free_disk_mb" in full.reason


def test_memory_that_could_be_had(machine: MachineNamed) -> None:
    files = machine("raspberry-pi-5")
    assert FreeMemory(files, 6046).read().value == "6046 MiB free"
    assert FreeMemory(files, 6046).read().verdict is Verdict.OK
    assert FreeMemory(files, 6047).read().verdict is Verdict.NO
    assert FreeMemory(machine("raspberry-pi-5", {"proc/meminfo": "MemTotal: 1 kB\n"}), 1).read().verdict is (
        Verdict.UNKNOWN
    )
