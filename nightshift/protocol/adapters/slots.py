"""Rank slots: the part of an adapter that one cohort trains.

An adapter of rank R is a sum of R products, `B A x = sum over s of B[:, s] (A[s] x)`. Slot s is row s of every A
and column s of every B. A cohort trains the first r' <= R slots, so that a small board can take part with 4 of 16
(after HetLoRA, Cho et al., EMNLP 2024; the missing slots count as zeros when cohorts meet, as there, but are not sent).

Every device runs the whole adapter forwards, so all of them learn against one and the same function, and the
factor on a slot is alpha / R whatever its cohort trains. Only the gradient, the update, the clipping and the vector
that travels are of the trained slots.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nightshift.protocol.adapters.errors import LayoutError
from nightshift.protocol.adapters.layout import AdapterLayout, Side, Tensors


@dataclass(frozen=True, slots=True)
class TrainedSlots:
    """The first `rank` slots of one side of an adapter; a vector over them has `length` values.

    Attributes:
        layout: of the whole adapter.
        side: which matrices move.
        rank: r', how many slots move, 1 to the layout's rank.

    Raises:
        LayoutError: the layout has no such part.
    """

    layout: AdapterLayout
    side: Side
    rank: int

    def __post_init__(self) -> None:
        most = self.layout.rank
        if not 1 <= self.rank <= most:
            raise LayoutError(f"an adapter of rank {most} can be trained in 1 to {most} slots, got {self.rank}")

    @classmethod
    def whole(cls, layout: AdapterLayout, side: Side) -> TrainedSlots:
        """All slots of a side."""
        return cls(layout, side, layout.rank)

    @property
    def are_all(self) -> bool:
        """Whether the cohort trains every slot."""
        return self.rank == self.layout.rank

    @property
    def narrow(self) -> AdapterLayout:
        """The layout of the trained slots alone; its scale alpha' / r' is that of the whole, alpha / R."""
        if self.are_all:
            return self.layout
        alpha = self.layout.alpha * self.rank / self.layout.rank
        return AdapterLayout(self.layout.layers, self.layout.targets, self.rank, alpha)

    @property
    def length(self) -> int:
        """Number of float32 values in a vector over these slots."""
        # Of the size of the narrow layout, which is proportional to its rank.
        return self.layout.vector_length(self.side) // self.layout.rank * self.rank

    def of(self, tensors: Tensors) -> dict[str, NDArray[np.float32]]:
        """The trained part of each trained tensor, as views: A [r', in], B [out, r'].

        Args:
            tensors: name -> float32 array of the whole adapter; those of the other side may be absent.
        """
        return {
            name: tensors[name][: self.rank] if name.endswith(".lora_a") else tensors[name][:, : self.rank]
            for name in self.layout.trained_names(self.side)
        }

    def to_vector(self, tensors: Tensors) -> NDArray[np.float32]:
        """Flattens the trained slots to float32 [length], in the order of `AdapterLayout.to_vector` for `narrow`.

        Raises:
            FormatError: the tensors are not those of the whole adapter's trained side.
        """
        self.layout.check(tensors, self.side, exact=False)
        return self.narrow.to_vector(self.of(tensors), self.side)

    def delta(self, after: Tensors, before: Tensors) -> NDArray[np.float32]:
        """Returns `after - before` over the trained slots, float32 [length].

        Raises:
            FormatError: as `to_vector`.
        """
        return self.to_vector(after) - self.to_vector(before)

    def spread(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        """A vector over these slots as one over all slots of the side, zero where nothing was trained.

        Returns:
            float32 [layout.vector_length(side)].

        Raises:
            FormatError: the vector is not contiguous float32 [length], or not finite.
        """
        trained = self.narrow.from_vector(vector, self.side)
        whole = np.zeros(self.layout.vector_length(self.side), dtype=np.float32)
        for name, part in self.of(self.layout.from_vector(whole, self.side)).items():
            part[...] = trained[name]
        return whole
