from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support import nights
from tests.support.fleets import Snapshots
from tests.support.nights import Night
from tests.support.plans import Cohort, World

NightOf = Callable[..., Night]


@pytest.fixture
def night_of(snapshots: Snapshots, tmp_path: Path, move_clock: Callable[[float], None]) -> Iterator[NightOf]:
    """Makes nights with an open round; see tests/support/nights.py."""
    with ExitStack() as stack:

        def made(**numbers: int) -> Night:
            return stack.enter_context(
                nights.night(tmp_path / "coordinator", snapshots.package(), move_clock, **numbers)
            )

        yield made


@pytest.fixture
def night(night_of: NightOf) -> Night:
    """Six devices, all of them on the committee: five answers open the sum."""
    made = night_of(devices=6)
    parameters = made.plan.document.parameters
    assert (parameters.committee_size, parameters.corrupt, parameters.threshold) == (6, 1, 5)
    return made


@pytest.fixture
def world() -> World:
    """Everybody honest, without processes and rows; see tests/support/plans.py."""
    return World.make()


@pytest.fixture
def honest(world: World) -> Cohort:
    """A cohort of that world whose plan is as it should be."""
    cohort = world.open_cohort()
    cohort.verify()
    return cohort
