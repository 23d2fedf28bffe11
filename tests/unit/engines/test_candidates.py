from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_client.engines.candidates import build_levels
from edge_client.engines.errors import PromptError


def paths(candidates: list[list[int]]) -> tuple[dict[int, list[int]], int]:
    """Candidate -> tokens scored for it along the tree, and the number of nodes run."""
    levels = build_levels(candidates)
    scored: dict[int, list[int]] = {index: [] for index in range(len(candidates))}
    prefixes = [[()]]
    for level in levels[1:]:
        prefixes.append(
            [prefixes[-1][parent] + (token,) for parent, token in zip(level.parents, level.tokens, strict=True)]
        )
    for level, nodes in zip(levels, prefixes, strict=True):
        for position, token, reached in level.scored:
            for candidate in reached:
                assert tuple(candidates[candidate][: len(scored[candidate])]) == nodes[position]
                scored[candidate].append(token)
    return scored, sum(len(nodes) for nodes in prefixes)


def test_shared_beginnings_are_run_once() -> None:
    scored, nodes = paths([[1, 2, 3], [1, 2, 4], [1, 5], [6]])
    assert scored == {0: [1, 2, 3], 1: [1, 2, 4], 2: [1, 5], 3: [6]}
    assert nodes == 3  # the prompt's end, [1] and [1, 2]


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5), min_size=1, max_size=8))
def test_every_candidate_is_scored_token_by_token_after_its_own_prefix(candidates: list[list[int]]) -> None:
    scored, nodes = paths(candidates)
    assert scored == dict(enumerate(candidates))
    assert nodes == len({tuple(candidate[:end]) for candidate in candidates for end in range(len(candidate))})


@pytest.mark.parametrize("candidates", [[], [[1], []]])
def test_empty_candidates_are_refused(candidates: list[list[int]]) -> None:
    with pytest.raises(PromptError):
        build_levels(candidates)
