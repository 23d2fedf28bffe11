"""Training the first slots of an adapter: the whole adapter's forward pass, a part's gradient and update."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_client.data.batches import BatchOrder
from edge_client.data.prepare import PreparedData, prepare
from edge_client.engines.onnx_engine import OnnxEngine
from edge_client.engines.sessions import RuntimeSettings, layout_for
from edge_client.training.adamw import AdamW, clip_to_norm
from edge_client.training.evaluate import answer_loss
from edge_client.training.exchange import ChildRequest
from edge_client.training.interrupt import Interrupt
from edge_client.training.settings import TrainingSettings
from edge_client.training.supervise import train_in_child
from edge_client.training.train_graph import TrainGraph
from edge_client.training.trainer import train
from nightshift.packages.package import ModelPackage
from nightshift.protocol.adapters import AdapterLayout, Side, Tensors, TrainedSlots, initialise
from nightshift.protocol.adapters.formats import to_safetensors
from tests.support.stories import commands

SETTINGS = TrainingSettings(
    steps=4, batch_size=8, micro_batch_size=8, seed=4, clip_norm=0.5, weight_decay=0.1, proximal=0.3
)
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
    """An adapter of which every slot does something, those that are not trained too."""
    noise = np.random.default_rng(0).normal(scale=0.05, size=layout.vector_length(Side.B))
    return layout.with_delta(initialise(layout, bytes(32)), noise.astype(np.float32), Side.B)


def gradient_of(
    stories: ModelPackage, slots: TrainedSlots, adapter: Tensors, data: PreparedData
) -> tuple[float, np.ndarray]:
    graph = TrainGraph(stories, slots=slots, adapter=adapter, runtime=ONE_THREAD, interrupt=Interrupt())
    result = graph.gradient(data.train[:6], 6)
    assert result is not None
    return result


@pytest.mark.parametrize("side", list(Side))
def test_only_the_trained_slots_move_and_all_of_them_do(
    stories: ModelPackage, layout: AdapterLayout, parent: Tensors, data: PreparedData, side: Side
) -> None:
    slots = TrainedSlots(layout, side, 3)
    outcome = train(stories, parent, slots, data.train, SETTINGS, runtime=ONE_THREAD)
    trained, before = slots.of(outcome.adapter), slots.of(parent)
    for name in layout.shapes():
        if name not in trained:
            np.testing.assert_array_equal(outcome.adapter[name], parent[name])
            continue
        assert (trained[name] != before[name]).any(axis=1 if name.endswith("lora_a") else 0).all()
        last = (3,) if name.endswith("lora_a") else (slice(None), 3)
        np.testing.assert_array_equal(outcome.adapter[name][last], parent[name][last])


@pytest.mark.parametrize("side", list(Side))
def test_loss_and_gradient_are_those_of_the_whole_adapter(
    stories: ModelPackage, layout: AdapterLayout, parent: Tensors, data: PreparedData, side: Side
) -> None:
    """So a device of any rank learns against the same function, with the factor alpha / R of the whole."""
    whole_loss, whole = gradient_of(stories, TrainedSlots.whole(layout, side), parent, data)
    slots = TrainedSlots(layout, side, 2)
    loss, gradient = gradient_of(stories, slots, parent, data)
    assert loss == whole_loss
    np.testing.assert_array_equal(gradient, slots.to_vector(layout.from_vector(whole, side)))


def test_the_factor_on_a_slot_is_that_of_the_whole_adapter(
    stories: ModelPackage, layout: AdapterLayout, parent: Tensors, data: PreparedData
) -> None:
    """Central differences of the evaluated loss along the narrow gradient: alpha / r' would be twice as steep."""
    slots = TrainedSlots(layout, Side.B, 2)
    _, gradient = gradient_of(stories, slots, parent, data)
    direction = (gradient / np.linalg.norm(gradient)).astype(np.float32)
    with OnnxEngine(stories, ONE_THREAD) as engine:

        def loss_at(size: float) -> float:
            moved = layout.with_delta(parent, slots.spread(np.float32(size) * direction), Side.B)
            engine.set_adapter(moved, layout)
            return answer_loss(engine, data.train[:6]).mean

        slope = (loss_at(2e-3) - loss_at(-2e-3)) / 4e-3
    assert slope == pytest.approx(float(np.linalg.norm(gradient)), rel=0.03)


