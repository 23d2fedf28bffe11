"""What a training run is told."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edge_client.training.adamw import Schedule
from edge_client.training.errors import TrainingError


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How long and how fast to train.

    Attributes:
        steps: optimiser steps.
        batch_size: examples a step.
        micro_batch_size: examples that pass through the graph at once; a step
            accumulates gradients over as many micro-batches as it needs.
        learning_rate: peak learning rate of AdamW.
        schedule: how the rate moves.
        weight_decay: decoupled weight decay.
        clip_norm: bound on the global gradient norm; 0 means none.
        max_tokens: longest example, in tokens.
        seed: fixes the order of the examples.
        proximal: FedProx coefficient mu: mu / 2 times the squared distance to
            the parent adapter is added to the loss (Li et al. 2020, equation 2); 0 means none.
        checkpoint_every: steps between checkpoints; 0 means only when stopped.

    Raises:
        TrainingError: a value is impossible.
    """

    steps: int
    batch_size: int = 16
    micro_batch_size: int = 16
    learning_rate: float = 5e-3
    schedule: Schedule = Schedule.CONSTANT
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    max_tokens: int = 256
    seed: int = 0
    proximal: float = 0.0
    checkpoint_every: int = 20

    def __post_init__(self) -> None:
        for name, least in (
            ("steps", 1),
            ("batch_size", 1),
            ("micro_batch_size", 1),
            ("max_tokens", 2),
            ("seed", 0),
            ("checkpoint_every", 0),
        ):
            if getattr(self, name) < least:
                raise TrainingError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("learning_rate", "weight_decay", "clip_norm", "proximal"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise TrainingError(f"{name} must be finite and not negative, got {value}")
