"""Federated averaging on an opened sum (McMahan et al. 2017, algorithm 1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nightshift.protocol.adapters.layout import AdapterLayout, Side, Tensors
from nightshift.protocol.secagg.encoding import OpenedSum


def mean_delta(opened: OpenedSum) -> NDArray[np.float32]:
    """The weighted mean of the deltas: float32[D].

    Devices sent weight * delta and weight inside the encrypted sum, so the
    quotient is the mean over examples without anybody's count being known.
    """
    return (opened.weighted_delta / opened.weight).astype(np.float32)


def next_adapter(
    parent: Tensors, layout: AdapterLayout, side: Side, opened: OpenedSum
) -> dict[str, NDArray[np.float32]]:
    """The parent adapter moved by the mean delta on the side that the plan trained.

    Raises:
        FormatError: a value is not finite.
    """
    return layout.with_delta(parent, mean_delta(opened), side)