def test_a_run_is_adamw_over_the_narrow_vector(
    stories: ModelPackage, layout: AdapterLayout, parent: Tensors, data: PreparedData
) -> None:
    """Clipping, decay and the proximal term see the trained slots only."""
    slots = TrainedSlots(layout, Side.BOTH, 2)
    outcome = train(stories, parent, slots, data.train, SETTINGS, runtime=ONE_THREAD)
    start = slots.to_vector(parent)
    vector, optimiser = start.copy(), AdamW(slots.length, weight_decay=0.1)
    order = BatchOrder([example.length for example in data.train], 8, seed=4)
    for step in range(SETTINGS.steps):
        live = layout.with_delta(parent, slots.spread(vector - start), Side.BOTH)
        # Exactly the vector, where adding the difference would round.
        for name, part in slots.of(live).items():
            part[...] = slots.narrow.from_vector(vector, Side.BOTH)[name]
        graph = TrainGraph(stories, slots=slots, adapter=live, runtime=ONE_THREAD, interrupt=Interrupt())
        result = graph.gradient([data.train[index] for index in order.indices(step)], 8)
        assert result is not None
        gradient = result[1] + np.float32(0.3) * (vector - start)
        clip_to_norm(gradient, 0.5)
        optimiser.update(vector, gradient, SETTINGS.learning_rate)
    np.testing.assert_array_equal(slots.to_vector(outcome.adapter), vector)


def stopped_after_two(
    stories: ModelPackage, parent: Tensors, slots: TrainedSlots, data: PreparedData, directory: Path
) -> None:
    """A run that leaves a checkpoint."""
    reasons = iter([None, None, "enough"])
    outcome = train(
        stories,
        parent,
        slots,
        data.train,
        SETTINGS,
        checkpoint_directory=directory,
        should_stop=lambda: next(reasons),
        runtime=ONE_THREAD,
    )
    assert (outcome.steps_done, outcome.stopped) == (2, "enough")


@pytest.mark.parametrize("rank", [2, 3], ids=["the same slots", "one slot more"])
def test_a_stopped_run_goes_on_in_its_slots_and_in_no_others(
    stories: ModelPackage, layout: AdapterLayout, parent: Tensors, data: PreparedData, tmp_path: Path, rank: int
) -> None:
    stopped_after_two(stories, parent, TrainedSlots(layout, Side.B, 2), data, tmp_path)
    slots = TrainedSlots(layout, Side.B, rank)
    steps: list[int] = []
    again = train(
        stories,
        parent,
        slots,
        data.train,
        SETTINGS,
        checkpoint_directory=tmp_path,
        on_step=lambda progress: steps.append(progress.step),
        runtime=ONE_THREAD,
    )
    assert steps == ([3, 4] if rank == 2 else [1, 2, 3, 4])
    straight = train(stories, parent, slots, data.train, SETTINGS, runtime=ONE_THREAD)
    assert again.losses == straight.losses
    for name in layout.shapes():
        np.testing.assert_array_equal(again.adapter[name], straight.adapter[name])


def test_the_training_process_trains_the_same_slots(
    stories: ModelPackage, layout: AdapterLayout, parent: Tensors, tmp_path: Path
) -> None:
    source = commands(tmp_path / "rows", rows=60)
    settings = replace(SETTINGS, steps=2, max_tokens=96)
    request = ChildRequest(
        stories.directory,
        to_safetensors(parent, layout),
        Side.B,
        settings,
        (source,),
        trained_rank=2,
        runtime=ONE_THREAD,
    )
    result = train_in_child(request, tmp_path / "child")
    here = train(
        stories,
        parent,
        TrainedSlots(layout, Side.B, 2),
        prepare(stories, [source], max_tokens=96).train,
        settings,
        runtime=ONE_THREAD,
    )
    for name, tensor in here.adapter.items():
        np.testing.assert_array_equal(result.outcome.adapter[name], tensor)
