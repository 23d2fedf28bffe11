"""A fleet whose coordinator lies when it is told to (tests/support/lying_coordinator.py)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support import lying_coordinator
from tests.support.fleets import Fleet


@dataclass(frozen=True)
class Liar:
    """A fleet whose coordinator says what it is told to say, and the truth otherwise."""

    fleet: Fleet

    @contextmanager
    def telling(self, lie: str) -> Iterator[None]:
        """Let the coordinator lie for the length of a block."""
        (self.fleet.directory / "lie").write_text(lie, "utf-8")
        try:
            yield
        finally:
            (self.fleet.directory / "lie").unlink()


@contextmanager
def served_by_a_liar(fleet: Fleet) -> Iterator[Liar]:
    """Serve a fleet's coordinator with the program that can lie."""
    environment = {
        lying_coordinator.VARIABLE: str(fleet.directory / "lie"),
        "PYTHONPATH": str(lying_coordinator.ROOT),
    }
    fleet.coordinator.serve(environment, program=lying_coordinator.PROGRAM)
    try:
        yield Liar(fleet)
    finally:
        fleet.coordinator.stop()
