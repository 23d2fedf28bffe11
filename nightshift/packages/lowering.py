"""From the model's ops to ONNX Runtime's, and from there to the bytes of a .onnx file.

Facts this rests on (measured; docs/packages.md):

* MatMulNBits multiplies by 4- and 8-bit codes directly; GatherBlockQuantized dequantises rows on
  all threads. Both read the same bytes. DequantizeLinear would be several times slower.
* For 8-bit codes and many tokens, dequantising first and then one product of floats is the faster way.
* ONNX Runtime can run a dequantisation whose inputs are all constant once, when it loads, and keep the
  float32 matrix for ever. So the row numbers are made to depend on an input of the graph.
* What ONNX Runtime's optimiser would find is written here at once (products with a transposed operand,
  rotary embedding as one op), so whole-sequence graphs are loaded as they are (`session`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from nightshift.packages.graph import Attribute, GraphBuilder, Node, Port
from nightshift.packages.quantised import BLOCK
from nightshift.packages.weights_file import ExternalTensor, FrozenMatrix, WeightsFile

OPSET = 21
IR_VERSION = 10
_MICROSOFT = "com.microsoft"

ACCURACY_FLOAT32 = 0
ACCURACY_INT8 = 4
"""MatMulNBits' accuracy levels: activations in float32, or rounded to int8 (faster)."""


@dataclass(slots=True)
class _Lowering:
    """State of one lowering: where ops go and which stored tensors they use."""

    graph: GraphBuilder
    weights: WeightsFile
    accuracy: int
    tie: str
    used: set[str] = field(default_factory=set)
    ranges: dict[tuple[int, int], str] = field(default_factory=dict)

    def matrix(self, node: Node) -> tuple[str, FrozenMatrix]:
        name = node.attributes["matrix"]
        assert isinstance(name, str)
        return name, self.weights.matrices[name]

    def stored(self, name: str) -> str:
        self.used.add(name)
        return name

    def put(self, op: str, *inputs: str, result: str, domain: str = "", **attributes: Attribute) -> None:
        self.graph.nodes.append(Node(op, inputs, (result,), attributes, domain))

    def rows(self, name: str, matrix: FrozenMatrix, indices: str, result: str) -> None:
        """W[indices], dequantised, for a matrix that is not stored transposed."""
        if matrix.bits == 32:
            self.put("Gather", self.stored(name), indices, result=result)
            return
        self.put(
            "GatherBlockQuantized",
            self.stored(f"{name}.codes"),
            indices,
            self.stored(f"{name}.scales"),
            result=result,
            domain=_MICROSOFT,
            bits=matrix.bits,
            block_size=BLOCK,
            gather_axis=0,
            quantize_axis=1,
        )

    def row_numbers(self, first: int, last: int) -> str:
        """The integers first..last-1, made to depend on the shape of `tie`; each range is made once a run."""
        g = self.graph
        if (first, last) not in self.ranges:
            zero = g.emit("Mul", g.emit("Squeeze", g.emit("Shape", self.tie, start=0, end=1)), g.integer(0))
            bounds = (g.emit("Add", zero, g.integer(bound)) for bound in (first, last))
            self.ranges[first, last] = g.emit("Range", *bounds, g.integer(1))
        return self.ranges[first, last]

    def product(self, left: str, right: str, result: str, **attributes: Attribute) -> None:
        """The product alpha op(left) op(right); transA and transB swap an operand's last two axes."""
        self.put("FusedMatMul", left, right, result=result, domain=_MICROSOFT, **attributes)


def to_onnx(source: GraphBuilder, weights: WeightsFile, *, accuracy: int = ACCURACY_FLOAT32) -> bytes:
    """Serialise a graph; frozen tensors stay outside, in the weights file.

    Args:
        source: A finished graph.
        weights: Where its frozen tensors lie.
        accuracy: MatMulNBits' accuracy level.

    Returns:
        The bytes of the .onnx file; equal input gives equal bytes.
    """
    target = GraphBuilder.continuing(source)
    state = _Lowering(target, weights, accuracy, source.inputs[0].name)
    for node in live_nodes(source):
        rule = None if node.domain else _LOWERINGS.get(node.op)
        if rule is None:
            target.nodes.append(node)
        else:
            rule(state, node)
        state.used.update(name for name in node.inputs if name in weights.tensors)
    return _serialise(source, target, {name: weights.tensors[name] for name in state.used}, weights.path.name)


def live_nodes(graph: GraphBuilder) -> list[Node]:
    """The nodes that some output depends on, in order, without results that nobody reads.

    ONNX Runtime would run the others, and keep their results until the end: the last products of a
    recomputed block, for one, which only its first run needs.
    """
    wanted = {port.name for port in graph.outputs}
    live = []
    for node in reversed(graph.nodes):
        if wanted.isdisjoint(node.outputs):
            continue
        wanted.update(node.inputs)
        read = max(index for index, name in enumerate(node.outputs) if name in wanted)
        live.append(dataclasses.replace(node, outputs=node.outputs[: read + 1]))
    return live[::-1]


