"""The graphs that see whole sequences: evaluate, train, and train with recomputation.

All take `input_ids` int64 [B, T], `lora_scale` float32 [] (alpha / r) and the adapter's tensors;
docs/packages.md has the whole contract. Sequences are right-padded and positions run from 0, so
padding can only influence itself, and its weight is 0.
"""

from __future__ import annotations

from dataclasses import dataclass

from nightshift.packages.architecture import Architecture
from nightshift.packages.differentiation import gradients
from nightshift.packages.graph import Dimension, GraphBuilder, Node
from nightshift.packages.loss import CrossEntropy, cross_entropy
from nightshift.packages.transformer import Decoder, Positions

_FLOAT, _INTEGER = "float32", "int64"


def evaluate_step(architecture: Architecture, lora_targets: tuple[str, ...]) -> GraphBuilder:
    """Labels int64 [B, T] and weights float32 [B, T] -> `token_loss` [B, T] = nll * weight, nats."""
    graph = GraphBuilder()
    _declare_inputs(graph, architecture, lora_targets)
    _declare_targets(graph)
    decoder = Decoder(graph, architecture, lora_targets)
    positions = decoder.positions("input_ids")
    x = decoder.embed("input_ids")
    for layer in range(architecture.dimensions.layers):
        x = decoder.block(x, layer, positions)
    scored = _scored_tokens(graph, architecture, decoder.final_norm(x))
    loss = _token_losses(graph, architecture, scored, with_gradient=False)
    weighted = graph.emit("Mul", loss.nll, scored.weights)
    flat = _spread(graph, weighted, scored, width=1)
    graph.output(graph.emit("Reshape", flat, graph.emit("Shape", "input_ids")), "token_loss", _FLOAT, ("B", "T"))
    return graph


def train_step(architecture: Architecture, lora_targets: tuple[str, ...], *, recompute: bool) -> GraphBuilder:
    """The inputs of `evaluate_step` -> `loss` = sum(nll * w) / max(sum w, 1) and its gradients.

    Args:
        architecture: The model.
        lora_targets: Projections with an adapter.
        recompute: Keep only the input of each block and run the block again in the backward pass:
            less memory, about a third more arithmetic (Chen et al. 2016, arXiv 1604.06174).

    Returns:
        A graph with outputs `loss` and `grad.<tensor>` for each of the adapter's tensors.
    """
    graph = GraphBuilder()
    lora_shapes = _declare_inputs(graph, architecture, lora_targets)
    _declare_targets(graph)
    decoder = Decoder(graph, architecture, lora_targets)
    positions = decoder.positions("input_ids")
    x, stretches = decoder.embed("input_ids"), []
    for layer in range(architecture.dimensions.layers):
        stretch, x = _run_block(decoder, x, layer, positions)
        stretches.append(stretch)
    start = len(graph.nodes)
    final = decoder.final_norm(x)
    norm_nodes = graph.nodes[start:]
    scored = _scored_tokens(graph, architecture, final)
    loss = _token_losses(graph, architecture, scored, with_gradient=True)
    share = _mean_loss(graph, scored, loss)
    assert loss.gradient is not None
    flat = _spread(graph, graph.emit("Mul", loss.gradient, share), scored, width=architecture.dimensions.hidden)
    gradient = graph.after(flat, final)
    (gradient,) = gradients(graph, norm_nodes, final, gradient, [x])
    for layer, stretch in reversed(list(enumerate(stretches))):
        if recompute:
            again = graph.after(stretch.input, gradient)
            stretch, _ = _run_block(decoder, again, layer, positions)  # noqa: PLW2901 - takes its place
        names = decoder.lora_names(layer)
        below = [stretch.input] if layer else []  # nothing below the first block is trained
        results = gradients(graph, stretch.nodes, stretch.output, gradient, names + below)
        for name, result in zip(names, results, strict=False):
            graph.output(result, f"grad.{name}", _FLOAT, lora_shapes[name])
        gradient = results[-1]
    order = {f"grad.{name}": index for index, name in enumerate(lora_shapes)}
    graph.outputs.sort(key=lambda port: order.get(port.name, -1))
    return graph


