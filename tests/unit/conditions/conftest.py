"""Copies of recorded machines (tests/data/machines) that a test may change, and buses that answer as told."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_client.conditions.system_bus import SystemBus
from edge_client.machine_files import MachineFiles

MACHINES = Path(__file__).parents[2] / "data" / "machines"

MachineNamed = Callable[..., MachineFiles]


@pytest.fixture
def machine(tmp_path: Path) -> MachineNamed:
    """`machine("laptop-x86", {"sys/…/online": "0"})`: a copy in which single files read otherwise."""

    def make(name: str, changes: dict[str, str | None] | None = None) -> MachineFiles:
        root = tmp_path / name
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(MACHINES / name, root)
        for place, text in (changes or {}).items():
            path = root / place
            if text is None:
                path.unlink()
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return MachineFiles(root)

    return make


@pytest.fixture
def bus(tmp_path: Path) -> Callable[[str], SystemBus]:
    """A program in the place of busctl that prints an answer; the real one is asked in test_system_bus.py."""

    def make(answer: str) -> SystemBus:
        (tmp_path / "answer").write_text(answer)
        program = tmp_path / "busctl"
        program.write_text(f"#!{sys.executable}\nprint(open({str(tmp_path / 'answer')!r}).read())\n")
        program.chmod(0o755)
        return SystemBus((str(program), "--system"))

    return make


@pytest.fixture
def no_bus() -> SystemBus:
    return SystemBus(("there-is-no-such-program",))
