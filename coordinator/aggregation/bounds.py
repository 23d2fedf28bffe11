"""What honest contributors can add up to: the norm of a cohort's sum.

An honest device clips its delta to the plan's L2 bound before it weights it. So the sum of weighted deltas is no longer
than the bound times the summed weights (triangle inequality), but for the rounding of the encoding. A sum that is
longer was spoilt, by a device that scaled its delta beyond the bound, and is not used.

A bound on the sum is weaker than one on each contribution, which nobody can see: one device of n may still take the
room that the others leave. What stays inside the bound is the evaluation gate's matter.
"""

from __future__ import annotations

import math

import numpy as np

from nightshift.protocol.plan import PlanDocument
from nightshift.protocol.secagg.encoding import OpenedSum
from nightshift.protocol.secagg.errors import SumOutOfRangeError

_CHUNK = 1 << 16
"""Values squared at a time: a copy of all of them with twice the precision would be the opening's largest array."""


def require_within_bound(document: PlanDocument, opened: OpenedSum) -> None:
    """Refuse a sum that is longer than honest contributors can make it; a plan without a bound allows any.

    Args:
        document: the plan.
        opened: what its cohort's sum says; weighted_delta float32[D].

    Raises:
        SumOutOfRangeError: the sum is longer, or its length is not finite.
    """
    if document.clip_norm == 0:
        return
    delta = opened.weighted_delta
    squares = 0.0
    for start in range(0, delta.size, _CHUNK):
        part = delta[start : start + _CHUNK].astype(np.float64)
        squares += float(np.dot(part, part))
    length = math.sqrt(squares)
    # Stochastic rounding moves each value of each contributor by less than a step.
    rounding = opened.contributors * document.vector.encoding.step * math.sqrt(delta.size)
    bound = document.clip_norm * opened.weight + rounding
    if not length <= bound:
        raise SumOutOfRangeError(
            f"the opened sum has the norm {length:.4g}; {opened.contributors} contributors who clip their deltas to "
            f"{document.clip_norm:g} cannot make more than {bound:.4g}; the sum is not used"
        )
