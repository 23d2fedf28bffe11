"""What the coordinator does with a mean delta: the server's half of federated optimisation.

The mean of what devices trained is a step direction ("pseudo-gradient"). FedAvg
takes it as it is; FedAvgM and FedAdam keep a memory over rounds, which smooths
the noise of small cohorts. The memory holds aggregates only, so it tells nobody
more than the published releases do. Under `alternate` each side has a memory of
its own: a round of A says nothing about B. Likewise a round in which nobody trained some
rank slots says nothing about them: they take no step, not even by momentum, and their memory stays as it is.
(Where some trained a slot, the others' zeros are in its mean. FedAdam divides a value by its own usual size, and so
undoes most of a share that stays the same.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from nightshift.protocol.errors import UsageError

Vector = NDArray[np.float32]
"""float32[D], in the order of `AdapterLayout.to_vector`."""


class ServerMethod(StrEnum):
    """How a mean delta becomes a step.

    * `fedavg`: the delta itself (McMahan et al., AISTATS 2017).
    * `fedavgm`: with momentum (Hsu et al., arXiv 1909.06335, section 4.3).
    * `fedadam`: with a step size for each value (Reddi et al., ICLR 2021, algorithm 2).
    """

    FEDAVG = "fedavg"
    FEDAVGM = "fedavgm"
    FEDADAM = "fedadam"


@dataclass(frozen=True, slots=True)
class ServerOptimiser:
    """A method and its constants.

    Attributes:
        method: see `ServerMethod`.
        learning_rate: eta; multiplies the step. 1 for fedavg and fedavgm is what their papers use;
            fedadam wants about the size that one value should move in a round.
        momentum: beta of fedavgm, beta_1 of fedadam, in [0, 1).
        second_momentum: beta_2 of fedadam, in [0, 1).
        adaptivity: tau of fedadam, above 0: below it, values do not count as small.

    Raises:
        UsageError: a constant is outside its range.
    """

    method: ServerMethod = ServerMethod.FEDAVG
    learning_rate: float = 1.0
    momentum: float = 0.9
    second_momentum: float = 0.99
    adaptivity: float = 1e-3

    def __post_init__(self) -> None:
        for name, value, fits in (
            ("learning_rate", self.learning_rate, 0 < self.learning_rate < np.inf),
            ("momentum", self.momentum, 0 <= self.momentum < 1),
            ("second_momentum", self.second_momentum, 0 <= self.second_momentum < 1),
            ("adaptivity", self.adaptivity, 0 < self.adaptivity < np.inf),
        ):
            if not fits:
                raise UsageError(f"the server optimiser's {name} is out of range: {value!r}")

    @property
    def remembers(self) -> bool:
        """Whether a round's step depends on the rounds before it."""
        return self.method is not ServerMethod.FEDAVG

    def step(
        self, mean_delta: Vector, memory: ServerMemory | None, *, trained: NDArray[np.bool_]
    ) -> tuple[Vector, ServerMemory | None]:
        """Turn one round's mean delta into what is added to the parent.

        Args:
            mean_delta: float32[D], 0 where nothing was trained.
            memory: of the last round that trained this side; None at the first.
            trained: bool[D], which values somebody trained.

        Returns:
            The step, float32[D], and the memory for the next round (None for fedavg).

        Raises:
            UsageError: the memory is of another length.
        """
        if self.method is ServerMethod.FEDAVG:
            return np.float32(self.learning_rate) * mean_delta, None
        if memory is None or len(memory.square) != (len(memory.mean) if self.method is ServerMethod.FEDADAM else 0):
            # The first round, or the first after the task changed its method: another method's memory says nothing.
            memory = ServerMemory.empty(len(mean_delta), self)
        if memory.mean.shape != mean_delta.shape:
            raise UsageError(
                f"the server optimiser remembers {len(memory.mean)} values, this round has {len(mean_delta)}"
            )
        if self.method is ServerMethod.FEDAVGM:
            mean = np.float32(self.momentum) * memory.mean + mean_delta
            step = np.float32(self.learning_rate) * mean
            return np.where(trained, step, 0), replace(memory, mean=np.where(trained, mean, memory.mean))
        mean = np.float32(self.momentum) * memory.mean + np.float32(1 - self.momentum) * mean_delta
        square = np.float32(self.second_momentum) * memory.square
        square += np.float32(1 - self.second_momentum) * np.square(mean_delta)
        step = np.float32(self.learning_rate) * mean / (np.sqrt(square) + np.float32(self.adaptivity))
        return np.where(trained, step, 0), ServerMemory(
            np.where(trained, mean, memory.mean), np.where(trained, square, memory.square)
        )


@dataclass(frozen=True, slots=True, eq=False)
class ServerMemory:
    """What an optimiser remembers of the rounds of one side.

    Attributes:
        mean: float32[D], the moving sum (fedavgm) or mean (fedadam) of deltas.
        square: float32[D] for fedadam, the moving mean of squares; float32[0] otherwise.
    """

    mean: Vector
    square: Vector

    @classmethod
    def empty(cls, length: int, optimiser: ServerOptimiser) -> ServerMemory:
        """The memory before the first round; fedadam starts its squares at tau^2, as its paper does."""
        adam = optimiser.method is ServerMethod.FEDADAM
        return cls(
            np.zeros(length, dtype=np.float32),
            np.full(length if adam else 0, optimiser.adaptivity**2, dtype=np.float32),
        )
