"""What a file in `device_profiles/` may say.

A profile is advice for a kind of machine. It never overrides its owner: every
value of it sits below the configuration file (docs/device-profiles.md).
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Engine = Literal["llama.cpp", "onnxruntime"]
Quantisation = Literal["q4_0", "q8_0"]
Celsius = Annotated[float, Field(gt=20, lt=125)]
_CORE = re.compile(r"0x[0-9a-f]{2}:0x[0-9a-f]{3}")


class _Table(BaseModel):
    # Strict: in TOML a number is a number; only arrays become tuples (`_tuple`).
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @field_validator("*", mode="before")
    @classmethod
    def _tuple(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value


class MatchRule(_Table):
    """A machine matches when everything named here is known and so.

    Attributes:
        system: "Linux" or "Darwin".
        architecture: "aarch64" or "x86_64".
        android: inside an Android system.
        board: shell patterns, one of which the board's name fits.
        apple: a processor that Apple made.
        portable: a laptop's enclosure, or a battery.
        cores: "implementer:part" of Arm cores, one of which is present: "0x41:0xd08".
        at_least_mb: memory, MiB.
        at_most_mb: memory, MiB.
    """

    system: Literal["Linux", "Darwin"] | None = None
    architecture: Literal["aarch64", "x86_64"]
    android: bool | None = None
    board: tuple[str, ...] = ()
    apple: bool | None = None
    portable: bool | None = None
    cores: tuple[str, ...] = ()
    at_least_mb: int | None = Field(default=None, gt=0)
    at_most_mb: int | None = Field(default=None, gt=0)

    @field_validator("cores")
    @classmethod
    def _spelt(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [core for core in value if not _CORE.fullmatch(core)]:
            raise ValueError(f'{wrong[0]!r} is not "implementer:part" in hexadecimal, for example "0x41:0xd08"')
        return value


class Hardware(_Table):
    """Public facts about the machine, for people.

    Attributes:
        processor: chip and cores.
        memory: the sizes it is sold with.
        sources: where these facts, and those of `thermal`, are written.
    """

    processor: str
    memory: str
    sources: tuple[str, ...] = Field(min_length=1)


class Thermal(_Table):
    """Heat.

    Attributes:
        throttles_at_celsius: where the maker begins to slow the processor down; absent where
            that differs from machine to machine or no maker's figure was found.
        pause_above_celsius: training pauses above it; absent where no sensor can be read.
        resume_below_celsius: and goes on below it.
    """

    throttles_at_celsius: Celsius | None = None
    pause_above_celsius: Celsius | None = None
    resume_below_celsius: Celsius | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Thermal:
        pause, resume = self.pause_above_celsius, self.resume_below_celsius
        if (pause is None) != (resume is None):
            raise ValueError("pause_above_celsius and resume_below_celsius come together")
        if pause is not None and resume is not None and resume >= pause:
            raise ValueError(f"resume_below_celsius {resume:g} must be less than pause_above_celsius {pause:g}")
        if pause is not None and self.throttles_at_celsius is not None and pause > self.throttles_at_celsius:
            raise ValueError(
                f"pause_above_celsius {pause:g} must not be above throttles_at_celsius {self.throttles_at_celsius:g}"
            )
        return self


class Inference(_Table):
    """Using a model.

    Attributes:
        engines: in order of preference.
        quantisation: of the package to pull when there is a choice.
        threads: most threads; 0 means one for each physical core.
        context_tokens: longest conversation held.
    """

    engines: tuple[Engine, ...] = Field(min_length=1)
    quantisation: Quantisation
    threads: int = Field(ge=0, le=256)
    context_tokens: int = Field(ge=128, le=131072)

    @field_validator("engines")
    @classmethod
    def _distinct(cls, value: tuple[Engine, ...]) -> tuple[Engine, ...]:
        if len(set(value)) != len(value):
            raise ValueError("names an engine twice")
        return value


class Training(_Table):
    """Training on this machine.

    Attributes:
        rank: most ranks of an adapter to train.
        max_tokens: longest example.
        micro_batch_size: examples that pass through the graph at once.
        threads: most threads; 0 means one for each physical core.
        minimum_memory_mb: with less memory in the machine it does not train.
        memory_share: of the machine's memory, for the training process.
        memory_ceiling_mb: and never more than this.
        recompute_below_mb: with less memory in the machine, activations are computed twice.
        jemalloc: preload it where it is installed.
        trim_malloc_below_mb: with less memory, and no jemalloc, malloc gives large blocks back at once.
    """

    rank: int = Field(ge=1, le=256)
    max_tokens: int = Field(ge=16, le=8192)
    micro_batch_size: int = Field(ge=1, le=256)
    threads: int = Field(ge=0, le=256)
    minimum_memory_mb: int = Field(ge=256)
    memory_share: float = Field(gt=0, le=0.8)
    memory_ceiling_mb: int = Field(ge=256)
    recompute_below_mb: int = Field(ge=0)
    jemalloc: bool
    trim_malloc_below_mb: int = Field(ge=0)


class DeviceProfile(_Table):
    """One file of `device_profiles/`.

    Attributes:
        name: the file's name without its ending.
        description: one line.
        notes: what an owner of such a machine should know.
        match: alternatives, each sufficient.
        hardware: public facts.
        thermal: limits of heat.
        inference: using a model.
        training: training; absent on a machine that must not train.
        inference_only: why not; only then.
    """

    name: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    description: str = Field(min_length=1, max_length=120)
    notes: tuple[str, ...] = ()
    match: tuple[MatchRule, ...] = Field(min_length=1)
    hardware: Hardware
    thermal: Thermal
    inference: Inference
    training: Training | None = None
    inference_only: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _says_why(self) -> DeviceProfile:
        if (self.training is None) != (self.inference_only is not None):
            raise ValueError("either a [training] table, or inference_only with the reason why there is none")
        return self
