from __future__ import annotations

import math
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_client.data.batches import BatchOrder
from edge_client.data.prepare import PreparedData, prepare
from edge_client.data.tokens import TokenExample
from edge_client.engines.onnx_engine import OnnxEngine
from edge_client.engines.sessions import RuntimeSettings, layout_for
from edge_client.training.adamw import AdamW, Schedule, clip_to_norm
from edge_client.training.errors import DivergedError, NoExamplesError, NothingLearntError, TrainingError
from edge_client.training.evaluate import answer_loss
from edge_client.training.interrupt import Interrupt
from edge_client.training.settings import TrainingSettings
from edge_client.training.train_graph import TrainGraph
from edge_client.training.trainer import Progress, TrainingOutcome, train
from nightshift.packages.package import ModelPackage
from nightshift.protocol.adapters import AdapterLayout, FormatError, Side, Tensors, TrainedSlots, initialise
from tests.support.stories import commands

SETTINGS = TrainingSettings(steps=6, batch_size=8, micro_batch_size=8, seed=4)
ONE_THREAD = RuntimeSettings(threads=1)


@pytest.fixture(scope="module")
def data(stories: ModelPackage, tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    source = commands(tmp_path_factory.mktemp("data") / "rows", rows=160)
    return prepare(stories, [source], max_tokens=96)


@pytest.fixture(scope="module")
def layout(stories: ModelPackage) -> AdapterLayout:
    return layout_for(stories.manifest, rank=4, alpha=8)


@pytest.fixture(scope="module")
def parent(layout: AdapterLayout) -> Tensors:
    return initialise(layout, bytes(32))


@pytest.fixture(scope="module")
def moved_parent(layout: AdapterLayout, parent: Tensors) -> Tensors:
    """An adapter whose B is not zero, so that A has a gradient too."""
    noise = np.random.default_rng(0).normal(scale=0.05, size=layout.vector_length(Side.B))
    return layout.with_delta(parent, noise.astype(np.float32), Side.B)


def same(first: Tensors, second: Tensors) -> bool:
    return all(np.array_equal(first[name], second[name]) for name in first)


def test_it_learns_what_it_can_be_measured_on(
    stories: ModelPackage, layout: AdapterLayout, parent: Tensors, data: PreparedData
) -> None:
    steps: list[Progress] = []
    settings = replace(SETTINGS, steps=25)
    outcome = train(
        stories,
        parent,
        TrainedSlots.whole(layout, Side.B),
        data.train,
        settings,
        on_step=steps.append,
        runtime=ONE_THREAD,
    )
    with OnnxEngine(stories, ONE_THREAD) as engine:
        engine.set_adapter(parent, layout)
        before = answer_loss(engine, data.held_out).mean
        engine.set_adapter(outcome.adapter, layout)
        after = answer_loss(engine, data.held_out).mean
    assert after < 0.5 * before
    assert (outcome.steps_done, outcome.stopped) == (25, None)
    assert outcome.last_loss < steps[0].loss
    assert outcome.mean_loss == pytest.approx(np.mean([step.loss for step in steps]))
    assert [step.step for step in steps] == list(range(1, 26))
    assert outcome.tokens == steps[-1].tokens > 25 * 8 * 5


@pytest.mark.parametrize("side", list(Side))
def test_only_the_side_that_is_trained_moves(
    stories: ModelPackage, layout: AdapterLayout, moved_parent: Tensors, data: PreparedData, side: Side
) -> None:
    copies = {name: tensor.copy() for name, tensor in moved_parent.items()}
    outcome = train(
        stories,
        moved_parent,
        TrainedSlots.whole(layout, side),
        data.train,
        replace(SETTINGS, steps=2),
        runtime=ONE_THREAD,
    )
    moved = {name for name in copies if not np.array_equal(outcome.adapter[name], copies[name])}
    assert moved == set(layout.trained_names(side))
    assert same(moved_parent, copies)


def test_micro_batches_add_up_to_the_batch(
    stories: ModelPackage, layout: AdapterLayout, moved_parent: Tensors, data: PreparedData
) -> None:
    graph = TrainGraph(
        stories,
        slots=TrainedSlots.whole(layout, Side.BOTH),
        adapter=moved_parent,
        runtime=ONE_THREAD,
        interrupt=Interrupt(),
    )
    whole = graph.gradient(data.train[:9], 9)
    parts = graph.gradient(data.train[:9], 2)
    assert whole is not None
    assert parts is not None
    assert parts[0] == pytest.approx(whole[0], rel=1e-5)
    np.testing.assert_allclose(parts[1], whole[1], rtol=1e-3, atol=1e-5 * float(np.abs(whole[1]).max()))


def test_the_gradient_is_that_of_the_evaluated_loss(
    stories: ModelPackage, layout: AdapterLayout, moved_parent: Tensors, data: PreparedData
) -> None:
    """Central differences of the evaluate graph, along a random direction and along the gradient."""
    examples = data.train[:6]
    graph = TrainGraph(
        stories,
        slots=TrainedSlots.whole(layout, Side.BOTH),
        adapter=moved_parent,
        runtime=ONE_THREAD,
        interrupt=Interrupt(),
    )
    result = graph.gradient(examples, 6)
    assert result is not None
    loss, gradient = result
    with OnnxEngine(stories, ONE_THREAD) as engine:

        def loss_at(vector: np.ndarray) -> float:
            engine.set_adapter(layout.with_delta(moved_parent, vector.astype(np.float32), Side.BOTH), layout)
            return answer_loss(engine, examples).mean

        assert loss_at(np.zeros(len(gradient))) == pytest.approx(loss, rel=1e-5)
        random = np.random.default_rng(1).normal(size=len(gradient))
        for direction in (random / np.linalg.norm(random), gradient / np.linalg.norm(gradient)):
            size = 2e-3
            slope = (loss_at(size * direction) - loss_at(-size * direction)) / (2 * size)
            assert slope == pytest.approx(float(direction @ gradient), rel=0.03, abs=2e-3)


def test_a_run_is_plain_adamw_on_these_gradients(
    stories: ModelPackage, layout: AdapterLayout, parent: Tensors, data: PreparedData
) -> None:
    settings = replace(
        SETTINGS, steps=3, schedule=Schedule.COSINE, weight_decay=0.1, clip_norm=0.5, proximal=0.3, learning_rate=0.02
    )
    outcome = train(stories, parent, TrainedSlots.whole(layout, Side.B), data.train, settings, runtime=ONE_THREAD)
    start = layout.to_vector(parent, Side.B)
    vector, optimiser = start.copy(), AdamW(len(start), weight_decay=0.1)
    order = BatchOrder([example.length for example in data.train], 8, seed=4)
    for step in range(3):
        live = {**parent, **layout.from_vector(vector, Side.B)}
        graph = TrainGraph(
            stories, slots=TrainedSlots.whole(layout, Side.B), adapter=live, runtime=ONE_THREAD, interrupt=Interrupt()
        )
        result = graph.gradient([data.train[index] for index in order.indices(step)], 8)
        assert result is not None
        gradient = result[1] + np.float32(0.3) * (vector - start)
        clip_to_norm(gradient, 0.5)
        optimiser.update(vector, gradient, 0.02 * 0.5 * (1 + math.cos(math.pi * step / 3)))
    np.testing.assert_array_equal(layout.to_vector(outcome.adapter, Side.B), vector)


def test_recomputation_gives_the_same_course(
    stories: ModelPackage, layout: AdapterLayout, parent: Tensors, data: PreparedData
) -> None:
    plain = train(stories, parent, TrainedSlots.whole(layout, Side.B), data.train, SETTINGS, runtime=ONE_THREAD)
    recomputed = train(
        stories,
        parent,
        TrainedSlots.whole(layout, Side.B),
        data.train,
        SETTINGS,
        runtime=RuntimeSettings(threads=1, recompute=True),
    )
    assert recomputed.mean_loss == pytest.approx(plain.mean_loss, rel=1e-4)


def interrupted(
    stories: ModelPackage,
    layout: AdapterLayout,
    parent: Tensors,
    examples: list[TokenExample],
    directory: Path,
    *,
    after: int,
    settings: TrainingSettings = SETTINGS,
) -> TrainingOutcome:
    """A run that is told to stop once `after` steps are done."""
    done = 0

    def count(progress: Progress) -> None:
        nonlocal done
        done = progress.step

    return train(
        stories,
        parent,
        TrainedSlots.whole(layout, Side.B),
        examples,
        settings,
        checkpoint_directory=directory,
        should_stop=lambda: "enough" if done >= after else None,
        on_step=count,
        runtime=ONE_THREAD,
    )


def test_a_resumed_run_ends_with_the_same_bits(
    stories: ModelPackage, layout: AdapterLayout, parent: Tensors, data: PreparedData, tmp_path: Path
) -> None:
    straight = train(stories, parent, TrainedSlots.whole(layout, Side.B), data.train, SETTINGS, runtime=ONE_THREAD)
    stopped = interrupted(stories, layout, parent, data.train, tmp_path, after=2)
    assert (stopped.steps_done, stopped.stopped) == (2, "enough")
    again = interrupted(stories, layout, parent, data.train, tmp_path, after=5)
    assert again.steps_done == 5
    resumed = train(
        stories,
        parent,
        TrainedSlots.whole(layout, Side.B),
        data.train,
        SETTINGS,
        checkpoint_directory=tmp_path,
        runtime=ONE_THREAD,
    )
    assert resumed.steps_done == 6
    assert same(resumed.adapter, straight.adapter)
    assert (resumed.mean_loss, resumed.last_loss, resumed.tokens) == (
        straight.mean_loss,
        straight.last_loss,
        straight.tokens,
    )


def test_a_run_that_dies_continues_from_its_last_checkpoint(
    stories: ModelPackage, layout: AdapterLayout, parent: Tensors, data: PreparedData, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, checkpoint_every=2)

    def die(progress: Progress) -> None:
        if progress.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(
            stories, parent, TrainedSlots.whole(layout, Side.B), data.train, settings,
            checkpoint_directory=tmp_path, on_step=die, runtime=ONE_THREAD,
        )  # fmt: skip
    steps: list[Progress] = []
    resumed = train(
        stories, parent, TrainedSlots.whole(layout, Side.B), data.train, settings,
        checkpoint_directory=tmp_path, on_step=steps.append, runtime=ONE_THREAD,
    )  # fmt: skip
    assert [step.step for step in steps] == [5, 6]
    straight = train(stories, parent, TrainedSlots.whole(layout, Side.B), data.train, settings, runtime=ONE_THREAD)
    assert same(resumed.adapter, straight.adapter)


@pytest.mark.parametrize("change", ["settings", "data", "parent"])
def test_the_checkpoint_of_another_run_is_not_continued(
    stories: ModelPackage,
    layout: AdapterLayout,
    parent: Tensors,
    moved_parent: Tensors,
    data: PreparedData,
    tmp_path: Path,
    change: str,
) -> None:
    interrupted(stories, layout, parent, data.train, tmp_path, after=2)
    settings = replace(SETTINGS, learning_rate=1e-3) if change == "settings" else SETTINGS
    examples = data.train[1:] if change == "data" else data.train
    start = moved_parent if change == "parent" else parent
    outcome = interrupted(stories, layout, start, examples, tmp_path, after=1, settings=settings)
    assert outcome.steps_done == 1


def test_a_running_step_can_be_interrupted(
    stories: ModelPackage, layout: AdapterLayout, parent: Tensors, data: PreparedData, tmp_path: Path
) -> None:
    """Steps of 1,500 examples at once take seconds each, 50 of them minutes; the request ends the one that runs."""
    many = [data.train[index % len(data.train)] for index in range(1500)]
    settings = TrainingSettings(steps=50, batch_size=1500, micro_batch_size=1500)
    interrupt = Interrupt()
    started = time.monotonic()
    timer = threading.Timer(1.0, interrupt.request, ["battery low"])
    timer.start()
    outcome = train(
        stories, parent, TrainedSlots.whole(layout, Side.B), many, settings,
        checkpoint_directory=tmp_path, runtime=ONE_THREAD, interrupt=interrupt,
    )  # fmt: skip
    timer.join()
    assert outcome.stopped == "battery low"
    assert outcome.steps_done < 50
    assert time.monotonic() - started < 60.0
    assert (tmp_path / "checkpoint").exists()


def test_a_loss_that_is_not_finite_ends_the_run_with_advice(
    stories: ModelPackage, layout: AdapterLayout, moved_parent: Tensors, data: PreparedData
) -> None:
    settings = replace(SETTINGS, learning_rate=1e30, clip_norm=0.0, steps=10)
    with (
        pytest.raises(DivergedError, match=r"step \d+ of 10: loss .* lower the learning rate \(1e\+30\)"),
        np.errstate(all="ignore"),
    ):
        train(stories, moved_parent, TrainedSlots.whole(layout, Side.BOTH), data.train, settings, runtime=ONE_THREAD)


def test_a_run_that_cannot_learn_says_so(
    stories: ModelPackage, layout: AdapterLayout, parent: Tensors, data: PreparedData
) -> None:
    """With B at zero the gradient of A vanishes: the parent does not suit the side."""
    with pytest.raises(NothingLearntError, match="side 'a'"):
        train(stories, parent, TrainedSlots.whole(layout, Side.A), data.train, SETTINGS, runtime=ONE_THREAD)
    with pytest.raises(NoExamplesError, match="no examples"):
        train(stories, parent, TrainedSlots.whole(layout, Side.B), [], SETTINGS)


def test_an_adapter_that_does_not_fit_is_refused(
    stories: ModelPackage, layout: AdapterLayout, parent: Tensors, data: PreparedData
) -> None:
    with pytest.raises(FormatError, match="missing"):
        train(stories, {}, TrainedSlots.whole(layout, Side.B), data.train, SETTINGS)


@pytest.mark.parametrize(
    "fields",
    [{"steps": 0}, {"batch_size": 0}, {"micro_batch_size": 0}, {"learning_rate": math.nan}, {"learning_rate": -1.0},
     {"weight_decay": math.inf}, {"clip_norm": -1.0}, {"max_tokens": 1}, {"seed": -1}, {"checkpoint_every": -1}],
)  # fmt: skip
def test_impossible_settings_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(TrainingError, match=next(iter(fields))):
        TrainingSettings(**{"steps": 1, **fields})  # type: ignore[arg-type]  # impossible on purpose
