"""The honest run from enrolment to the opened sum: what every lie is measured against."""

from __future__ import annotations

import numpy as np
import pytest

from nightshift.protocol.plan_checks import verify_parent
from nightshift.protocol.release import verify_release
from nightshift.protocol.secagg.opener import RunningSum, open_sum
from tests.support.plans import World


def test_from_enrolment_to_the_opened_sum() -> None:
    world = World.make()
    parent = world.publish()
    cohort = world.open_cohort(parent=parent)
    plan = cohort.verify()
    verify_parent(plan, verify_release(parent.offer(), view=world.view(), trust=world.trust))

    contributors = world.devices[:4]
    frozen = cohort.freeze({device.device_id: cohort.contribute(device) for device in contributors})
    parameters = plan.document.parameters
    total = RunningSum.new(parameters, plan.document.vector.length)
    for contribution in frozen.contributions.values():
        total.add(contribution.ciphertext)
    answers = [frozen.answer(index) for index in range(1, parameters.threshold + 1)]
    opened = open_sum(parameters=parameters, plan_hash=plan.plan_hash, running=total, answers=answers)
    decoded = plan.document.vector.decode_sum(opened.values, len(contributors))

    assert decoded.contributors == 4
    assert decoded.weight == pytest.approx(4.0)
    assert decoded.metrics == pytest.approx({"loss_before": 8.0, "loss_after": 8.0, "tokens": 8.0}, abs=0.01)
    # Every device sent 0.05 in steps of 0.125 / 127, each rounded to one of its neighbours.
    assert np.abs(decoded.weighted_delta - 0.2).max() <= 4 * 0.125 / 127


def test_a_plan_means_what_it_says() -> None:
    document = World.make().open_cohort(n_max=12, n_min=4).document
    assert (document.n_max, document.n_min, document.task, document.round_number) == (12, 4, "notes", 1)
    assert document.side.value == "b"
    assert document.vector.delta_length == 16
    assert document.vector.metrics == ("loss_before", "loss_after", "tokens")
    assert (document.parameters.committee_size, document.parameters.threshold) == (10, 8)
    assert [member.index for member in document.committee] == list(range(1, 11))
    assert len(document.pool) == 12
