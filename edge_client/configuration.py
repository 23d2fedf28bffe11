"""The owner's settings: what `config.toml`, the environment and flags may say."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from edge_client.home import Home
from edge_client.profiles.layer import Advice, advice_for
from nightshift.host.configuration import Loaded, load

if TYPE_CHECKING:
    from nightshift.protocol.identity import DeviceId

ENVIRONMENT_PREFIX = "EDGE_CLIENT_"
SHORTEST_TOKENS = 32
"""Length below which examples are not cut."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceRule(_Section):
    """Which files some tasks may learn from.

    Attributes:
        tasks: names or shell patterns.
        paths: shell patterns of whole paths; `~` is the owner's home, and `*` also stands for what lies deeper.
    """

    tasks: tuple[str, ...] = Field(min_length=1)
    paths: tuple[str, ...]

    @field_validator("paths")
    @classmethod
    def _whole(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        for path in paths:
            if not path.startswith(("/", "~")):
                raise ValueError(f"{path!r} is not a whole path; begin with / or ~/")
        return tuple(os.path.expanduser(path) for path in paths)


class PolicySettings(_Section):
    """The owner's limits; the coordinator can only be stricter.

    Attributes:
        minimum_cohort: fewest contributors whose sum may hold this device's part.
        minimum_committee: fewest committee members; unset follows the cohort: min(10, minimum_cohort).
        pinned_peers: ids of devices that the owner trusts by name; C - T + 1 of them or more must sit in the committee.
        minimum_pinned: more of them than that; C - f makes a second set impossible (docs/owner.md).
        tasks: names or shell patterns of the tasks to take part in.
        maximum_rounds_per_week: most contributions in seven days, of all tasks together; unset sets no limit.
        sources: what tasks may learn from; empty lets every task use every source.
        maximum_loss_increase: nats per answer token by which a newly served adapter may be worse on this device's own
            hold-out than the one in use; beyond it, that one stays.
        maximum_epsilon: differential-privacy bound per contribution; unset asks for none.
        minimum_openness: lowest class of the Model Openness Framework; unset accepts any.
        minimum_licence: "free" wants weights that anyone may use for anything; unset accepts any.
        licences: SPDX identifiers or patterns of the model's licence; empty accepts any.
    """

    minimum_cohort: int = Field(default=10, ge=3, le=1_000_000)
    minimum_committee: int | None = Field(default=None, ge=3, le=31)
    pinned_peers: tuple[str, ...] = ()
    minimum_pinned: int | None = Field(default=None, ge=1, le=31)
    tasks: tuple[str, ...] = ("*",)
    maximum_rounds_per_week: int | None = Field(default=None, ge=1, le=10_000)
    sources: tuple[SourceRule, ...] = ()
    maximum_loss_increase: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    maximum_epsilon: float | None = Field(default=None, gt=0)
    minimum_openness: Literal["I", "II", "III"] | None = None
    minimum_licence: Literal["free", "restricted"] | None = None
    licences: tuple[str, ...] = ()

    @property
    def smallest_committee(self) -> int:
        """The limit that holds. A coordinator chooses C, so an owner who says nothing wants what is usual."""
        return self.minimum_committee if self.minimum_committee is not None else min(10, self.minimum_cohort)

    @property
    def pinned(self) -> frozenset[DeviceId]:
        """The pinned peers' ids."""
        return frozenset(_device_id(text) for text in self.pinned_peers)

    @field_validator("tasks", "pinned_peers", "licences", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        # A variable holds one text: "commands,notes-*".
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("pinned_peers")
    @classmethod
    def _readable(cls, peers: tuple[str, ...]) -> tuple[str, ...]:
        # Now, and not when the first plan comes: a mistyped pin is a limit that the owner only believes in.
        for text in peers:
            _device_id(text)
        return peers

    @model_validator(mode="after")
    def _pins_for_a_number_of_them(self) -> PolicySettings:
        if self.minimum_pinned is not None and self.minimum_pinned > len(self.pinned_peers):
            raise ValueError(
                f"minimum_pinned is {self.minimum_pinned}, pinned_peers names {len(self.pinned_peers)}; no plan could "
                "satisfy it"
            )
        return self


def _device_id(text: str) -> DeviceId:
    # Here, because most commands have no pins to read and should not wait for the cryptography.
    from nightshift.protocol.errors import UsageError
    from nightshift.protocol.readable_ids import parse_device_id

    try:
        return parse_device_id(text)
    except UsageError as error:
        raise ValueError(str(error)) from error


class TrainingLimits(_Section):
    """What training may take from the machine.

    Attributes:
        enabled: whether this device trains at all; it can serve models and sit in committees without.
        rank: most rank slots of an adapter; plans that train more are declined. 0 means any number.
        max_tokens: longest example; what is longer is cut. 0 means as long as the plan says.
        micro_batch_size: examples of `max_tokens` tokens that pass through the graph at once, shorter ones
            accordingly more; 0 leaves it to the program.
        threads: of the training process; 0 means as many as the machine has.
        memory_ceiling_mb: address space of the training process, MiB; 0 means no ceiling.
        time_ceiling_s: longest training run, seconds.
        personal_steps: optimiser steps of `train --local`.
        recompute: compute activations twice, to hold fewer of them.
        jemalloc: preload it where it is installed.
        trim_malloc: without jemalloc, have malloc give large blocks back at once.
    """

    enabled: bool = True
    rank: int = Field(default=0, ge=0, le=256)
    max_tokens: int = Field(default=0, ge=0, le=32_768)
    micro_batch_size: int = Field(default=0, ge=0, le=4096)
    threads: int = Field(default=0, ge=0, le=1024)
    memory_ceiling_mb: int = Field(default=0, ge=0)
    time_ceiling_s: int = Field(default=4 * 3600, ge=1)
    personal_steps: int = Field(default=60, ge=1, le=1_000_000)
    recompute: bool = False
    jemalloc: bool = True
    trim_malloc: bool = False

    @field_validator("max_tokens")
    @classmethod
    def _long_enough(cls, value: int) -> int:
        if 0 < value < SHORTEST_TOKENS:
            raise ValueError(f"must be 0 or at least {SHORTEST_TOKENS}: shorter examples hold next to no answer")
        return value


class ConditionSettings(_Section):
    """When a pass may run on its own (`run --now` skips all but the clock). docs/client.md names each one's sensors.

    Attributes:
        hours: span of the day in local time, such as 22:00-06:30; empty is any time.
        tell_hours: let the coordinator know them in whole hours, so that it calls this device back inside them.
        require_mains_power: wait until the machine is plugged in.
        power: what feeds it, for a machine whose sensors do not say.
        minimum_battery_percent: charge below which nothing runs.
        maximum_load: one-minute load average per core above which the machine counts as busy.
        minimum_idle_s: seconds without keyboard and pointer; 0 asks for none.
        maximum_temperature_celsius: of the hottest thermal zone; above it training ends.
        begin_below_celsius: to begin a pass; unset is the maximum.
        allow_metered: use a network that costs by the byte.
        metered: whether it does, for a machine without NetworkManager.
        nightly_limit_mb: MiB sent and received from noon to noon; 0 means no limit.
        minimum_free_disk_mb: room that must be left on the disk of the cache.
        minimum_free_memory_mb: memory that must be available before a pass.
        judge_clock: do nothing while the clock cannot be right.
    """

    hours: str = ""
    tell_hours: bool = True
    require_mains_power: bool = True
    power: Literal["auto", "mains", "battery"] = "auto"
    minimum_battery_percent: int = Field(default=20, ge=0, le=100)
    maximum_load: float = Field(default=0.8, gt=0)
    minimum_idle_s: int = Field(default=600, ge=0, le=86_400)
    maximum_temperature_celsius: float = Field(default=85.0, ge=20, le=120)
    begin_below_celsius: float | None = Field(default=None, ge=20, le=120)
    allow_metered: bool = False
    metered: Literal["auto", "yes", "no"] = "auto"
    nightly_limit_mb: int = Field(default=0, ge=0)
    minimum_free_disk_mb: int = Field(default=256, ge=0)
    minimum_free_memory_mb: int = Field(default=128, ge=0)
    judge_clock: bool = True

    @field_validator("hours")
    @classmethod
    def _span(cls, value: str) -> str:
        from edge_client.conditions.hours import Hours

        return str(Hours.parse(value)) if value else ""


class CacheSettings(_Section):
    """Where fetched models live.

    Attributes:
        directory: another place than the default.
        quota_mb: most MiB that model packages may take; 0 means no limit.
    """

    directory: Path | None = None
    quota_mb: int = Field(default=0, ge=0)


class InferenceSettings(_Section):
    """How models on this device answer; `[inference]` of the device profile where unset.

    Attributes:
        engine: tried first; the other one answers where it does not work. `--engine` forces one.
        quantisation: of packages that are made here of a float model.
        threads: of the engine; 0 means as many as the machine has.
        context_tokens: longest conversation held, prompt and answer together; 0 means as long as the model allows.
    """

    engine: Literal["auto", "llama.cpp", "onnxruntime"] = "auto"
    quantisation: Literal["q8_0", "q4_0"] = "q8_0"
    threads: int = Field(default=0, ge=0, le=1024)
    context_tokens: int = Field(default=4096, ge=0, le=1 << 24)


class ServingSettings(_Section):
    """The local API (`edge-client serve`).

    Attributes:
        host: address to listen on; another than loopback needs a key.
        port: 0 takes a free one.
        api_key: that requests must carry.
        waiting_limit: most requests that wait while one is answered.
    """

    host: str = "127.0.0.1"
    port: int = Field(default=11435, ge=0, le=65_535)
    api_key: SecretStr | None = None
    waiting_limit: int = Field(default=16, ge=0, le=1024)


class DeviceSection(_Section):
    """What this machine is taken to be.

    Attributes:
        profile: a device profile's name; "auto" looks at the machine, "none" takes no advice.
    """

    profile: str = "auto"


class DebugSettings(_Section):
    """For demonstrations and tests only.

    Attributes:
        keep_encoded_vector: keep what was encrypted, IN THE CLEAR, under the home directory.
    """

    keep_encoded_vector: bool = False


class Configuration(_Section):
    """Everything that can be set."""

    device: DeviceSection = DeviceSection()
    policy: PolicySettings = PolicySettings()
    training: TrainingLimits = TrainingLimits()
    conditions: ConditionSettings = ConditionSettings()
    cache: CacheSettings = CacheSettings()
    inference: InferenceSettings = InferenceSettings()
    serving: ServingSettings = ServingSettings()
    debug: DebugSettings = DebugSettings()


def load_configuration(
    home: Home,
    *,
    overrides: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    advice: Advice | None = None,
) -> Loaded[Configuration]:
    """Read the settings: flag > environment > file > device profile > default.

    Args:
        home: says where `config.toml` is.
        overrides: dotted key -> value, from flags.
        environment: defaults to the process's; `EDGE_CLIENT_POLICY_MINIMUM_COHORT=5`.
        advice: of a device profile; None looks at the machine.

    Raises:
        UsageError: an unknown key, variable or profile, or a value out of range.
    """

    def read(layer: Advice) -> Loaded[Configuration]:
        return load(
            Configuration,
            file=home.config_file,
            environment=environment,
            prefix=ENVIRONMENT_PREFIX,
            overrides=overrides,
            profile=layer.values,
            profile_name=layer.profile,
        )

    if advice is not None:
        return read(advice)
    stated = read(Advice())
    found = advice_for(stated.values.device.profile, Configuration)
    return read(found) if found.values else stated


def cache_directory(home: Home, settings: CacheSettings) -> Path:
    """Where model packages are kept."""
    return settings.directory.expanduser().absolute() if settings.directory else home.cache
