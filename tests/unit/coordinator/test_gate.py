"""What the gate makes of a measurement, and what bound a sum must keep: arithmetic only."""

from __future__ import annotations

import numpy as np
import pytest

from coordinator.aggregation.bounds import require_within_bound
from coordinator.aggregation.fedavg import RoundSum
from coordinator.releases.gate import GateRule, Verdict, judge, measurement_of
from nightshift.protocol.adapters import Side
from nightshift.protocol.decision import Measurement
from nightshift.protocol.plan import PlanDocument
from nightshift.protocol.secagg.encoding import OpenedSum
from nightshift.protocol.secagg.errors import SumOutOfRangeError
from nightshift.v1 import plan_pb2
from tests.support.plans import LAYOUT, World

RULE = GateRule(margin=0.1, minimum_devices=5, share_better=0.6, patience=0)


def measured(
    *, devices: int = 5, served: float = 2.0, candidate: float = 1.8, better: int = 4, share: float = 0.7
) -> Measurement:
    return Measurement((b"h" * 32,), devices, served, candidate, better, share)


@pytest.mark.parametrize(
    ("measurement", "verdict"),
    [
        (measured(), Verdict.PROMOTE),
        (measured(candidate=1.9), Verdict.PROMOTE),
        (measured(candidate=1.91), Verdict.DROP),
        (measured(candidate=2.5, share=0.9), Verdict.DROP),
        # A mean that one liar moved does not promote what most devices find worse.
        (measured(served=5.0, better=1, share=0.2), Verdict.DROP),
        (measured(share=0.6), Verdict.PROMOTE),
        (measured(share=0.59), Verdict.DROP),
        (measured(devices=4), Verdict.HOLD),
    ],
)
def test_a_candidate_must_be_better_by_the_margin_on_enough_devices(measurement: Measurement, verdict: Verdict) -> None:
    assert judge(measurement, RULE, rounds_held=0).verdict is verdict


def test_what_is_the_same_for_every_device_is_not_better() -> None:
    lenient = GateRule(margin=0.0, minimum_devices=3, share_better=0.0, patience=0)
    same = measured(candidate=2.0, better=0, share=0.0)
    assert judge(same, lenient, rounds_held=0).verdict is Verdict.DROP


@pytest.mark.parametrize(
    ("rounds_held", "candidate", "verdict"),
    [(0, 1.95, Verdict.HOLD), (1, 1.95, Verdict.HOLD), (2, 1.95, Verdict.DROP), (0, 2.01, Verdict.DROP)],
)
def test_patience_is_for_what_is_no_worse(rounds_held: int, candidate: float, verdict: Verdict) -> None:
    patient = GateRule(margin=0.1, minimum_devices=5, share_better=0.6, patience=2)
    assert judge(measured(candidate=candidate), patient, rounds_held=rounds_held).verdict is verdict


def test_a_measurement_is_read_from_the_sums_of_a_round() -> None:
    total = RoundSum(
        layout=LAYOUT,
        side=Side.B,
        mean_delta=np.zeros(16, dtype=np.float32),
        trained=np.ones(16, dtype=np.bool_),
        weight=2.5,
        metrics={"loss_before": 6.0, "loss_served": 8.0, "better": 1.5, "devices_better": 2.9999999, "tokens": 9.0},
        contributors=4,
    )
    found = measurement_of(total, [b"a" * 32, b"b" * 32])
    assert found == Measurement((b"a" * 32, b"b" * 32), 4, 2.0, 1.5, 3, 0.6)


def test_a_round_that_compared_nothing_measured_nothing() -> None:
    total = RoundSum(LAYOUT, Side.B, np.zeros(16, np.float32), np.ones(16, np.bool_), 3.0, {"loss_before": 6.0}, 3)
    assert measurement_of(total, [b"a" * 32]) is None


def plan_with(clip_norm: float) -> PlanDocument:
    def edit(plan: plan_pb2.Plan) -> None:
        plan.encoding.clip_norm = clip_norm

    return World.make(devices=3).open_cohort(edit=edit).document


def opened(delta: np.ndarray, *, weight: float = 3.0, contributors: int = 3) -> OpenedSum:
    return OpenedSum(delta.astype(np.float32), weight, {}, contributors)


def test_honest_sums_keep_the_bound_whatever_the_rounding_does() -> None:
    """Every device clips to the bound, all point the same way, and every value is rounded up by nearly a step."""
    document = plan_with(0.2)
    length = document.vector.delta_length
    direction = np.full(length, 0.2 / np.sqrt(length))
    worst = 3 * (direction + 0.999 * document.vector.encoding.step)
    require_within_bound(document, opened(worst))


def test_a_sum_that_is_longer_than_honest_ones_can_be_is_refused() -> None:
    document = plan_with(0.2)
    length = document.vector.delta_length
    scaled = np.full(length, 3 * 0.2 / np.sqrt(length)) + 4 * document.vector.encoding.step
    with pytest.raises(SumOutOfRangeError, match=r"clip their deltas to 0\.2"):
        require_within_bound(document, opened(scaled))
    with pytest.raises(SumOutOfRangeError):
        require_within_bound(document, opened(np.full(length, np.nan)))


def test_less_weight_leaves_less_room() -> None:
    document = plan_with(1.0)
    length = document.vector.delta_length
    delta = np.full(length, 1.5 / np.sqrt(length))
    require_within_bound(document, opened(delta, weight=3.0))
    with pytest.raises(SumOutOfRangeError):
        require_within_bound(document, opened(delta, weight=0.5))


def test_without_a_bound_any_length_passes() -> None:
    require_within_bound(plan_with(0.0), opened(np.full(16, 1e3)))
