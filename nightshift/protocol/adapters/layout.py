"""The shape of a LoRA adapter, and its one canonical order.

Every projection `W` of a transformer layer that an adapter targets gets two
small matrices (Hu et al., LoRA, ICLR 2022, section 4.1):

    y = W x + (alpha / rank) * B (A x)      A: [rank, in], B: [out, rank], float32

Tensors are named `layers.{i}.{projection}.lora_a|lora_b`. The canonical order
is layer, then projection in the order of `PROJECTIONS`, then A before B; a
vector is the tensors of one `Side` in that order, each flattened row by row.
Both ends of the protocol must agree on this order to the element, because sums
are formed over vectors and only turned back into tensors afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from nightshift.protocol.adapters.errors import FormatError, LayoutError

Tensors = Mapping[str, NDArray[np.float32]]

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

# Caps for values that arrive from the other side: generous for any model that
# runs on an edge device, small enough that nothing absurd is ever allocated.
MAX_LAYERS = 256
MAX_FEATURES = 1 << 18
MAX_RANK = 256
MAX_ALPHA = 65_536.0
MAX_PARAMETERS = 1 << 28


class Side(Enum):
    """Which of the two matrices of each projection is trained."""

    A = "a"
    B = "b"
    BOTH = "both"


class Method(Enum):
    """How a federation trains the two matrices of an adapter, round by round.

    A sum of products is not the product of sums: averaging A and B separately
    is inexact. With only one of them trained in a round the sum is exact,
    because `B A` is linear in each.

    * `ffa`: A stays as it was initialised, B is trained (FFA-LoRA, ICLR 2024).
    * `alternate`: B in one round, A in the next (RoLoRA, 2024); exact in each
      round and not confined to the row space of the first A.
    * `fedavg`: both at once, the inexact baseline.
    """

    FFA = "ffa"
    ALTERNATE = "alternate"
    FEDAVG = "fedavg"

    def side_for_round(self, round_index: int) -> Side:
        """Side that is trained in a round; the first round has index 0.

        B comes first under `alternate`: B starts at zero, where the gradient
        of A vanishes.

        Raises:
            LayoutError: the index is negative.
        """
        if round_index < 0:
            raise LayoutError(f"round_index must be 0 or more, got {round_index}")
        if self is Method.FEDAVG:
            return Side.BOTH
        if self is Method.ALTERNATE and round_index % 2 == 1:
            return Side.A
        return Side.B


@dataclass(frozen=True, slots=True)
class Target:
    """One projection of every layer: `W` is [out_features, in_features]."""

    name: str
    in_features: int
    out_features: int


@dataclass(frozen=True, slots=True)
class AdapterLayout:
    """Which tensors an adapter has, in which order and of which shape.

    Attributes:
        layers: number of transformer layers; all have the same targets.
        targets: targeted projections, in the order of `PROJECTIONS`.
        rank: inner dimension of every A and B.
        alpha: numerator of the LoRA scale.

    Raises:
        LayoutError: a value is impossible or beyond the caps of this module.
    """

    layers: int
    targets: tuple[Target, ...]
    rank: int
    alpha: float

    def __post_init__(self) -> None:
        _check_integer("layers", self.layers, MAX_LAYERS)
        _check_integer("rank", self.rank, MAX_RANK)
        if isinstance(self.alpha, bool) or not isinstance(self.alpha, int | float):
            raise LayoutError(f"alpha must be a number, got {type(self.alpha).__name__}")
        # Kept as float, so that equal layouts serialise to equal bytes.
        object.__setattr__(self, "alpha", float(self.alpha))
        if not (math.isfinite(self.alpha) and 0 < self.alpha <= MAX_ALPHA):
            raise LayoutError(f"alpha must be in (0, {MAX_ALPHA:g}], got {self.alpha}")
        names = [target.name for target in self.targets]
        if names != [name for name in PROJECTIONS if name in names] or not names:
            raise LayoutError(
                f"targets must be a non-empty selection of {', '.join(PROJECTIONS)} in that order, got {names[:8]!r}"
            )
        for target in self.targets:
            _check_integer(f"{target.name}.in_features", target.in_features, MAX_FEATURES)
            _check_integer(f"{target.name}.out_features", target.out_features, MAX_FEATURES)
            if self.rank > min(target.in_features, target.out_features):
                raise LayoutError(
                    f"rank {self.rank} is larger than {target.name} "
                    f"({target.out_features} x {target.in_features}); choose a smaller rank"
                )
        if self.vector_length(Side.BOTH) > MAX_PARAMETERS:
            raise LayoutError(
                f"the adapter would have {self.vector_length(Side.BOTH)} parameters, "
                f"at most {MAX_PARAMETERS} are allowed; choose a smaller rank or fewer targets"
            )

    @classmethod
    def for_llama(
        cls,
        *,
        layers: int,
        hidden: int,
        ffn: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        rank: int,
        alpha: float,
        targets: Sequence[str] = PROJECTIONS,
    ) -> AdapterLayout:
        """Returns the layout for a model of the Llama, Mistral, Qwen or SmolLM shape.

        Raises:
            LayoutError: a target is unknown, or a value is beyond the caps.
        """
        unknown = sorted(set(targets) - set(PROJECTIONS))
        if unknown:
            raise LayoutError(f"unknown targets {unknown[:4]!r}; known: {', '.join(PROJECTIONS)}")
        shapes = {
            "q_proj": (hidden, heads * head_dim),
            "k_proj": (hidden, kv_heads * head_dim),
            "v_proj": (hidden, kv_heads * head_dim),
            "o_proj": (heads * head_dim, hidden),
            "gate_proj": (hidden, ffn),
            "up_proj": (hidden, ffn),
            "down_proj": (ffn, hidden),
        }
        chosen = tuple(Target(name, *shapes[name]) for name in PROJECTIONS if name in targets)
        return cls(layers=layers, targets=chosen, rank=rank, alpha=alpha)

    @property
    def scale(self) -> float:
        """Factor on `B A x`: alpha / rank."""
        return self.alpha / self.rank

    def shapes(self, side: Side = Side.BOTH) -> dict[str, tuple[int, int]]:
        """Tensor name -> shape of the given side, in canonical order."""
        shapes: dict[str, tuple[int, int]] = {}
        for layer in range(self.layers):
            for target in self.targets:
                name = f"layers.{layer}.{target.name}"
                if side is not Side.B:
                    shapes[f"{name}.lora_a"] = (self.rank, target.in_features)
                if side is not Side.A:
                    shapes[f"{name}.lora_b"] = (target.out_features, self.rank)
        return shapes

    def trained_names(self, side: Side) -> tuple[str, ...]:
        """Names of the tensors that are trained and sent, in canonical order."""
        return tuple(self.shapes(side))

    def vector_length(self, side: Side) -> int:
        """Number of float32 values in a vector of the given side."""
        a = sum(target.in_features for target in self.targets) if side is not Side.B else 0
        b = sum(target.out_features for target in self.targets) if side is not Side.A else 0
        return self.layers * self.rank * (a + b)

    def check(self, tensors: Tensors, side: Side = Side.BOTH, *, exact: bool = True) -> None:
        """Checks names, shapes, dtype and finiteness of tensors against this layout.

        Args:
            tensors: name -> float32 array.
            side: which tensors must be there.
            exact: refuse tensors that `side` does not name.

        Raises:
            FormatError: a tensor is missing, unexpected, of another shape or
                dtype, or has a value that is not finite.
        """
        shapes = self.shapes(side)
        missing = [name for name in shapes if name not in tensors]
        if missing:
            raise FormatError(f"{len(missing)} tensors are missing, the first is {missing[0]!r}")
        extra = [name for name in tensors if name not in shapes] if exact else []
        if extra:
            raise FormatError(f"{len(extra)} unexpected tensors, the first is {extra[0][:80]!r}")
        for name, shape in shapes.items():
            tensor = tensors[name]
            if tensor.dtype != np.float32 or tensor.shape != shape:
                raise FormatError(f"{name} must be float32 {list(shape)}, got {tensor.dtype} {list(tensor.shape)}")
            if not np.isfinite(tensor).all():
                raise FormatError(f"{name} has values that are not finite")

    def to_vector(self, tensors: Tensors, side: Side) -> NDArray[np.float32]:
        """Flattens the tensors of one side to float32 [vector_length(side)].

        Tensors of the other side may be present and are ignored.

        Raises:
            FormatError: as `check`.
        """
        self.check(tensors, side, exact=False)
        return np.concatenate([tensors[name].ravel() for name in self.trained_names(side)])

    def from_vector(self, vector: NDArray[np.float32], side: Side) -> dict[str, NDArray[np.float32]]:
        """Cuts a vector into tensors, which are views of it: no copy is made.

        Raises:
            FormatError: the vector is not contiguous float32 of the right
                length, or has a value that is not finite.
        """
        length = self.vector_length(side)
        if vector.dtype != np.float32 or vector.shape != (length,) or not vector.flags.c_contiguous:
            raise FormatError(
                f"the vector must be contiguous float32 [{length}], got {vector.dtype} {list(vector.shape)}"
            )
        if not np.isfinite(vector).all():
            raise FormatError("the vector has values that are not finite")
        tensors: dict[str, NDArray[np.float32]] = {}
        offset = 0
        for name, (rows, columns) in self.shapes(side).items():
            tensors[name] = vector[offset : offset + rows * columns].reshape(rows, columns)
            offset += rows * columns
        return tensors

    def delta(self, after: Tensors, before: Tensors, side: Side) -> NDArray[np.float32]:
        """Returns `after - before` of one side, float32 [vector_length(side)].

        Raises:
            FormatError: as `check`.
        """
        return self.to_vector(after, side) - self.to_vector(before, side)

    def with_delta(self, before: Tensors, delta: NDArray[np.float32], side: Side) -> dict[str, NDArray[np.float32]]:
        """Returns a new complete adapter: `before` with `delta` added to one side.

        Raises:
            FormatError: `before` is not a complete adapter, or the delta or
                the sum does not fit.
        """
        self.check(before)
        moved = self.from_vector(self.to_vector(before, side) + delta, side)
        return {name: moved[name] if name in moved else before[name].copy() for name in self.shapes()}


def _check_integer(name: str, value: object, maximum: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= maximum:
        raise LayoutError(f"{name} must be an integer from 1 to {maximum}, got {str(value)[:40]}")
