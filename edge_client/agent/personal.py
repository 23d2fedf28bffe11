"""A personal adapter: trained here, for this device alone, and never sent."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_client.adapters_in_use import PERSONAL_TASK, LoadedAdapter, adapter_file
from edge_client.agent import local_training
from edge_client.configuration import TrainingLimits
from edge_client.home import Home
from edge_client.store import Store
from edge_client.store.adapters import StoredAdapter
from nightshift.host.clock import now_unix_s
from nightshift.host.files import write_atomic

if TYPE_CHECKING:
    from nightshift.packages.package import ModelPackage
    from nightshift.protocol.adapters import AdapterLayout

RANK = 8
SCALE = 2.0
"""alpha / rank."""
MAX_TOKENS = 256
BATCH_SIZE = 16


@dataclass(frozen=True, slots=True)
class PersonalRun:
    """What a personal training run came to; losses in nats per answer token.

    Attributes:
        adapter: the result, in use now as the personal one.
        examples: trained on.
        held_out: kept out, and measured on.
        skipped: reason -> rows that were not used.
        loss_before: on the held-out part.
        loss_after: the same, after training.
        losses: of every step, on what it was trained on.
        allocator: what the training process ran on.
    """

    adapter: StoredAdapter
    examples: int
    held_out: int
    skipped: Mapping[str, int]
    loss_before: float
    loss_after: float
    losses: tuple[float, ...]
    allocator: str


def train_personal(
    home: Home,
    store: Store,
    package: ModelPackage,
    limits: TrainingLimits,
    *,
    start: LoadedAdapter | None,
    steps: int,
    learning_rate: float,
    on_step: local_training.OnStep,
    notes: list[str],
) -> PersonalRun:
    """Train both matrices of an adapter on this device's text and put it in use as the personal one.

    Args:
        home: the device's directories.
        store: names the data files; takes the result.
        package: the base model, verified.
        limits: of the owner.
        start: adapter to start from; None starts afresh.
        steps: optimiser steps.
        learning_rate: peak rate of AdamW.
        on_step: told how far it is.
        notes: filled with what a person may want to know.

    Raises:
        DeclinedError: no data, too little of it, or nothing usable came out; or this machine does not train.
        IncompatibleError: the model is for inference only.
        ResourceError: not enough memory or disk.
    """
    from edge_client.engines.sessions import layout_for
    from edge_client.training.settings import TrainingSettings
    from nightshift.protocol.adapters import Side, TrainedSlots, initialise
    from nightshift.protocol.adapters.formats import to_safetensors

    local_training.require_enabled(limits)
    package.manifest.require_training()
    if start is None:
        rank = min(RANK, limits.rank or RANK)
        layout = layout_for(package.manifest, rank=rank, alpha=SCALE * rank)
        tensors = initialise(layout, os.urandom(32))
    else:
        layout, tensors = start.layout, dict(start.tensors)
    slots = TrainedSlots(layout, Side.BOTH, min(layout.rank, limits.rank or layout.rank))
    max_tokens = local_training.longest_example(limits, MAX_TOKENS)
    directory = home.training / "personal"
    job = local_training.Job(
        package=package,
        slots=slots,
        adapter=tensors,
        settings=TrainingSettings(
            steps=steps,
            batch_size=BATCH_SIZE,
            micro_batch_size=local_training.micro_batch_size(limits, batch_size=BATCH_SIZE, max_tokens=max_tokens),
            learning_rate=learning_rate,
            max_tokens=max_tokens,
        ),
        sources=local_training.usable_sources(store.records.sources(), notes),
        directory=directory,
        time_limit_s=float(limits.time_ceiling_s),
    )
    result = local_training.train(job, limits, on_step=on_step)
    stored = _keep(home, store, package, layout, to_safetensors(result.outcome.adapter, layout))
    shutil.rmtree(directory, ignore_errors=True)
    notes.extend(local_training.allocator_notes(result, limits))
    held_out = result.held_out_losses
    return PersonalRun(
        adapter=stored,
        examples=result.examples,
        held_out=result.held_out,
        skipped=result.skipped,
        loss_before=held_out["parent"].mean,
        loss_after=held_out["trained"].mean,
        losses=result.outcome.losses,
        allocator=result.allocator.value,
    )


def _keep(home: Home, store: Store, package: ModelPackage, layout: AdapterLayout, data: bytes) -> StoredAdapter:
    from nightshift.protocol.plan import layout_to_proto

    now = now_unix_s()
    stored = StoredAdapter(
        name=f"{PERSONAL_TASK}/{now}",
        task=PERSONAL_TASK,
        sha256=hashlib.sha256(data).digest(),
        base_model=package.package_id,
        layout=layout_to_proto(layout).SerializeToString(deterministic=True),
        release_id=None,
        adopted_at_unix_s=now,
    )
    write_atomic(adapter_file(home, stored.sha256), data)
    store.adapters.adopt(stored)
    return stored
