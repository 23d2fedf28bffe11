"""Heavy-tailed deltas through the whole path: task settings, plan, encoding, encryption, sum, opening."""

from __future__ import annotations

import os

import numpy as np
import pytest

from coordinator.compute.inline import Inline
from coordinator.rounds.task_settings import EncodingSettings
from nightshift.protocol.adapters.layout import AdapterLayout, Side, Target
from nightshift.protocol.plan import layout_to_proto
from nightshift.protocol.secagg.device import contribute
from nightshift.v1 import plan_pb2
from tests.support.plans import World

DEVICES = 50
LAYOUT = AdapterLayout(layers=7, targets=(Target("q_proj", 1024, 1024),), rank=8, alpha=16.0)
LENGTH = LAYOUT.vector_length(Side.B)
"""57,344: no power of two."""

SCALE = 1e-4
STUDENT_DEVIATION = 3**0.5
"""Standard deviation of Student's t with 3 degrees of freedom."""

USUAL_NORM = SCALE * STUDENT_DEVIATION * LENGTH**0.5


@pytest.fixture(scope="module")
def world() -> World:
    return World.make(devices=DEVICES)


def relative_error(world: World, settings: EncodingSettings) -> float:
    """Rms error of the opened weighted mean over the mean's rms: 50 devices, weights log-uniform in 1/8..1."""

    def encode_so(plan: plan_pb2.Plan) -> None:
        plan.layout.CopyFrom(layout_to_proto(LAYOUT))
        plan.trained_rank, plan.encoding.delta_length = LAYOUT.rank, LENGTH
        plan.encoding.value_bits = settings.value_bits
        plan.encoding.value_clip = settings.clip(LENGTH)
        plan.encoding.clip_norm = settings.clip_norm
        plan.encoding.rotated = settings.rotated

    cohort = world.open_cohort(n_max=DEVICES, committee=3, edit=encode_so)
    plan = cohort.verify()
    document = plan.document
    rng = np.random.default_rng(document.parameters.value_bits)
    running, total, mean, weights = None, np.zeros(document.vector.length, dtype=np.uint64), np.zeros(LENGTH), 0.0
    contributions = {}
    for device in world.devices:
        delta = (rng.standard_t(3, LENGTH) * SCALE).astype(np.float32)
        assert np.linalg.norm(delta) < settings.clip_norm, "the test means to show the encoding, not the clipping"
        weight = float(np.exp(rng.uniform(np.log(1 / 8), 0)))
        mean += weight * delta.astype(np.float64)
        weights += weight
        metrics = {"loss_before": 3.0, "loss_after": 2.0, "tokens": 7.5}
        values = document.vector.encode(delta, weight, metrics, os.urandom)
        total += values
        contributions[device.device_id] = contribute(
            parameters=document.parameters,
            plan_hash=plan.plan_hash,
            sender=device.device_id,
            members=plan.member_keys(),
            values=values,
            sign=device.sign,
            randomness=os.urandom,
        )
        ciphertext = contributions[device.device_id].ciphertext
        running = Inline().fold(document.parameters, document.vector.length, running, [ciphertext])
    frozen = cohort.freeze(contributions)
    answers = [frozen.answer(index) for index in range(1, document.parameters.threshold + 1)]
    assert running is not None
    opened = Inline().open_cohort(document.parameters, plan.plan_hash, running, answers)
    np.testing.assert_array_equal(opened.values, total)
    decoded = document.vector.decode_sum(opened.values, DEVICES)
    assert decoded.weight == pytest.approx(weights, abs=1e-6)
    assert decoded.metrics == pytest.approx({"loss_before": 150.0, "loss_after": 100.0, "tokens": 375.0}, abs=0.02)
    mean /= weights
    error = decoded.weighted_delta / decoded.weight - mean
    return float(np.sqrt(np.mean(error**2) / np.mean(mean**2)))


@pytest.mark.parametrize(("value_bits", "limit"), [(16, 0.01), (12, 0.05)])
@pytest.mark.parametrize("slack", [1.5, 6.0])
def test_the_defaults_keep_heavy_tails(world: World, value_bits: int, limit: float, slack: float) -> None:
    """As a task has it by default: rotated, and a clip that follows from the norm's bound, loose as that may be."""
    settings = EncodingSettings(value_bits=value_bits, clip_norm=slack * USUAL_NORM)
    assert settings.rotated
    assert settings.value_clip == 0
    assert relative_error(world, settings) < limit


def test_without_the_rotation_the_same_bound_would_not_do(world: World) -> None:
    """The comparison that makes the default: one value may then be as large as the norm."""
    assert relative_error(world, EncodingSettings(value_bits=12, clip_norm=1.5 * USUAL_NORM, rotated=False)) > 0.05
