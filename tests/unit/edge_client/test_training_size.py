"""How much of a plan this machine takes: length, examples at once. (How many rank slots: test_policy.py.)"""

from __future__ import annotations

import pytest

from edge_client.agent.contribution import _settings
from edge_client.agent.local_training import MICRO_BATCH, longest_example, micro_batch_size
from edge_client.configuration import TrainingLimits
from nightshift.protocol.plan_checks import VerifiedPlan
from tests.support.authority import NOW_UNIX_S
from tests.support.plans import World


@pytest.mark.parametrize(("limit", "wanted", "taken"), [(0, 512, 512), (256, 512, 256), (256, 64, 64)])
def test_examples_are_as_long_as_the_plan_says_or_shorter(limit: int, wanted: int, taken: int) -> None:
    assert longest_example(TrainingLimits(max_tokens=limit), wanted) == taken


@pytest.mark.parametrize(
    ("micro_batch", "limit", "max_tokens", "taken"),
    [
        (0, 0, 256, MICRO_BATCH),  # nobody says anything
        (2, 256, 256, 2),
        (2, 256, 128, 4),  # half as long, so twice as many
        (1, 256, 64, 4),
        (2, 256, 32, MICRO_BATCH),  # more than that is slower, not larger
        (12, 256, 64, 12),  # the owner wants more than is usual, and gets it
        (2, 0, 64, 2),  # nothing says of which length
    ],
)
def test_as_many_examples_at_once_as_their_length_leaves_room_for(
    micro_batch: int, limit: int, max_tokens: int, taken: int
) -> None:
    limits = TrainingLimits(micro_batch_size=micro_batch, max_tokens=limit)
    assert micro_batch_size(limits, batch_size=16, max_tokens=max_tokens) == taken


def test_no_more_at_once_than_there_are_in_a_step() -> None:
    assert micro_batch_size(TrainingLimits(), batch_size=3, max_tokens=64) == 3


def test_a_plan_is_carried_out_within_the_limits() -> None:
    cohort = World.make(devices=3).open_cohort()
    plan = VerifiedPlan(cohort.document, cohort.plan_hash, cohort.plan, NOW_UNIX_S)
    as_planned = _settings(plan, TrainingLimits())
    assert (as_planned.max_tokens, as_planned.micro_batch_size, as_planned.batch_size) == (256, 4, 4)
    limited = _settings(plan, TrainingLimits(max_tokens=128, micro_batch_size=1))
    assert (limited.max_tokens, limited.micro_batch_size, limited.batch_size) == (128, 1, 4)
