"""What is sent of a night's learning: bounded, weighted, and never nonsense."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_client.agent import contribution, metrics
from edge_client.agent.contribution import clipped, contribution_weight
from edge_client.agent.local_training import check_complete
from edge_client.training.evaluate import AnswerLoss
from edge_client.training.exchange import ChildResult
from edge_client.training.trainer import TrainingOutcome
from nightshift.protocol.adapters import Side
from nightshift.protocol.errors import DeclinedError, IncompatibleError
from nightshift.protocol.metrics import COMPARING, ROLLED_BACK
from nightshift.protocol.plan import PlanDocument
from nightshift.v1 import plan_pb2
from tests.support.plans import LAYOUT, World

LOSSES = {"parent": AnswerLoss(30.0, 10), "trained": AnswerLoss(20.0, 10)}


@pytest.fixture(scope="module")
def plan() -> PlanDocument:
    return World.make(devices=3).open_cohort().document


def tensors(value: float) -> dict[str, np.ndarray]:
    return {name: np.full(shape, value, dtype=np.float32) for name, shape in LAYOUT.shapes().items()}


def result(
    after: float = 0.5,
    *,
    stopped: str | None = None,
    examples: int = 50,
    held_out: int = 5,
    losses: Mapping[str, AnswerLoss] = LOSSES,
) -> ChildResult:
    outcome = TrainingOutcome(tensors(after), 20, 1.0, 1.0, 1234, stopped)
    return ChildResult(outcome, examples, held_out, {}, losses)


def encode(plan: PlanDocument, trained: ChildResult) -> np.ndarray:
    return contribution._encode(plan, tensors(0.0), trained)


def test_a_long_delta_is_scaled_to_the_norm_and_a_short_one_left_alone() -> None:
    delta = np.array([3.0, 4.0], dtype=np.float32)
    assert clipped(delta, 0.0) is delta
    assert clipped(delta, 5.0) is delta
    np.testing.assert_allclose(clipped(delta, 1.0), [0.6, 0.8], rtol=1e-6)
    assert clipped(delta, 1.0).dtype == np.float32


@given(
    st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=50).filter(lambda v: any(abs(x) > 1e-3 for x in v)),
    st.floats(1e-3, 1e3),
)
def test_the_norm_is_never_exceeded(values: list[float], clip_norm: float) -> None:
    bounded = clipped(np.array(values, dtype=np.float32), clip_norm)
    assert math.sqrt(float(np.sum(bounded.astype(np.float64) ** 2))) <= clip_norm * (1 + 1e-5)


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf, -math.inf])
def test_zeros_and_nonsense_are_never_sent(value: float) -> None:
    delta = np.zeros(4, dtype=np.float32)
    delta[2] = value
    with pytest.raises(DeclinedError, match="nothing was sent"):
        clipped(delta, 1.0)


@pytest.mark.parametrize(("examples", "weight"), [(1, 0.125), (12, 0.125), (13, 0.13), (50, 0.5), (100, 1), (900, 1)])
def test_weight_follows_the_examples_within_a_factor_of_eight(examples: int, weight: float) -> None:
    assert contribution_weight(examples, 100) == pytest.approx(weight)


def test_what_is_encoded_decodes_to_delta_weight_and_metrics(plan: PlanDocument) -> None:
    opened = plan.vector.decode_sum(encode(plan, result(0.01)), 1)
    delta = np.full(LAYOUT.vector_length(Side.B), 0.01)
    np.testing.assert_allclose(opened.weighted_delta / opened.weight, delta, atol=plan.vector.encoding.step)
    assert opened.weight == pytest.approx(1.0)
    assert opened.metrics["loss_before"] == pytest.approx(3.0, abs=1e-3)
    assert opened.metrics["loss_after"] == pytest.approx(2.0, abs=1e-3)
    assert opened.metrics["tokens"] == pytest.approx(1.234, abs=1e-3)


def test_a_metric_that_is_not_finite_is_a_reason_not_to_send(plan: PlanDocument) -> None:
    with pytest.raises(DeclinedError, match="loss_after"):
        encode(plan, result(losses={**LOSSES, "trained": AnswerLoss(math.nan, 10)}))


def test_a_metric_of_a_newer_coordinator_is_not_guessed(plan: PlanDocument) -> None:
    newer = replace(plan, vector=replace(plan.vector, metrics=("loss_before", "heart_rate"), metric_limits=()))
    with pytest.raises(IncompatibleError, match="heart_rate"):
        metrics.require_known(newer)


def test_what_was_cut_short_is_declined() -> None:
    with pytest.raises(DeclinedError, match=r"stopped after 20 of 60 steps \(time limit\)"):
        check_complete(result(stopped="time limit"), 60)
    check_complete(result(), 20)


def comparing(result_: ChildResult, *, rolled_back: bool = False) -> dict[str, float]:
    """What a device adds to the sum for a plan that compares its parent with a served release."""

    def edit(plan: plan_pb2.Plan) -> None:
        plan.served_release = b"s" * 32
        plan.encoding.metrics.extend([*COMPARING, ROLLED_BACK])

    document = World.make(devices=3).open_cohort(edit=edit).document
    values = contribution._encode(document, tensors(0.0), result_, rolled_back=rolled_back)
    return document.vector.decode_sum(values, 1).metrics


@pytest.mark.parametrize(
    ("served", "better"),
    [
        (4.0, True),
        (3.0, False),  # the parent has 3.0 too: no better is not better
        (2.0, False),
    ],
)
def test_the_parent_is_compared_with_what_is_served(served: float, better: bool) -> None:
    losses = {**LOSSES, metrics.SERVED: AnswerLoss(served * 10, 10)}
    added = comparing(result(examples=25, losses=losses))
    assert added["loss_served"] == pytest.approx(served, abs=1e-6)
    assert added["loss_before"] == pytest.approx(3.0, abs=1e-6)
    # 25 examples of 50 for full weight: half a device's weight.
    assert added["better"] == pytest.approx(0.5 if better else 0.0, abs=1e-6)
    assert added["devices_better"] == pytest.approx(1.0 if better else 0.0, abs=1e-6)
    assert added["rolled_back"] == 0.0


def test_an_absurd_loss_counts_no_more_than_the_limit_and_none_at_all_is_not_sent() -> None:
    losses = {**LOSSES, metrics.SERVED: AnswerLoss(1e9, 10)}
    assert comparing(result(losses=losses))["loss_served"] == pytest.approx(16.0, abs=1e-6)
    with pytest.raises(DeclinedError, match="loss_served"):
        comparing(result(losses={**LOSSES, metrics.SERVED: AnswerLoss(0.0, 0)}))


def test_that_this_device_keeps_another_adapter_is_said_in_the_sum_only() -> None:
    losses = {**LOSSES, metrics.SERVED: AnswerLoss(20.0, 10)}
    assert comparing(result(losses=losses), rolled_back=True)["rolled_back"] == pytest.approx(1.0, abs=1e-6)
