from __future__ import annotations

import pytest

from edge_client.cli.loss_curve import BARS, sparkline, thinned


def test_a_short_run_is_shown_as_it_is() -> None:
    assert thinned([3.0, 2.0, 1.0]) == [3.0, 2.0, 1.0]
    assert thinned([]) == []


def test_a_long_run_is_shown_by_the_means_of_its_parts() -> None:
    assert thinned([4.0, 2.0, 3.0, 1.0, 0.0], points=2) == pytest.approx([3.0, 4.0 / 3.0])
    curve = thinned([float(step) for step in range(1000)])
    assert len(curve) == 60
    assert curve == sorted(curve)
    assert sum(curve) / 60 == pytest.approx(499.5, abs=0.5)


def test_the_lowest_and_the_highest_have_the_lowest_and_the_highest_bar() -> None:
    assert sparkline([5.0, 3.0, 1.0]) in (BARS[7] + BARS[4] + BARS[0], BARS[7] + BARS[3] + BARS[0])
    assert sparkline([2.0, 2.0]) == BARS[0] * 2
