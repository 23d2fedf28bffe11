"""Cross-entropy over a large vocabulary without ever holding [tokens, vocabulary].

The output matrix is taken a few thousand rows at a time. Each slice's logits update a running
maximum m, a running sum s of exp(logit - m), and, for training, a running mean a of the rows of W,
weighted by exp(logit - m) (the online softmax of Milakov and Gimelshein 2018, arXiv 1805.02867, as
FlashAttention uses it). At the end, per token with label t and final norm output h:

    nll = m + log s - h . W[t]            dnll/dh = a - W[t]

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
    with_gradient: bool,
) -> CrossEntropy:
    """Emit the loss of each token.

    Args:
        graph: Where to emit.
        hidden: Final norm output, float32 [N, hidden].
        labels: Target tokens, int64 [N]; each must be inside the vocabulary.
        matrix: Name of the output matrix [vocabulary, hidden].
        vocabulary: Its rows.
        with_gradient: Whether to make the gradient with respect to `hidden`.
    """
    last = graph.integers(-1)
    peak = total = mean = ""
    for first in range(0, vocabulary, SLICE_ROWS):
        end = min(first + SLICE_ROWS, vocabulary)
        rows = graph.emit("FrozenRowRange", matrix=matrix, first=first, last=end)
        logits = graph.emit("FusedMatMul", hidden, rows, domain="com.microsoft", transB=1)
        highest = graph.emit("ReduceMax", logits, last, keepdims=1)
        new_peak = graph.emit("Max", peak, highest) if first else highest
        raised = graph.emit("Exp", graph.emit("Sub", logits, new_peak))
        mass = graph.emit("ReduceSum", raised, last, keepdims=1)
        kept = ""
        if first:
            kept = graph.emit("Mul", total, graph.emit("Exp", graph.emit("Sub", peak, new_peak)))
            mass = graph.emit("Add", kept, mass)
        if with_gradient:
            pull = graph.emit("Div", graph.emit("MatMul", raised, rows), mass)
            old = graph.emit("Mul", mean, graph.emit("Div", kept, mass)) if first else ""
            mean = graph.emit("Add", old, pull) if first else pull
        peak, total = new_peak, mass
    target_rows = graph.emit("FrozenRows", labels, matrix=matrix)
    target = graph.emit("ReduceSum", graph.emit("Mul", hidden, target_rows), last, keepdims=1)
    nll = graph.emit("Sub", graph.emit("Add", peak, graph.emit("Log", total)), target)
    if not with_gradient:
        return CrossEntropy(nll, None)
    return CrossEntropy(nll, graph.emit("Sub", mean, target_rows))
