"""What to give up, and in which order, when a training process ran out of memory.

1. Activations are computed twice: costs time, changes nothing else.
2. The micro-batch is halved, down to one example: costs time; gradients differ only by rounding.
3. The longest example is halved, down to `SHORTEST_TOKENS`: what is longer is cut, so less is learnt.

Then nothing is left, and the night is skipped.
"""

from __future__ import annotations

from dataclasses import replace

from edge_client.configuration import SHORTEST_TOKENS
from edge_client.training.exchange import ChildRequest


def smaller(request: ChildRequest) -> ChildRequest | None:
    """The same work with the next less memory; None if there is nothing left to give up."""
    settings = request.settings
    if not request.runtime.recompute:
        return replace(request, runtime=replace(request.runtime, recompute=True))
    if settings.micro_batch_size > 1:
        return replace(request, settings=replace(settings, micro_batch_size=settings.micro_batch_size // 2))
    if settings.max_tokens > SHORTEST_TOKENS:
        shorter = max(SHORTEST_TOKENS, settings.max_tokens // 2)
        return replace(request, settings=replace(settings, max_tokens=shorter))
    return None


def describe(request: ChildRequest) -> str:
    """Its size, for people."""
    settings = request.settings
    kept = "computed twice" if request.runtime.recompute else "kept"
    return f"micro-batches of {settings.micro_batch_size}, {settings.max_tokens} tokens, activations {kept}"
