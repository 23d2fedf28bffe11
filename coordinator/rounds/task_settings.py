"""task.toml: what is learned and how, checked before anything is made of it.

Whatever could overflow later is refused here: slots that are too narrow for
n_max values, sums of keys beyond the field, windows beyond a prekey's life.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from coordinator.aggregation.server_optimisers import ServerMethod, ServerOptimiser
from coordinator.releases.gate import GateRule
from coordinator.rounds.assignment import MAX_COHORTS
from nightshift.host.configuration import load
from nightshift.protocol.adapters.layout import PROJECTIONS, AdapterLayout, Method, Side
from nightshift.protocol.errors import NightshiftError, UsageError
from nightshift.protocol.identity import DeviceId
from nightshift.protocol.manifest import ModelDimensions
from nightshift.protocol.metrics import ALWAYS, COMPARING, LOSS_LIMIT, limits_of
from nightshift.protocol.plan import MAX_BATCH, MAX_STEPS, MAX_TASK_CHARACTERS, MAX_TOKENS, N_MIN_FLOOR
from nightshift.protocol.readable_ids import parse_device_id
from nightshift.protocol.secagg.committee import USUAL_SIZE
from nightshift.protocol.secagg.encoding import Encoding, VectorLayout
from nightshift.protocol.secagg.parameters import (
    MAX_COMMITTEE,
    MAX_DEVICES,
    MAX_VALUE_BITS,
    MIN_COMMITTEE,
    MIN_VALUE_BITS,
    CohortParameters,
)
from nightshift.protocol.secagg.rotation import rotated_clip

PREKEY_LIFE_S = 14 * 86_400
SMALLEST_HALF = 4
"""Rank slots that the smallest device profiles train; below it nothing is halved unasked."""
SMALLEST_VALUE_CLIP = 1e-9
"""What plans allow at the least (`PlanDocument.parse`)."""

OVER_SELECTION = 1.3
"""Devices of a pool for each contributor that is needed (Bonawitz et al. 2019, "Towards Federated Learning at Scale",
section 4.3: 130 % of the target number make up for those that drop out). All of the pool are invited."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AdapterSettings(_Section):
    """The adapter's shape, and what of it rounds train: which side and, for devices of different strength, how much."""

    rank: int = Field(default=8, ge=1, le=256)
    ranks: tuple[int, ...] = Field(default=(), description="rank slots that cohorts train; empty: rank and its halves")
    alpha: Positive = 16.0
    method: Method = Method.FFA
    targets: tuple[str, ...] = PROJECTIONS
    seed: str = Field(default="", pattern=r"^([0-9a-f]{64})?$", description="32 bytes in hex; empty: random")

    @field_validator("targets")
    @classmethod
    def _known(cls, targets: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [target for target in targets if target not in PROJECTIONS]
        if unknown or not targets:
            raise ValueError(f"choose from {', '.join(PROJECTIONS)}; got {', '.join(unknown) or 'none'}")
        return targets

    @model_validator(mode="after")
    def _ranks_of_this_adapter(self) -> AdapterSettings:
        if list(self.ranks) != sorted({rank for rank in self.ranks if rank >= 1}):
            raise ValueError(f"ranks must ascend from 1 or more, got {', '.join(map(str, self.ranks))}")
        if self.ranks and self.ranks[-1] != self.rank:
            raise ValueError(
                f"the largest of ranks must be the adapter's rank {self.rank}, got {self.ranks[-1]}: "
                "slots that nobody trains would only cost"
            )
        return self

    @property
    def trained_ranks(self) -> tuple[int, ...]:
        """Rank slots that cohorts train. Unless the task says so: all of them, half, a quarter, …, at least 4."""
        ranks = list(self.ranks) or [self.rank]
        while not self.ranks and ranks[0] % 2 == 0 and ranks[0] // 2 >= SMALLEST_HALF:
            ranks.insert(0, ranks[0] // 2)
        return tuple(ranks)


class TrainingSettings(_Section):
    """How a device trains for one contribution (units as in plan.proto)."""

    steps: int = Field(default=60, ge=1, le=MAX_STEPS)
    batch_size: int = Field(default=16, ge=1, le=MAX_BATCH)
    learning_rate: float = Field(default=5e-3, ge=1e-9, le=10, allow_inf_nan=False)
    schedule: Literal["constant", "cosine"] = "constant"
    weight_decay: NotNegative = 0.0
    gradient_clip_norm: NotNegative = 1.0
    max_tokens: int = Field(default=256, ge=2, le=MAX_TOKENS)
    proximal: NotNegative = 0.0
    examples_for_full_weight: int = Field(default=100, ge=1, le=1 << 30)


class EncodingSettings(_Section):
    """How a delta becomes integers.

    With `rotated` the clip holds for rotated values, and the norm of a delta says how large these
    are: `value_clip` 0 takes six of their standard deviations (`rotation.rotated_clip`). Without it one
    value may be as large as the norm, so 0 takes the norm. A `clip_norm` of 0 bounds no
    norm; `value_clip` must then be a number, and values beyond it are cut.
    """

    value_bits: int = Field(default=16, ge=MIN_VALUE_BITS, le=MAX_VALUE_BITS)
    rotated: bool = True
    value_clip: float = Field(default=0.0, ge=0, le=1e6, allow_inf_nan=False, description="0: follows from clip_norm")
    clip_norm: NotNegative = 10.0
    noise_multiplier: float = 0.0

    @field_validator("noise_multiplier")
    @classmethod
    def _no_noise_yet(cls, value: float) -> float:
        if value != 0.0:
            raise ValueError("must be 0: this version adds no noise, and a task must not claim that it does")
        return value

    @model_validator(mode="after")
    def _bounded(self) -> EncodingSettings:
        if self.value_clip == 0 and self.clip_norm == 0:
            raise ValueError(
                "value_clip and clip_norm are both 0: nothing says how large a value may be; "
                "set clip_norm, the L2 norm that a device cuts its delta to"
            )
        if 0 < self.value_clip < SMALLEST_VALUE_CLIP:
            raise ValueError(f"value_clip must be 0 or at least {SMALLEST_VALUE_CLIP:g}, got {self.value_clip:g}")
        return self

    def clip(self, delta_length: int) -> float:
        """The largest value that is encoded as it is, of a delta of so many values."""
        if self.value_clip:
            return self.value_clip
        derived = rotated_clip(self.clip_norm, delta_length) if self.rotated else self.clip_norm
        return max(derived, SMALLEST_VALUE_CLIP)


class CohortSettings(_Section):
    """Who takes part in one cohort."""

    n_max: int = Field(default=512, ge=N_MIN_FLOOR, le=MAX_DEVICES)
    n_min: int = Field(default=10, ge=N_MIN_FLOOR, le=MAX_DEVICES)
    committee: int = Field(
        default=USUAL_SIZE, ge=MIN_COMMITTEE, le=MAX_COMMITTEE, description="members; all devices of a smaller pool"
    )
    pool_min: int = Field(
        default=0, ge=0, description="devices in the pool before a round opens; 0: 1.3 n_min, at most n_max"
    )
    committee_from: tuple[str, ...] = Field(
        default=(), description="ids of the devices that committees are drawn from; empty: every device of the pool"
    )

    @model_validator(mode="after")
    def _consistent(self) -> CohortSettings:
        if self.n_min > self.n_max:
            raise ValueError(f"n_min {self.n_min} is larger than n_max {self.n_max}")
        if self.committee_from and len(self.seatable) < MIN_COMMITTEE:
            raise ValueError(
                f"committee_from names {len(self.seatable)} devices; a committee has at least {MIN_COMMITTEE} members"
            )
        return self

    @property
    def seatable(self) -> frozenset[DeviceId]:
        """Whom a committee may be drawn from; empty for everybody."""
        try:
            return frozenset(parse_device_id(text) for text in self.committee_from)
        except UsageError as error:
            raise ValueError(f"committee_from: {error}") from error

    @property
    def pool_needed(self) -> int:
        """Devices that must be in the pool before a round opens: more than must contribute, for some will not come."""
        over_selected = min(self.n_max, math.ceil(OVER_SELECTION * self.n_min))
        return max(MIN_COMMITTEE, self.n_min, self.pool_min or over_selected)


class ServerSettings(_Section):
    """What the coordinator makes of a round's mean delta (`coordinator.aggregation.server_optimisers`)."""

    method: ServerMethod = ServerMethod.FEDAVG
    learning_rate: float = Field(default=1.0, gt=0, le=1e3, allow_inf_nan=False)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    second_momentum: float = Field(default=0.99, ge=0, lt=1, description="fedadam only")
    adaptivity: float = Field(default=1e-3, gt=0, le=1e3, allow_inf_nan=False, description="fedadam only")

    @model_validator(mode="after")
    def _adam_needs_a_rate(self) -> ServerSettings:
        if self.method is ServerMethod.FEDADAM and "learning_rate" not in self.model_fields_set:
            raise ValueError(
                "fedadam needs a learning_rate: about how far one value should move in a round (0.01 is a beginning)"
            )
        return self

    def optimiser(self) -> ServerOptimiser:
        """The optimiser of these settings."""
        return ServerOptimiser(**self.model_dump())


class RoundSettings(_Section):
    """When rounds open and how long their parts last."""

    open: Literal["operator", "automatic"] = "operator"
    total: int = Field(default=0, ge=0, description="releases after which no round opens; 0: no end")
    cohorts: int = Field(
        default=0, ge=0, le=MAX_COHORTS, description="of a round; 0: as many as it takes for all able devices"
    )
    upload_window_s: int = Field(default=8 * 3600, ge=1)
    upload_extension_s: int = Field(default=0, ge=0)
    answer_window_s: int = Field(default=2 * 86_400, ge=1)

    @model_validator(mode="after")
    def _inside_a_prekeys_life(self) -> RoundSettings:
        if self.length_s >= PREKEY_LIFE_S:
            raise ValueError(
                f"a round would last {self.length_s} s; a member's prekey lives at most {PREKEY_LIFE_S} s: "
                "shorten upload_window_s, upload_extension_s or answer_window_s"
            )
        return self

    @property
    def length_s(self) -> int:
        """Seconds from plan to answer deadline."""
        return self.upload_window_s + self.upload_extension_s + self.answer_window_s


class GateSettings(_Section):
    """When devices serve what was learned (`coordinator.releases.gate`).

    Without the gate every release is served as soon as it is published.
    """

    enabled: bool = True
    margin: float = Field(default=0.0, ge=0, le=LOSS_LIMIT, description="nats per answer token, in the mean")
    minimum_devices: int = Field(default=0, ge=0, le=1 << 30, description="that measured it; 0: n_min of a cohort")
    share_better: float = Field(default=0.5, ge=0, le=1, description="of the devices' weight")
    patience: int = Field(default=0, ge=0, le=1000, description="rounds that a candidate which is no worse is held")


class TaskSettings(_Section):
    """The whole file."""

    name: str
    model: str
    adapter: AdapterSettings = AdapterSettings()
    training: TrainingSettings = TrainingSettings()
    encoding: EncodingSettings = EncodingSettings()
    cohort: CohortSettings = CohortSettings()
    rounds: RoundSettings = RoundSettings()
    server: ServerSettings = ServerSettings()
    gate: GateSettings = GateSettings()

    @field_validator("name")
    @classmethod
    def _plain(cls, name: str) -> str:
        if not re.fullmatch(rf"[a-z0-9][a-z0-9._-]{{0,{MAX_TASK_CHARACTERS - 1}}}", name):
            raise ValueError(f"use 1 to {MAX_TASK_CHARACTERS} of a-z, 0-9, '.', '_' and '-', got {name[:80]!r}")
        return name

    @model_validator(mode="after")
    def _fits(self) -> TaskSettings:
        try:
            for committee_size in (MIN_COMMITTEE, self.cohort.committee):
                CohortParameters.derive(
                    n_max=self.cohort.n_max, value_bits=self.encoding.value_bits, committee_size=committee_size
                )
        except NightshiftError as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def gate_rule(self) -> GateRule:
        """What a candidate must achieve."""
        return GateRule(
            margin=self.gate.margin,
            minimum_devices=self.gate.minimum_devices or self.cohort.n_min,
            share_better=self.gate.share_better,
            patience=self.gate.patience,
        )

    def layout(self, dimensions: ModelDimensions) -> AdapterLayout:
        """The adapter's shape on a model.

        Raises:
            UsageError: the rank does not fit a projection of this model.
        """
        try:
            return AdapterLayout.for_llama(
                layers=dimensions.layers,
                hidden=dimensions.hidden,
                ffn=dimensions.ffn,
                heads=dimensions.heads,
                kv_heads=dimensions.kv_heads,
                head_dim=dimensions.head_dim,
                rank=self.adapter.rank,
                alpha=self.adapter.alpha,
                targets=self.adapter.targets,
            )
        except NightshiftError as error:
            raise UsageError(f"task {self.name}: {error}") from error

    def vector(self, layout: AdapterLayout, side: Side) -> VectorLayout:
        """What one contribution's vector holds."""
        length, metrics = layout.vector_length(side), (*ALWAYS, *COMPARING)
        return VectorLayout(
            delta_length=length,
            metrics=metrics,
            encoding=Encoding(
                clip=self.encoding.clip(length), value_bits=self.encoding.value_bits, n_max=self.cohort.n_max
            ),
            metric_limits=limits_of(metrics),
        )


def read_task_file(path: Path) -> TaskSettings:
    """Read task.toml.

    Raises:
        UsageError: absent, unreadable, an unknown key (with a suggestion), or a value out of range.
    """
    if not path.exists():
        raise UsageError(f"{path} does not exist; see docs/operations.md for an example of a task file")
    return load(TaskSettings, file=path, environment={}).values
