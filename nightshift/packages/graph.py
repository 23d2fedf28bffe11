"""Building a computation graph, op by op, before any of it is ONNX.

A graph is a list of `Node`s in the order they were emitted, each consuming names that exist by
then. Most ops are ONNX's own (opset 21); these are the model's, and `lowering` turns them into
ONNX Runtime's, depending on how each frozen matrix is stored:

=====================  ==============================  ==========================================
op                     inputs, attributes              result
=====================  ==============================  ==========================================
FrozenLinear           x [..., in]; matrix             x W^T, [..., out]
FrozenLinearGradient   dy [..., out]; matrix           dy W, [..., in]
FrozenRows             indices (any shape S); matrix   W[indices], [S, in]
FrozenRowRange         none; matrix, first, last       W[first:last], [last - first, in]
Linear                 x [..., in], w [out, in]        x w^T, [..., out]
Attention              q [B, H, Q, d], k, v            softmax(scale q k^T + mask) v, [B, H, Q, d], and
                       [B, H, K, d], mask [Q, K];      the chances, [B, H, Q, K]
                       scale
SwiGlu                 gate, up, both [..., n]         gate * sigmoid(gate) * up
RmsNorm                x [..., n], gain [n]; epsilon   gain * x * s, and s = 1 / rms(x), [..., 1]
RotaryEmbedding        x [..., T, d], cos, sin [T, d/2]  x turned, first half against second half
=====================  ==============================  ==========================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Attribute = int | float | str | list[int]
Constant = NDArray[np.float32] | NDArray[np.int64]
Dimension = int | str

INT64_MAX = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Node:
    """One operation; `domain` is empty for ONNX's own and the model's ops."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    domain: str = ""


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of the whole graph: numpy dtype, dimensions fixed (int) or named (str)."""

    name: str
    dtype: str
    shape: tuple[Dimension, ...]


class GraphBuilder:
    """Collects nodes, constants, inputs and outputs; names are unique and deterministic."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.nodes: list[Node] = []
        self.constants: dict[str, Constant] = {}
        self.inputs: list[Port] = []
        self.outputs: list[Port] = []
        self._constant_names: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._next = 0

    @classmethod
    def continuing(cls, other: GraphBuilder) -> GraphBuilder:
        """An empty graph with the constants of `other`, whose new names avoid those of `other`."""
        graph = cls()
        graph.constants = dict(other.constants)
        graph._constant_names = dict(other._constant_names)
        graph._next = other._next
        return graph

    def input(self, name: str, dtype: str, shape: Sequence[Dimension]) -> str:
        """Declare an input of the graph."""
        self.inputs.append(Port(name, dtype, tuple(shape)))
        return name

    def output(self, value: str, name: str, dtype: str, shape: Sequence[Dimension]) -> None:
        """Declare `value` an output of the graph, under `name`."""
        self.emit_into((name,), "Identity", value)
        self.declare_output(name, dtype, shape)

    def declare_output(self, name: str, dtype: str, shape: Sequence[Dimension]) -> None:
        """Declare the result of this name an output of the graph; no copy is made, as `output` makes one."""
        self.outputs.append(Port(name, dtype, tuple(shape)))

    def emit(self, op: str, *inputs: str, domain: str = "", **attributes: Attribute) -> str:
        """Append an op with one result; returns the result's name."""
        return self.emit_many(op, *inputs, count=1, domain=domain, **attributes)[0]

    def emit_many(
        self, op: str, *inputs: str, count: int, domain: str = "", **attributes: Attribute
    ) -> tuple[str, ...]:
        """Append an op with `count` results; returns their names."""
        outputs = tuple(self.fresh_name(op) for _ in range(count))
        self.emit_into(outputs, op, *inputs, domain=domain, **attributes)
        return outputs

    def emit_into(
        self, outputs: tuple[str, ...], op: str, *inputs: str, domain: str = "", **attributes: Attribute
    ) -> None:
        """Append an op whose results have these names; an empty name is a result that is not wanted."""
        self.nodes.append(Node(op, inputs, outputs, attributes, domain))

    def constant(self, values: Constant) -> str:
        """A constant tensor; equal ones are shared."""
        key = (values.dtype.str, values.shape, values.tobytes())
        if key not in self._constant_names:
            name = self.fresh_name("constant")
            self._constant_names[key] = name
            self.constants[name] = values
        return self._constant_names[key]

    def integers(self, *values: int) -> str:
        """A constant int64 vector."""
        return self.constant(np.array(values, np.int64))

    def integer(self, value: int) -> str:
        """A constant int64 scalar."""
        return self.constant(np.array(value, np.int64))

    def scalar(self, value: float) -> str:
        """A constant float32 scalar."""
        return self.constant(np.array(value, np.float32))

    def size(self, tensor: str, axis: int) -> str:
        """The length of one axis, int64 [1]."""
        if axis == -1:
            return self.emit("Shape", tensor, start=-1)
        return self.emit("Shape", tensor, start=axis, end=axis + 1)

    def after(self, tensor: str, other: str) -> str:
        """`tensor` again, but not before `other`, of the same shape, has been computed.

        A Reshape to the shape of `other`: it costs nothing, orders what follows after `other`, and
        keeps common-subexpression elimination from merging a recomputed layer with its first run.
        """
        return self.emit("Reshape", tensor, self.emit("Shape", other))

    def fresh_name(self, stem: str) -> str:
        """A name that nothing else has."""
        self._next += 1
        return f"{stem}_{self._next}"