@dataclass(frozen=True, slots=True)
class _Stretch:
    input: str
    output: str
    nodes: tuple[Node, ...]


def _run_block(decoder: Decoder, x: str, layer: int, positions: Positions) -> tuple[_Stretch, str]:
    start = len(decoder.graph.nodes)
    y = decoder.block(x, layer, positions)
    return _Stretch(x, y, tuple(decoder.graph.nodes[start:])), y


def _declare_inputs(
    graph: GraphBuilder, architecture: Architecture, lora_targets: tuple[str, ...]
) -> dict[str, tuple[Dimension, ...]]:
    graph.input("input_ids", _INTEGER, ("B", "T"))
    graph.input("lora_scale", _FLOAT, ())
    shapes: dict[str, tuple[Dimension, ...]] = {}
    for layer in range(architecture.dimensions.layers):
        for projection in lora_targets:
            rows, columns = architecture.dimensions.projection_shape(projection)
            shapes[f"layers.{layer}.{projection}.lora_a"] = ("r", columns)
            shapes[f"layers.{layer}.{projection}.lora_b"] = (rows, "r")
    for name, shape in shapes.items():
        graph.input(name, _FLOAT, shape)
    return shapes


def _declare_targets(graph: GraphBuilder) -> None:
    graph.input("labels", _INTEGER, ("B", "T"))
    graph.input("weights", _FLOAT, ("B", "T"))


@dataclass(frozen=True, slots=True)
class _ScoredTokens:
    """The n tokens whose weight is not 0: the others need no logits.

    Attributes:
        indices: Which of the B * T tokens, int64 [n, 1].
        hidden: Final norm output, float32 [n, hidden].
        labels: int64 [n].
        weights: float32 [n, 1].
        count: B * T, int64 [1].
    """

    indices: str
    hidden: str
    labels: str
    weights: str
    count: str


def _scored_tokens(graph: GraphBuilder, architecture: Architecture, final: str) -> _ScoredTokens:
    weights = graph.emit("Reshape", "weights", graph.integers(-1))
    indices = graph.emit("Reshape", graph.emit("NonZero", weights), graph.integers(-1))
    hidden = graph.emit("Reshape", final, graph.integers(-1, architecture.dimensions.hidden))
    column = graph.emit("Reshape", indices, graph.integers(-1, 1))
    return _ScoredTokens(
        indices=column,
        hidden=graph.emit("Gather", hidden, indices),
        labels=graph.emit("Gather", graph.emit("Reshape", "labels", graph.integers(-1)), indices),
        weights=graph.emit("Gather", weights, column),
        count=graph.size(weights, 0),
    )


def _spread(graph: GraphBuilder, values: str, scored: _ScoredTokens, *, width: int) -> str:
    """Values of the scored tokens, float32 [n, width] -> [B * T, width], 0 for the other tokens."""
    shape = graph.emit("Concat", scored.count, graph.integers(width), axis=0)
    return graph.emit("ScatterND", graph.emit("Expand", graph.scalar(0.0), shape), scored.indices, values)


def _token_losses(
    graph: GraphBuilder, architecture: Architecture, scored: _ScoredTokens, *, with_gradient: bool
) -> CrossEntropy:
    return cross_entropy(
        graph,
        scored.hidden,
        scored.labels,
        matrix=architecture.output_matrix,
        vocabulary=architecture.dimensions.vocabulary,
        with_gradient=with_gradient,
    )


def _mean_loss(graph: GraphBuilder, scored: _ScoredTokens, loss: CrossEntropy) -> str:
    """Emit the `loss` output and return each scored token's share in it, float32 [n, 1]."""
    count = graph.emit("Max", graph.emit("ReduceSum", scored.weights, keepdims=0), graph.scalar(1.0))
    total = graph.emit("ReduceSum", graph.emit("Mul", loss.nll, scored.weights), keepdims=0)
    graph.output(graph.emit("Div", total, count), "loss", _FLOAT, ())
    return graph.emit("Div", scored.weights, count)
