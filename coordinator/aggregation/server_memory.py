"""What the server's optimiser remembers, beside the release after which it remembers it.

A release names the memory that the next one starts from. So a round that is cut off
repeats its step from the same memory, and going back to an older release goes back in memory, too.
"""

from __future__ import annotations

import io
import secrets
from collections.abc import Mapping

import numpy as np

from coordinator.aggregation.server_optimisers import ServerMemory
from coordinator.storage.objects import Objects
from coordinator.storage.rows import ReleaseRow
from nightshift.protocol.adapters.layout import Side

Memories = dict[Side, ServerMemory]


def load(objects: Objects, parent: ReleaseRow) -> Memories:
    """The memories that belong to a release; none for one that was made without."""
    if parent.server_memory_key is None:
        return {}
    with np.load(io.BytesIO(objects.get(parent.server_memory_key)), allow_pickle=False) as arrays:
        sides = {name.partition(".")[0] for name in arrays.files}
        return {Side(side): ServerMemory(arrays[f"{side}.mean"], arrays[f"{side}.square"]) for side in sorted(sides)}


def store(objects: Objects, memories: Mapping[Side, ServerMemory]) -> str | None:
    """Make memories durable under a fresh key; None where there is nothing to remember."""
    if not memories:
        return None
    file = io.BytesIO()
    arrays = {}
    for side, memory in memories.items():
        arrays[f"{side.value}.mean"] = memory.mean
        arrays[f"{side.value}.square"] = memory.square
    np.savez(file, allow_pickle=False, **arrays)
    key = f"server-memories/{secrets.token_hex(16)}.npz"
    objects.put(key, file.getvalue())
    return key
