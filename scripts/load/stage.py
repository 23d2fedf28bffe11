"""A coordinator with a model and a task whose vectors have about a wanted length, ready for devices."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nightshift.host.tokens import JoinToken
from nightshift.packages.random_model import SMALL, write_random_model
from nightshift.protocol.adapters.layout import AdapterLayout, Side
from scripts.load.flood import FLOODERS
from scripts.night.fleet import Coordinator

SHAPE = dataclasses.replace(SMALL, layers=8, hidden=512, ffn=1024, heads=8, kv_heads=4, head_dim=64)
"""Of the model that nobody trains: one rank of its adapter is 65,536 values."""
ALIAS, TASK = "load", "load"
UNLIMITED = {
    "NIGHTSHIFT_COORDINATOR_LIMITS_CALLS_PER_MINUTE": "1000000",
    "NIGHTSHIFT_COORDINATOR_LIMITS_CALLS_BURST": "1000000",
    "NIGHTSHIFT_COORDINATOR_LIMITS_JOINS_PER_MINUTE": "1000000",
    "NIGHTSHIFT_COORDINATOR_LIMITS_JOINS_BURST": "1000000",
}
"""One address plays all devices, and each of them comes far more often than it would at night."""


def layout(rank: int) -> AdapterLayout:
    """The adapter's layout at a rank."""
    return AdapterLayout.for_llama(
        layers=SHAPE.layers,
        hidden=SHAPE.hidden,
        ffn=SHAPE.ffn,
        heads=SHAPE.heads,
        kv_heads=SHAPE.kv_heads,
        head_dim=SHAPE.head_dim,
        rank=rank,
        alpha=16.0,
    )


def rank_for(values: int) -> int:
    """The rank whose vector, both sides of the adapter, has about so many values."""
    return max(1, round(values / layout(1).vector_length(Side.BOTH)))


def task_toml(*, rank: int, devices: int, cohort: int) -> str:
    """A task whose cohorts close when every device has contributed."""
    return f"""name = "{TASK}"
model = "{ALIAS}"
[adapter]
rank = {rank}
alpha = 16.0
method = "fedavg"
[training]
steps = 1
[encoding]
clip_norm = 10.0
[cohort]
n_min = {cohort}
n_max = {cohort}
pool_min = {cohort}
[rounds]
open = "operator"
cohorts = {devices // cohort}
upload_window_s = 7200
answer_window_s = 7200
"""


@contextmanager
def serving(
    directory: Path, *, rank: int, devices: int, cohort: int, database: str = ""
) -> Iterator[tuple[Coordinator, JoinToken]]:
    """A coordinator process with a task, and a token for all devices and a flood, for the length of a block.

    Args:
        directory: of its files.
        rank: of the task's adapter.
        devices: that come.
        cohort: how many of them make one.
        database: URL of an empty one; SQLite in the directory if absent.
    """
    model = directory / "model.gguf"
    write_random_model(model, SHAPE, seed=1)
    coordinator = Coordinator.init(
        directory / "coordinator", UNLIMITED, *(["--database", database] if database else [])
    )
    coordinator.serve()
    try:
        coordinator.command("model", "add", str(model), "--quantisation", "Q8_0", "--alias", ALIAS)
        task = directory / "task.toml"
        task.write_text(task_toml(rank=rank, devices=devices, cohort=cohort), "utf-8")
        coordinator.command("task", "create", "-f", str(task))
        made = coordinator.command("token", "create", "--uses", str(devices + FLOODERS), "--json").stdout
        # What setting up took is not what the nights take: a fresh process is measured.
        coordinator.stop()
        coordinator.serve()
        yield coordinator, JoinToken.decode(json.loads(made)["token"])
    finally:
        coordinator.stop()
