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
from numpy.typing import NDArray

from coordinator.aggregation.fedavg import CohortSum, combined, next_adapter
from coordinator.aggregation.server_optimisers import ServerMemory, ServerOptimiser
from edge_client.agent.contribution import clipped, contribution_weight
from edge_client.data.tokens import TokenExample
from edge_client.engines.sessions import RuntimeSettings
from edge_client.training.settings import TrainingSettings
from edge_client.training.trainer import train
from nightshift.packages.package import ModelPackage
from nightshift.protocol.adapters import AdapterLayout, Side, Tensors, TrainedSlots, initialise
from nightshift.protocol.adapters.layout import Method
from nightshift.protocol.secagg.encoding import Encoding, VectorLayout
from nightshift.protocol.secagg.parameters import MIN_DEVICES, CohortParameters
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
        ranks: slots that devices train, dealt to them in turn; each rank is a cohort of its own, and the
            adapter has as many slots as the largest trains.
        server: what is made of the mean delta.
    """

    method: Method
    nights: int
    steps: int
    batch_size: int
    learning_rate: float
    proximal: float = 0.0
    ranks: tuple[int, ...] = (8,)
    server: ServerOptimiser = field(default_factory=ServerOptimiser)


@dataclass(frozen=True, slots=True)
class Night:
    """What a night came to.

    Attributes:
        adapter: the release after it.
        upload_bytes: what one device sent, shares and signature included; the mean, where they differ.
    """

    adapter: dict[str, NDArray[np.float32]]
    upload_bytes: float


def start(layout: AdapterLayout, seed: int) -> Tensors:
    """Release 0 of an experiment."""
    return initialise(layout, hashlib.sha256(b"bench learning %d" % seed).digest())


def local(
    package: ModelPackage,
    adapter: Tensors,
    slots: TrainedSlots,
    examples: Sequence[TokenExample],
    recipe: Recipe,
    *,
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
    return train(package, adapter, slots, examples, settings, runtime=RuntimeSettings(threads=1)).adapter


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
    release: dict[str, NDArray[np.float32]] = dict(start(layout, seed))
    memories: dict[Side, ServerMemory | None] = {}
    for night in range(recipe.nights):
        side = recipe.method.side_for_round(night)
        sums, sent = [], 0
        for place, rank in enumerate(recipe.ranks):
            slots = TrainedSlots(layout, side, rank)
            members = range(place, len(training), len(recipe.ranks))
            parameters, vector = _vector(slots, len(members), night, committee=min(COMMITTEE, len(training)))
            total = np.zeros(vector.length, dtype=np.uint64)
            for device in members:
                examples = training[device]
                trained = local(
                    package,
                    release,
                    slots,
                    examples,
                    recipe,
                    seed=1000 * seed + 100 * night + device,
                    steps=recipe.steps,
                    max_tokens=max_tokens,
                )
                delta = clipped(slots.delta(trained, release), CLIP_NORM)
                weight = contribution_weight(len(examples), EXAMPLES_FOR_FULL_WEIGHT)
                total += vector.encode(delta, weight, {}, os.urandom)
            sums.append(CohortSum(slots, vector.decode_sum(total, len(members))))
            sent += len(members) * upload_size_bytes(parameters, vector.length)
        release, memories[side] = next_adapter(release, combined(sums), recipe.server, memories.get(side))
        yield Night(release, sent / len(training))


def _vector(slots: TrainedSlots, devices: int, night: int, *, committee: int) -> tuple[CohortParameters, VectorLayout]:
    n_max = max(devices, MIN_DEVICES)  # sums in the clear may be over fewer; the ring has no room for less
    parameters = CohortParameters.derive(n_max=n_max, value_bits=VALUE_BITS, committee_size=committee)
    encoding = Encoding(clip=rotated_clip(CLIP_NORM, slots.length), value_bits=VALUE_BITS, n_max=n_max)
    vector = VectorLayout(delta_length=slots.length, metrics=(), encoding=encoding)
    seed = hashlib.sha256(b"night %d, rank %d" % (night, slots.rank)).digest()
    return parameters, replace(vector, rotation=rotation_seed(seed))
