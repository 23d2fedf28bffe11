"""Reverse-mode differentiation of a stretch of a graph: one rule per op, in a table.

A rule receives the node and the gradient of its (first) result and emits the gradients of those
inputs that need one. The rules use inference ops only, so any ONNX Runtime runs the result, and
they read shapes at run time, so batch, length and rank stay dynamic.

Convention on broadcasting: an operand that is broadcast (a mask, a scalar, a bias, a table of
cosines) is frozen and needs no gradient. `gradients` cannot see shapes, so the builder of the
graph keeps this; the finite-difference tests would catch a breach.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from nightshift.packages.graph import Attribute, GraphBuilder, Node

Contribution = tuple[str, str]
"""(input, its gradient)"""
Rule = Callable[[GraphBuilder, Node, str, frozenset[str]], Iterator[Contribution]]

CONSTANT_OPS = frozenset({"Shape", "Cast", "Range", "Greater", "Where", "FrozenRows", "FrozenRowRange"})
"""Ops through which no gradient flows, because their inputs are indices, shapes or conditions."""


def gradients(
    graph: GraphBuilder, nodes: Sequence[Node], output: str, output_gradient: str, targets: Sequence[str]
) -> list[str]:
    """Emit the gradients of a scalar with respect to `targets`, given its gradient at `output`.

    Args:
        graph: Where to emit.
        nodes: The stretch between `targets` and `output`, in order.
        output: A result of `nodes`.
        output_gradient: The gradient with respect to `output`, of its shape.
        targets: Inputs of `nodes`.

    Returns:
        One gradient name for each target, of the target's shape.

    Raises:
        NotImplementedError: An op on the way has no rule.
        ValueError: A target does not influence `output`.
    """
    needed = _reachable(nodes, targets)
    found = {output: output_gradient}
    for node in reversed(nodes):
        gradient = found.get(node.outputs[0])
        if gradient is None or node.outputs[0] not in needed:
            continue
        rule = RULES.get(node.op)
        if rule is None:
            raise NotImplementedError(f"no differentiation rule for {node.op}; add one to RULES")
        for name, contribution in rule(graph, node, gradient, needed):
            found[name] = graph.emit("Add", found[name], contribution) if name in found else contribution
    missing = [target for target in targets if target not in found]
    if missing:
        raise ValueError(f"{missing[0]} does not influence {output}")
    return [found[target] for target in targets]


def _reachable(nodes: Sequence[Node], targets: Sequence[str]) -> frozenset[str]:
    needed = set(targets)
    for node in nodes:
        if node.op not in CONSTANT_OPS and needed.intersection(node.inputs):
            needed.update(node.outputs)
    return frozenset(needed)


def _add(_graph: GraphBuilder, node: Node, gradient: str, needed: frozenset[str]) -> Iterator[Contribution]:
    for name in node.inputs:
        if name in needed:
            yield name, gradient


def _multiply(graph: GraphBuilder, node: Node, gradient: str, needed: frozenset[str]) -> Iterator[Contribution]:
    left, right = node.inputs
    if left in needed:
        yield left, graph.emit("Mul", gradient, right)
    if right in needed:
        yield right, graph.emit("Mul", gradient, left)


def _swiglu(graph: GraphBuilder, node: Node, gradient: str, needed: frozenset[str]) -> Iterator[Contribution]:
    # Only gate and up are kept; the sigmoid is computed again, cheaper than two more tensors of that size.
    gate, up = node.inputs
    chance = graph.emit("Sigmoid", gate)
    silu = graph.emit("Mul", gate, chance)
    if up in needed:
        yield up, graph.emit("Mul", gradient, silu)
    if gate in needed:
        # d silu / d gate = sigmoid (1 + gate - silu)
        rest = graph.emit("Add", graph.emit("Sub", gate, silu), graph.scalar(1.0))
        slope = graph.emit("Mul", chance, rest)
        yield gate, graph.emit("Mul", graph.emit("Mul", gradient, up), slope)


def _attention(graph: GraphBuilder, node: Node, gradient: str, needed: frozenset[str]) -> Iterator[Contribution]:
    # With chances P and result O: dS = P (dO v^T - rowsum(dO O)), since rowsum(P dP) = rowsum(dO O),
    # and O is the smaller tensor (Dao et al. 2022, arXiv 2205.14135, appendix B.2).
    query, key, value, _mask = node.inputs
    mixed, chances = node.outputs
    scale = node.attributes["scale"]
    if value in needed:
        yield value, _product(graph, chances, gradient, transA=1)
    mean = graph.emit("ReduceSum", graph.emit("Mul", gradient, mixed), graph.integers(-1), keepdims=1)
    raw = graph.emit("Sub", _product(graph, gradient, value, transB=1), mean)
    scores = graph.emit("Mul", chances, raw)
    if query in needed:
        yield query, _product(graph, scores, key, alpha=scale)
    if key in needed:
        yield key, _product(graph, scores, query, transA=1, alpha=scale)


def _linear(graph: GraphBuilder, node: Node, gradient: str, needed: frozenset[str]) -> Iterator[Contribution]:
    x, weight = node.inputs
    if x in needed:
        yield x, graph.emit("MatMul", gradient, weight)
    if weight in needed:
        yield weight, _product(graph, _flat(graph, gradient), _flat(graph, x), transA=1)


def _frozen_linear(graph: GraphBuilder, node: Node, gradient: str, _: frozenset[str]) -> Iterator[Contribution]:
    yield node.inputs[0], graph.emit("FrozenLinearGradient", gradient, matrix=node.attributes["matrix"])


def _rms_norm(graph: GraphBuilder, node: Node, gradient: str, _: frozenset[str]) -> Iterator[Contribution]:
    # y = g x s with s = mean(x^2 + eps)^(-1/2), so ds/dx = -s^3 x / n and
    # dx = s (g dy - u mean(g dy u)) with u = x s (Zhang and Sennrich 2019, section 4).
    x, gain = node.inputs
    inverse = node.outputs[1]
    unit = graph.emit("Mul", x, inverse)
    scaled = graph.emit("Mul", gradient, gain)
    mean = graph.emit("ReduceMean", graph.emit("Mul", scaled, unit), graph.integers(-1), keepdims=1)
    yield x, graph.emit("Mul", inverse, graph.emit("Sub", scaled, graph.emit("Mul", unit, mean)))


def _rotary(graph: GraphBuilder, node: Node, gradient: str, _: frozenset[str]) -> Iterator[Contribution]:
    # The transpose of a rotation is the rotation by the opposite angle.
    x, cosine, sine = node.inputs
    yield x, graph.emit("RotaryEmbedding", gradient, cosine, graph.emit("Neg", sine))


def _reshape(graph: GraphBuilder, node: Node, gradient: str, _: frozenset[str]) -> Iterator[Contribution]:
    yield node.inputs[0], graph.emit("Reshape", gradient, graph.emit("Shape", node.inputs[0]))


def _transpose(graph: GraphBuilder, node: Node, gradient: str, _: frozenset[str]) -> Iterator[Contribution]:
    permutation = node.attributes["perm"]
    assert isinstance(permutation, list)
    inverse = [int(axis) for axis in np.argsort(permutation)]
    yield node.inputs[0], graph.emit("Transpose", gradient, perm=inverse)


def _product(graph: GraphBuilder, left: str, right: str, **attributes: Attribute) -> str:
    """The product alpha op(left) op(right); transA and transB swap an operand's last two axes."""
    return graph.emit("FusedMatMul", left, right, domain="com.microsoft", **attributes)


def _flat(graph: GraphBuilder, tensor: str) -> str:
    """[..., n] -> [tokens, n]."""
    return graph.emit("Flatten", tensor, axis=-1)


RULES: dict[str, Rule] = {
    "Add": _add,
    "Attention": _attention,
    "FrozenLinear": _frozen_linear,
    "Linear": _linear,
    "Mul": _multiply,
    "Reshape": _reshape,
    "RmsNorm": _rms_norm,
    "RotaryEmbedding": _rotary,
    "SwiGlu": _swiglu,
    "Transpose": _transpose,
}
