"""AdamW over one flat vector, step for step what `torch.optim.AdamW` computes.

Loshchilov and Hutter, Decoupled Weight Decay Regularization (ICLR 2019),
algorithm 2; the order of operations and the place of epsilon follow torch's
`_single_tensor_adamw`, so that results can be compared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]


class Schedule(Enum):
    """How the learning rate moves over a run."""

    CONSTANT = "constant"
    COSINE = "cosine"

    def rate(self, peak: float, step: int, steps: int) -> float:
        """Learning rate of a step, counted from 0; cosine ends at 0 after the last one."""
        if self is Schedule.COSINE:
            return peak * 0.5 * (1.0 + math.cos(math.pi * step / steps))
        return peak


@dataclass(slots=True, eq=False)
class AdamW:
    """Optimiser state for a vector of `length` parameters.

    Attributes:
        length: number of parameters.
        weight_decay: decoupled decay, multiplied by the learning rate.
        steps: updates done so far.
        mean: first moment, float32 [length].
        square: second moment, float32 [length].
    """

    length: int
    weight_decay: float = 0.0
    beta_mean: float = 0.9
    beta_square: float = 0.999
    epsilon: float = 1e-8
    steps: int = 0
    mean: Vector = field(init=False)
    square: Vector = field(init=False)

    def __post_init__(self) -> None:
        self.mean = np.zeros(self.length, dtype=np.float32)
        self.square = np.zeros(self.length, dtype=np.float32)

    def update(self, parameters: Vector, gradient: Vector, learning_rate: float) -> None:
        """Moves `parameters`, float32 [length], in place by one step."""
        self.steps += 1
        parameters *= np.float32(1.0 - learning_rate * self.weight_decay)
        self.mean += np.float32(1.0 - self.beta_mean) * (gradient - self.mean)
        self.square *= np.float32(self.beta_square)
        self.square += np.float32(1.0 - self.beta_square) * gradient * gradient
        mean_correction = 1.0 - self.beta_mean**self.steps
        square_correction = 1.0 - self.beta_square**self.steps
        scale = np.sqrt(self.square)
        scale /= np.float32(math.sqrt(square_correction))
        scale += np.float32(self.epsilon)
        parameters -= np.float32(learning_rate / mean_correction) * (self.mean / scale)


def clip_to_norm(gradient: Vector, clip_norm: float) -> float:
    """Scales a gradient in place to a global L2 norm of at most `clip_norm`.

    As `torch.nn.utils.clip_grad_norm_`: the factor is clip_norm / (norm + 1e-6)
    where that is below 1. A `clip_norm` of 0 means no bound.

    Returns:
        The norm before clipping, summed in float64; not finite if the gradient is not.
    """
    norm = math.sqrt(float(np.dot(gradient, gradient.astype(np.float64))))
    if clip_norm > 0 and math.isfinite(norm):
        factor = clip_norm / (norm + 1e-6)
        if factor < 1.0:
            gradient *= np.float32(factor)
    return norm
