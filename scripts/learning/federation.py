"""A federation without its network: what devices train, encode and add up over the nights.

Training is the device's own (`edge_client.training`), clipping, weights and the stochastic
encoding are the plan's; the integers are added in the clear, which gives exactly what
secure aggregation opens. So figures of learning from here hold for the real system.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from coordinator.aggregation.fedavg import mean_delta
from coordinator.aggregation.server_optimisers import ServerMemory, ServerOptimiser
from edge_client.agent.contribution import clipped, contribution_weight
from edge_client.data.tokens import TokenExample
from edge_client.engines.sessions import RuntimeSettings
from edge_client.training.settings import TrainingSettings
from edge_client.training.trainer import train
from nightshift.packages.package import ModelPackage
from nightshift.protocol.adapters import AdapterLayout, Side, Tensors, initialise
from nightshift.protocol.adapters.layout import Method
from nightshift.protocol.secagg.encoding import Encoding, VectorLayout
from nightshift.protocol.secagg.parameters import CohortParameters
from nightshift.protocol.secagg.rotation import rotated_clip, rotation_seed
from nightshift.protocol.upload import upload_size_bytes

EXAMPLES_FOR_FULL_WEIGHT = 1024
CLIP_NORM = 10.0
VALUE_BITS = 16
COMMITTEE = 10
MICRO_BATCH = 8


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a federation learns.

    Attributes:
        method: which sides devices train, round by round.
        nights: rounds.
        steps: optimiser steps of one device in one night.
        batch_size: examples a step.
        learning_rate: of the devices' AdamW.
        proximal: FedProx coefficient; 0 means none.
        server: what is made of the mean delta.
    """

    method: Method
    nights: int
    steps: int
    batch_size: int
    learning_rate: float
    proximal: float = 0.0
    server: ServerOptimiser = field(default_factory=ServerOptimiser)


@dataclass(frozen=True, slots=True)
class Night:
    """What a night came to.

    Attributes:
        adapter: the release after it.
        upload_bytes: what one device sent, shares and signature included.
    """

    adapter: dict[str, np.ndarray[tuple[int, int], np.dtype[np.float32]]]
    upload_bytes: int


def start(layout: AdapterLayout, seed: int) -> Tensors:
    """Release 0 of an experiment."""
    return initialise(layout, hashlib.sha256(b"bench learning %d" % seed).digest())


def local(
    package: ModelPackage,
    adapter: Tensors,
    side: Side,
    examples: Sequence[TokenExample],
    recipe: Recipe,
    *,
    layout: AdapterLayout,
    seed: int,
    steps: int,
    max_tokens: int,
) -> Tensors:
    """Train an adapter on some examples, as a device would."""
    settings = TrainingSettings(
        steps=steps,
        batch_size=recipe.batch_size,
        micro_batch_size=MICRO_BATCH,
        learning_rate=recipe.learning_rate,
        proximal=recipe.proximal,
        max_tokens=max_tokens,
        seed=seed,
        checkpoint_every=0,
    )
    return train(package, adapter, layout, side, examples, settings, runtime=RuntimeSettings(threads=1)).adapter


def federate(
    package: ModelPackage,
    layout: AdapterLayout,
    training: Sequence[Sequence[TokenExample]],
    recipe: Recipe,
    *,
    seed: int,
    max_tokens: int,
) -> Iterator[Night]:
    """Play the nights of a federation.

    Args:
        package: the base model.
        layout: of the adapter.
        training: each device's examples.
        recipe: how they learn.
        seed: of release 0 and of the order of examples.
        max_tokens: longest example.
    """
    release = start(layout, seed)
    memories: dict[Side, ServerMemory | None] = {}
    for night in range(recipe.nights):
        side = recipe.method.side_for_round(night)
        parameters, vector = _vector(layout, side, len(training), night)
        total = np.zeros(vector.length, dtype=np.uint64)
        for device, examples in enumerate(training):
            trained = local(
                package,
                release,
                side,
                examples,
                recipe,
                layout=layout,
                seed=1000 * seed + 100 * night + device,
                steps=recipe.steps,
                max_tokens=max_tokens,
            )
            delta = clipped(layout.delta(trained, release, side), CLIP_NORM)
            total += vector.encode(delta, contribution_weight(len(examples), EXAMPLES_FOR_FULL_WEIGHT), {}, os.urandom)
        mean = mean_delta(vector.decode_sum(total, len(training)))
        step, memories[side] = recipe.server.step(mean, memories.get(side))
        release = layout.with_delta(release, step, side)
        yield Night(release, upload_size_bytes(parameters, vector.length))


def _vector(layout: AdapterLayout, side: Side, devices: int, night: int) -> tuple[CohortParameters, VectorLayout]:
    parameters = CohortParameters.derive(n_max=devices, value_bits=VALUE_BITS, committee_size=min(COMMITTEE, devices))
    length = layout.vector_length(side)
    encoding = Encoding(clip=rotated_clip(CLIP_NORM, length), value_bits=VALUE_BITS, n_max=devices)
    vector = VectorLayout(delta_length=length, metrics=(), encoding=encoding)
    return parameters, replace(vector, rotation=rotation_seed(hashlib.sha256(b"night %d" % night).digest()))
