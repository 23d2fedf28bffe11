"""Committees of 3 to 31: whatever size a plan has, its members are the first of the draw, and nobody else."""

from __future__ import annotations

from math import comb, log2
from pathlib import Path

import pytest

from nightshift.protocol.errors import VerificationError
from nightshift.protocol.secagg.parameters import CohortParameters
from nightshift.v1 import plan_pb2
from tests.support.plans import World

THRESHOLDS = {3: 3, 4: 4, 5: 4, 7: 6, 10: 8, 16: 13, 22: 18, 31: 25}
"""C -> T = floor((2C + f) / 3) + 1 with f = max(1, floor((C - 1) / 3)), by hand."""


@pytest.fixture(scope="module")
def world() -> World:
    return World.make(devices=34)


@pytest.mark.parametrize("size", sorted(THRESHOLDS))
def test_a_committee_of_any_allowed_size_is_accepted(world: World, size: int) -> None:
    plan = world.open_cohort(committee=size).verify()
    assert len(plan.document.committee) == size
    assert plan.document.parameters.committee_size == size
    assert plan.document.parameters.threshold == THRESHOLDS[size]


@pytest.mark.parametrize("size", [3, 10, 30])
def test_a_committee_that_skips_a_place_of_the_draw_is_refused(world: World, size: int) -> None:
    """The coordinator may choose how many sit; not who."""

    def skip_one(plan: plan_pb2.Plan) -> None:
        world.seat(plan, size + 1)
        del plan.committee[1]
        for index, member in enumerate(plan.committee, start=1):
            member.index = index

    with pytest.raises(VerificationError, match="not the one that the log's seed draws"):
        world.open_cohort(committee=size, edit=skip_one).verify()


def test_the_whole_pool_may_sit() -> None:
    assert len(World.make(devices=5).open_cohort(committee=31).verify().document.committee) == 5


def tries_to_seat_a_quorum(parameters: CohortParameters, share: float) -> float:
    """log2 of the draws after which the owner of a `share` of a large pool has seated T devices, on average."""
    size = parameters.committee_size
    tail = sum(
        comb(size, count) * share**count * (1 - share) ** (size - count)
        for count in range(parameters.threshold, size + 1)
    )
    return -log2(tail)


def test_the_page_says_what_the_formulas_give() -> None:
    page = (Path(__file__).parents[3] / "docs/protocol-secagg.md").read_text("utf-8")
    table = page.split("| share bytes a contribution |")[1].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines()[1:]]
    assert [int(row[0]) for row in rows] == [3, 5, 10, 16, 22, 31]
    for size, corrupt, threshold, silent, *tries, size_bytes in rows:
        parameters = CohortParameters.derive(n_max=50, value_bits=16, committee_size=int(size))
        assert (parameters.corrupt, parameters.threshold) == (int(corrupt), int(threshold))
        assert parameters.committee_size - parameters.threshold == int(silent)
        assert parameters.committee_size * parameters.sealed_share_bytes == int(size_bytes.replace(",", ""))
        for share, said in zip((0.05, 0.1, 0.2, 0.3), tries, strict=True):
            assert said == f"2^{tries_to_seat_a_quorum(parameters, share):.0f}"