def _frozen_linear(state: _Lowering, node: Node) -> None:
    (x,), (result,) = node.inputs, node.outputs
    name, matrix = state.matrix(node)
    rows, columns = matrix.shape
    if matrix.bits == 32:
        state.product(x, state.stored(name), result, transB=0 if matrix.transposed else 1)
        return
    if matrix.bits == 8 and state.accuracy == ACCURACY_FLOAT32:
        whole = f"{result}.matrix"
        state.rows(name, matrix, state.row_numbers(0, rows), whole)
        state.product(x, whole, result, transB=1)
        return
    state.put(
        "MatMulNBits",
        x,
        state.stored(f"{name}.blocks"),
        state.stored(f"{name}.scales"),
        result=result,
        domain=_MICROSOFT,
        K=columns,
        N=rows,
        bits=matrix.bits,
        block_size=BLOCK,
        accuracy_level=state.accuracy,
    )


def _frozen_linear_gradient(state: _Lowering, node: Node) -> None:
    (gradient,), (result,) = node.inputs, node.outputs
    name, matrix = state.matrix(node)
    if matrix.bits == 32:
        state.product(gradient, state.stored(name), result, transB=1 if matrix.transposed else 0)
        return
    whole = f"{result}.matrix"
    state.rows(name, matrix, state.row_numbers(0, matrix.shape[0]), whole)
    state.put("MatMul", gradient, whole, result=result)


def _frozen_rows(state: _Lowering, node: Node) -> None:
    name, matrix = state.matrix(node)
    state.rows(name, matrix, node.inputs[0], node.outputs[0])


def _frozen_row_range(state: _Lowering, node: Node) -> None:
    name, matrix = state.matrix(node)
    first, last = node.attributes["first"], node.attributes["last"]
    assert isinstance(first, int)
    assert isinstance(last, int)
    state.rows(name, matrix, state.row_numbers(first, last), node.outputs[0])


def _linear(state: _Lowering, node: Node) -> None:
    x, weight = node.inputs
    state.product(x, weight, node.outputs[0], transB=1)


def _rms_norm(state: _Lowering, node: Node) -> None:
    epsilon = node.attributes["epsilon"]
    attributes: Mapping[str, Attribute] = {"axis": -1, "epsilon": epsilon, "stash_type": 1}
    state.graph.nodes.append(Node("SimplifiedLayerNormalization", node.inputs, node.outputs, attributes))


def _rotary(state: _Lowering, node: Node) -> None:
    x, cosine, sine = node.inputs
    first = state.graph.integers(0)  # the row of the tables for the first position
    state.put("RotaryEmbedding", x, first, cosine, sine, result=node.outputs[0], domain=_MICROSOFT)


def _attention(state: _Lowering, node: Node) -> None:
    query, key, value, mask = node.inputs
    g = state.graph
    chances = node.outputs[1] if len(node.outputs) > 1 else g.fresh_name("chances")
    scores = g.fresh_name("scores")
    state.product(query, key, scores, transB=1, alpha=node.attributes["scale"])
    state.put("Softmax", g.emit("Add", scores, mask), result=chances, axis=-1)
    state.put("MatMul", chances, value, result=node.outputs[0])


def _swiglu(state: _Lowering, node: Node) -> None:
    gate, up = node.inputs
    # QuickGelu would be one op less, yet takes twice the time of these two for a few hundred tokens.
    silu = state.graph.emit("Mul", gate, state.graph.emit("Sigmoid", gate))
    state.put("Mul", silu, up, result=node.outputs[0])


_LOWERINGS: dict[str, Callable[[_Lowering, Node], None]] = {
    "Attention": _attention,
    "FrozenLinear": _frozen_linear,
    "FrozenLinearGradient": _frozen_linear_gradient,
    "FrozenRowRange": _frozen_row_range,
    "FrozenRows": _frozen_rows,
    "Linear": _linear,
    "RmsNorm": _rms_norm,
    "RotaryEmbedding": _rotary,
    "SwiGlu": _swiglu,
}


def _serialise(
    source: GraphBuilder, target: GraphBuilder, external: Mapping[str, ExternalTensor], weights_name: str
) -> bytes:
    nodes = [_node(node) for node in target.nodes]
    consumed = {name for node in target.nodes for name in node.inputs}
    constants = [numpy_helper.from_array(values, name) for name, values in target.constants.items() if name in consumed]
    frozen = [_external_tensor(external[name], weights_name) for name in sorted(external)]
    graph = helper.make_graph(
        nodes,
        "nightshift",
        [_value_info(port) for port in source.inputs],
        [_value_info(port) for port in source.outputs],
        constants + frozen,
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(_MICROSOFT, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="nightshift")
    encoded: bytes = model.SerializeToString(deterministic=True)
    return encoded


def _node(node: Node) -> onnx.NodeProto:
    proto = helper.make_node(node.op, node.inputs, node.outputs, domain=node.domain)
    proto.attribute.extend(helper.make_attribute(name, node.attributes[name]) for name in sorted(node.attributes))
    return proto


def _value_info(port: Port) -> onnx.ValueInfoProto:
    dtype = helper.np_dtype_to_tensor_dtype(np.dtype(port.dtype))
    return helper.make_tensor_value_info(port.name, dtype, list(port.shape))


def _external_tensor(tensor: ExternalTensor, location: str) -> onnx.TensorProto:
    dtype = helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
    proto = TensorProto(name=tensor.name, data_type=dtype, dims=tensor.shape)
    proto.data_location = TensorProto.EXTERNAL
    for key, value in (
        ("location", location),
        ("offset", str(tensor.offset)),
        ("length", str(tensor.size_bytes)),
    ):
        entry = proto.external_data.add()
        entry.key, entry.value = key, value
    return proto
