"""The evaluation gate: whether what was learned is good enough for devices to serve it.

A round's release is the parent of the next round at once, so that learning never waits. It is a *candidate* until
the contributors of that next round have measured it: each compares it, on text that it never trains on, with the
release that devices serve, and adds what came out to the encrypted sum. Here stands what follows from the
sums. Nothing of this module knows rows, keys or devices.

Two conditions must hold for a promotion, because each has a weakness that the other lacks. The mean loss must fall by
the margin; but one contributor who lies moves a mean, by up to 16 nats over the number of contributors. And
enough of the devices' weight must find the candidate better; there a liar counts no more than its own weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from coordinator.aggregation.fedavg import RoundSum
from nightshift.protocol.decision import Measurement
from nightshift.protocol.metrics import BETTER, COMPARING, DEVICES_BETTER, LOSS_BEFORE, LOSS_SERVED


@dataclass(frozen=True, slots=True)
class GateRule:
    """What a candidate must achieve.

    Attributes:
        margin: nats per answer token by which its mean loss must be lower, at least 0.
        minimum_devices: fewer than so many measurements decide nothing.
        share_better: share of the devices' weight, 0 to 1, for which it must be better.
        patience: rounds for which learning goes on from a candidate that is no worse but not better enough
            yet, before it is dropped.
    """

    margin: float
    minimum_devices: int
    share_better: float
    patience: int


class Verdict(Enum):
    """What becomes of a candidate."""

    PROMOTE = "promote"
    HOLD = "hold"
    DROP = "drop"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict and its reason, for people."""

    verdict: Verdict
    reason: str


def measurement_of(total: RoundSum, plan_hashes: Sequence[bytes]) -> Measurement | None:
    """What a round's sums say of its parent and of what devices serve; None if its plans compared nothing.

    Args:
        total: the round's opened cohorts, added up.
        plan_hashes: of these cohorts.
    """
    if not set(COMPARING) <= total.metrics.keys():
        return None
    devices = total.contributors
    return Measurement(
        plan_hashes=tuple(plan_hashes),
        devices=devices,
        loss_served=total.metrics[LOSS_SERVED] / devices,
        loss_candidate=total.metrics[LOSS_BEFORE] / devices,
        # Whole numbers inside the sum, but for the resolution of the encoding.
        devices_better=min(devices, round(total.metrics[DEVICES_BETTER])),
        share_better=min(1.0, total.metrics[BETTER] / total.weight),
    )


def judge(measured: Measurement, rule: GateRule, *, rounds_held: int) -> Judgement:
    """Judge a candidate.

    Args:
        measured: by the contributors of one round.
        rule: of the task.
        rounds_held: rounds that measured this candidate's forerunners since the served release, and held them.
    """
    if measured.devices < rule.minimum_devices:
        return Judgement(
            Verdict.HOLD, f"{measured.devices} devices measured it, {rule.minimum_devices} are needed to decide"
        )
    gain = measured.loss_served - measured.loss_candidate
    words = (
        f"mean loss {measured.loss_candidate:.4f} instead of {measured.loss_served:.4f} on {measured.devices} devices, "
        f"better for {measured.devices_better} of them with {measured.share_better:.0%} of the weight"
    )
    if gain >= rule.margin and measured.share_better >= rule.share_better and measured.devices_better > 0:
        return Judgement(Verdict.PROMOTE, words)
    wanted = f"{words}; wanted: lower by {rule.margin:g}, and better for {rule.share_better:.0%} of the weight"
    if gain >= 0 and rounds_held < rule.patience:
        return Judgement(Verdict.HOLD, f"{wanted}; round {rounds_held + 1} of {rule.patience} that wait for it")
    return Judgement(Verdict.DROP, wanted)
