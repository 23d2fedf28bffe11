"""A personal adapter on a machine of limited strength: its rank, and what it changes of an adapter of others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_client.adapters_in_use import LoadedAdapter, adapter_file
from edge_client.agent import local_training
from edge_client.agent.personal import PersonalRun, train_personal
from edge_client.configuration import TrainingLimits
from edge_client.engines.sessions import layout_for
from edge_client.home import Home
from edge_client.store import Store, open_store
from edge_client.store.adapters import StoredAdapter
from nightshift.host.files import make_private_directory
from nightshift.packages.package import ModelPackage
from nightshift.protocol.adapters import Side, Tensors, initialise
from nightshift.protocol.adapters.formats import from_safetensors, layout_of
from tests.support.stories import commands


@pytest.fixture
def home(tmp_path: Path) -> Home:
    found = Home(tmp_path / "config.toml", tmp_path / "state", tmp_path / "cache")
    found.prepare()
    make_private_directory(found.training)
    return found


@pytest.fixture
def store(home: Home, tmp_path: Path) -> Iterator[Store]:
    source = commands(tmp_path / "rows", rows=60)
    with open_store(home) as opened:
        opened.records.add_source(str(source.path), source.format.value, {}, 0)
        yield opened


def train(
    home: Home, store: Store, package: ModelPackage, limits: TrainingLimits, start: LoadedAdapter | None = None
) -> PersonalRun:
    return train_personal(
        home,
        store,
        package,
        limits,
        start=start,
        steps=2,
        learning_rate=5e-3,
        on_step=local_training.tell_nobody,
        notes=[],
    )


@pytest.mark.parametrize(("limit", "rank"), [(0, 8), (4, 4), (16, 8)])
def test_a_new_one_has_no_more_slots_than_the_machine_should_train(
    home: Home, store: Store, stories: ModelPackage, limit: int, rank: int
) -> None:
    run = train(home, store, stories, TrainingLimits(threads=1, rank=limit, max_tokens=64))
    layout = layout_of(adapter_file(home, run.adapter.sha256).read_bytes())
    assert (layout.rank, layout.scale) == (rank, 2.0)


def test_of_an_adapter_of_more_slots_the_first_are_trained(home: Home, store: Store, stories: ModelPackage) -> None:
    layout = layout_for(stories.manifest, rank=8, alpha=16)
    noise = np.random.default_rng(0).normal(scale=0.05, size=layout.vector_length(Side.B)).astype(np.float32)
    shared: Tensors = layout.with_delta(initialise(layout, bytes(32)), noise, Side.B)
    stored = StoredAdapter("task/1", "task", bytes(32), stories.package_id, b"", None, 0)
    run = train(
        home,
        store,
        stories,
        TrainingLimits(threads=1, rank=3, max_tokens=64),
        LoadedAdapter(stored, layout, shared),
    )
    after = from_safetensors(adapter_file(home, run.adapter.sha256).read_bytes(), layout)
    for name, tensor in after.items():
        first, rest = (tensor[:3], tensor[3:]) if name.endswith("lora_a") else (tensor[:, :3], tensor[:, 3:])
        before = shared[name]
        was, stays = (before[:3], before[3:]) if name.endswith("lora_a") else (before[:, :3], before[:, 3:])
        assert (first != was).any()
        np.testing.assert_array_equal(rest, stays)
