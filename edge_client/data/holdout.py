"""Which examples are kept out of training, decided by their content alone.

The same example falls on the same side on every night and however the file is
re-ordered or extended, so what is measured has never been trained on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from edge_client.data.errors import DataError
from edge_client.data.examples import Conversation, Example

DEFAULT_FRACTION = 0.1


def is_held_out(example: Example, fraction: float = DEFAULT_FRACTION) -> bool:
    """Tells whether the first 64 bits of SHA-256 of the content, as a fraction of 1, lie below `fraction`."""
    if isinstance(example, Conversation):
        content: object = [[message.role, message.content] for message in example.messages]
    else:
        content = example.text
    digest = hashlib.sha256(json.dumps(content).encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2.0**64


def split(examples: Iterable[Example], fraction: float = DEFAULT_FRACTION) -> tuple[list[Example], list[Example]]:
    """Returns (examples to train on, examples held out), each in the given order.

    Raises:
        DataError: the fraction is not in [0, 1).
    """
    if not 0 <= fraction < 1:
        raise DataError(f"the held-out fraction must be in [0, 1), got {fraction}")
    kept: list[Example] = []
    held_out: list[Example] = []
    for example in examples:
        (held_out if is_held_out(example, fraction) else kept).append(example)
    return kept, held_out
