"""Answers to choose from, as a tree of shared beginnings.

Names like "calendar" and "cooking" start with the same tokens: what they share
is run through the model once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from edge_client.engines.errors import PromptError


@dataclass(frozen=True, slots=True)
class Level:
    """Tree nodes of one depth that have children, in a fixed order.

    Attributes:
        parents: for each node, its parent's position in the level above.
        tokens: for each node, its token.
        scored: (position of the node, token of its child, candidates below that child).
    """

    parents: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    scored: list[tuple[int, int, list[int]]] = field(default_factory=list)


def build_levels(candidates: Sequence[Sequence[int]]) -> list[Level]:
    """Returns the levels of the tree; the first holds the prompt's end alone.

    Raises:
        PromptError: there is no candidate, or an empty one.
    """
    if not candidates or not all(candidates):
        raise PromptError("every candidate needs at least one token")
    levels: list[Level] = []
    # Positions in the level being built -> candidates that pass through that node.
    passing = [list(range(len(candidates)))]
    level = Level(parents=[0], tokens=[0])
    while passing:
        below = Level()
        passing_below: list[list[int]] = []
        for position, members in enumerate(passing):
            children: dict[int, list[int]] = {}
            for member in members:
                children.setdefault(candidates[member][len(levels)], []).append(member)
            for token, reached in children.items():
                level.scored.append((position, token, reached))
                longer = [member for member in reached if len(candidates[member]) > len(levels) + 1]
                if longer:
                    below.parents.append(position)
                    below.tokens.append(token)
                    passing_below.append(longer)
        levels.append(level)
        level, passing = below, passing_below
    return levels
