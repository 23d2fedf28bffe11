"""Single lies told to `nightshift.protocol`, and how exactly each must be refused.

A test holds the whole honest world and changes one thing. Where the lie is in the plan itself, the plan is
signed and logged like an honest one, so that no signature and no proof can refuse it: only the check that
the test names can.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nightshift.protocol.errors import NightshiftError
from nightshift.v1 import device_pb2, log_pb2, plan_pb2
from tests.support.plans import Cohort

PLAN, POOL, SET, VOID = (
    log_pb2.LOG_ENTRY_KIND_PLAN,
    log_pb2.LOG_ENTRY_KIND_POOL,
    log_pb2.LOG_ENTRY_KIND_SET,
    log_pb2.LOG_ENTRY_KIND_VOID,
)
Edit = Callable[[plan_pb2.Plan], object]


def refused(error: type[NightshiftError], match: str, attempt: Callable[[], object]) -> None:
    """An attempt fails with exactly this class, not with a relative of it."""
    with pytest.raises(error, match=match) as caught:
        attempt()
    assert type(caught.value) is error, f"{type(caught.value).__name__}: {caught.value}"


def open_at(cohort: Cohort, edit: Callable[[device_pb2.PlanOffer], object]) -> Callable[[], object]:
    """Verify a cohort's offer after an edit of what travels."""
    offer = cohort.offer()
    before = offer.SerializeToString()
    edit(offer)
    assert offer.SerializeToString() != before, "the edit changed nothing"
    return lambda: cohort.verify(offer)
