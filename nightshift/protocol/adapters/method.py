"""How a federation trains the two matrices of an adapter, round by round.

A sum of products is not the product of sums: averaging A and B separately is
inexact. Training only one of them in a round makes the sum exact, because the
update `B A` is linear in each.

* `ffa`: A stays as it was initialised, B is trained (FFA-LoRA, ICLR 2024).
* `alternate`: B in one round, A in the next (RoLoRA); exact in each round and
  not confined to the row space of the first A.
* `fedavg`: both at once, the inexact baseline.
"""

from __future__ import annotations

from enum import Enum

from nightshift.protocol.adapters.layout import Side


class Method(Enum):
    """Which matrices are trained in which round."""

    FFA = "ffa"
    ALTERNATE = "alternate"
    FEDAVG = "fedavg"

    def side_for_round(self, round_index: int) -> Side:
        """Side that is trained in a round; the first round has index 0.

        B comes first under `alternate`: B starts at zero, where the gradient
        of A vanishes.

        Raises:
            ValueError: the index is negative.
        """
        if round_index < 0:
            raise ValueError(f"round_index must be 0 or more, got {round_index}")
        if self is Method.FEDAVG:
            return Side.BOTH
        if self is Method.ALTERNATE and round_index % 2 == 1:
            return Side.A
        return Side.B
