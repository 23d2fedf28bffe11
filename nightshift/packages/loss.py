"""Cross-entropy over a large vocabulary without ever holding [tokens, vocabulary].

The output matrix is taken a few thousand rows at a time. Each slice's logits update a running
maximum m, a running sum s of exp(logit - m), and, for training, a running sum a of
exp(logit - m) W (the online softmax of Milakov and Gimelshein 2018, arXiv 1805.02867, as
FlashAttention uses it). At the end, per token with label t and final norm output h:

    nll = m + log s - h . W[t]            dnll/dh = a / s - W[t]

so the gradient is made in the forward pass, and each slice is dequantised once and used for
logits and gradient alike. Peak memory is one slice of logits plus one slice of the matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

from nightshift.packages.graph import GraphBuilder

SLICE_ROWS = 4096
"""Vocabulary rows per slice: 4 MB of logits for 256 tokens."""


@dataclass(frozen=True, slots=True)
class CrossEntropy:
    """Results of `cross_entropy`; [N] counts tokens.

    Attributes:
        nll: Negative log-likelihood of each label, nats, float32 [N, 1].
        gradient: d nll / d hidden, float32 [N, hidden]; None unless asked for.
    """

    nll: str
    gradient: str | None


def cross_entropy(
    graph: GraphBuilder,
    hidden: str,
    labels: str,
    *,
    matrix: str,
    vocabulary: int,
    width: int,
    with_gradient: bool,
) -> CrossEntropy:
    """Emit the loss of each token.

    Args:
        graph: Where to emit.
        hidden: Final norm output, float32 [N, width].
        labels: Target tokens, int64 [N]; each must be inside the vocabulary, padding too.
        matrix: Name of the output matrix [vocabulary, width].
        vocabulary: Its rows.
        width: Its columns.
        with_gradient: Whether to make the gradient with respect to `hidden`.
    """
    last = graph.integers(-1)
    peak = total = direction = ""
    for first in range(0, vocabulary, SLICE_ROWS):
        end = min(first + SLICE_ROWS, vocabulary)
        # One slice after the other: without the order all slices could be alive at once.
        x = hidden if first == 0 else graph.after(hidden, total, _like(graph, total, width))
        rows = graph.emit("FrozenRowRange", x, matrix=matrix, first=first, last=end)
        logits = graph.emit("FusedMatMul", x, rows, domain="com.microsoft", transB=1)
        highest = graph.emit("ReduceMax", logits, last, keepdims=1)
        new_peak = graph.emit("Max", peak, highest) if peak else highest
        raised = graph.emit("Exp", graph.emit("Sub", logits, new_peak))
        mass = graph.emit("ReduceSum", raised, last, keepdims=1)
        pull = graph.emit("MatMul", raised, rows) if with_gradient else ""
        if peak:
            decay = graph.emit("Exp", graph.emit("Sub", peak, new_peak))
            mass = graph.emit("Add", graph.emit("Mul", total, decay), mass)
            if with_gradient:
                pull = graph.emit("Add", graph.emit("Mul", direction, decay), pull)
        peak, total, direction = new_peak, mass, pull
    target_rows = graph.emit("FrozenRows", labels, matrix=matrix)
    target = graph.emit("ReduceSum", graph.emit("Mul", hidden, target_rows), last, keepdims=1)
    nll = graph.emit("Sub", graph.emit("Add", peak, graph.emit("Log", total)), target)
    if not with_gradient:
        return CrossEntropy(nll, None)
    return CrossEntropy(nll, graph.emit("Sub", graph.emit("Div", direction, total), target_rows))


def _like(graph: GraphBuilder, per_token: str, width: int) -> str:
    """The shape [N, width], computed from a tensor [N, 1]."""
    return graph.emit("Concat", graph.size(per_token, 0), graph.integers(width), axis=0)
