from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edge_client.data.files import SkipReason
from edge_client.data.prepare import prepare
from edge_client.data.tokens import TOO_LONG
from nightshift.packages.package import ModelPackage
from tests.support.stories import commands


def test_sources_become_examples_with_a_part_held_out(stories: ModelPackage, tmp_path: Path) -> None:
    source = commands(tmp_path / "rows", rows=300)
    with source.path.open("a") as file:
        file.write("broken\n")
    data = prepare(stories, [source], max_tokens=128)
    assert len(data.train) + len(data.held_out) == 300
    assert 10 <= len(data.held_out) <= 55  # Binomial(300, 0.1) within five standard deviations
    assert data.skipped == {SkipReason.NOT_JSON.value: 1}
    trained = {example.tokens.tobytes() for example in data.train}
    assert not trained & {example.tokens.tobytes() for example in data.held_out}


def test_limits_hold_over_all_sources(stories: ModelPackage, tmp_path: Path) -> None:
    first = commands(tmp_path / "first", rows=30)
    second = commands(tmp_path / "second", rows=30, first=30)
    data = prepare(stories, [first, second], max_tokens=128, max_examples=40, held_out_fraction=0)
    assert (len(data.train), len(data.held_out)) == (40, 0)
    short = prepare(stories, [replace(first, root=tmp_path)], max_tokens=8)
    assert short.skipped[TOO_LONG] > 0
