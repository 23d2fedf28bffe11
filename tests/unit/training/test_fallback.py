from __future__ import annotations

from pathlib import Path

import pytest

from edge_client.agent.local_training import Job, train
from edge_client.configuration import SHORTEST_TOKENS, TrainingLimits
from edge_client.data.sources import DataFormat, DataSource
from edge_client.engines.sessions import RuntimeSettings, layout_for
from edge_client.training.exchange import ChildRequest, read_request
from edge_client.training.fallback import describe, smaller
from edge_client.training.settings import TrainingSettings
from nightshift.packages.package import ModelPackage
from nightshift.protocol.adapters import Side, TrainedSlots, initialise
from nightshift.protocol.errors import ResourceError


def request(**settings: int) -> ChildRequest:
    return ChildRequest(
        Path("package"), b"adapter", Side.B, TrainingSettings(steps=3, **settings), (), runtime=RuntimeSettings(2)
    )


def test_first_time_then_the_micro_batch_then_the_length_is_given_up() -> None:
    sizes, now = [], request(micro_batch_size=5, max_tokens=100)
    while (after := smaller(now)) is not None:
        sizes.append((after.runtime.recompute, after.settings.micro_batch_size, after.settings.max_tokens))
        now = after
    assert sizes == [(True, 5, 100), (True, 2, 100), (True, 1, 100), (True, 1, 50), (True, 1, 32)]
    assert describe(now) == f"micro-batches of 1, {SHORTEST_TOKENS} tokens, activations computed twice"


def test_nothing_else_of_the_request_changes() -> None:
    first = request(micro_batch_size=4, max_tokens=64, seed=7)
    second = smaller(first)
    assert second is not None
    third = smaller(second)
    assert third is not None
    assert (third.runtime.threads, third.settings.seed, third.settings.batch_size) == (2, 7, 16)
    assert (third.side, third.adapter) == (first.side, first.adapter)


def test_examples_that_are_short_already_are_not_made_longer() -> None:
    least = smaller(request(micro_batch_size=1, max_tokens=20))
    assert least is not None
    assert smaller(least) is None


def job(stories: ModelPackage, directory: Path) -> Job:
    """Long examples in one large micro-batch: some 500 MB with activations kept."""
    data = directory / "text"
    data.write_text("\n\n".join(f"{number} " + "once upon a time there was a little fox " * 30 for number in range(80)))
    layout = layout_for(stories.manifest, rank=2, alpha=4)
    return Job(
        package=stories,
        slots=TrainedSlots.whole(layout, Side.B),
        adapter=initialise(layout, bytes(32)),
        settings=TrainingSettings(steps=1, batch_size=64, micro_batch_size=64, max_tokens=256),
        sources=(DataSource(data, DataFormat.TEXT),),
        directory=directory / "run",
        time_limit_s=0.0,
    )


def test_a_step_that_does_not_fit_is_made_to_fit(stories: ModelPackage, tmp_path: Path) -> None:
    result = train(job(stories, tmp_path), TrainingLimits(threads=1, memory_ceiling_mb=250))
    assert result.outcome.steps_done == 1
    # It did not fit at first: what was asked of the last process is not what was asked of the first.
    assert read_request(tmp_path / "run").runtime.recompute


def test_what_never_fits_ends_with_the_reason(stories: ModelPackage, tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"ran out of memory.*micro-batches of 1, 32 tokens.*the least there is"):
        train(job(stories, tmp_path), TrainingLimits(threads=1, memory_ceiling_mb=30))
