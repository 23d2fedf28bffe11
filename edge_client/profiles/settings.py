"""A profile's advice as numbers for one machine, and what that machine lacks.

`settings_for(profile, facts)` is what the rest of the client reads:
`.training.recompute`, `.training.threads`, `.training.memory_ceiling_mb`,
`.inference.engine`. `configuration_layer` is the same as dotted keys, to be put
under the owner's file (docs/device-profiles.md lists them).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge_client.profiles.facts import Facts
from edge_client.profiles.profile import DeviceProfile, Engine, Quantisation, Thermal

if TYPE_CHECKING:
    from pydantic import BaseModel

LLAMA_FLAGS = {
    "aarch64": ("asimd",),
    # llama.cpp, ggml/CMakeLists.txt: what a build with GGML_NATIVE=OFF takes for granted on x86-64.
    "x86_64": ("sse4_2", "avx", "avx2", "fma", "f16c", "bmi2"),
}
SMALL_PAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Shortcoming:
    """Something that this machine lacks.

    Attributes:
        what: is missing.
        consequence: of that.
        remedy: what the owner can do; empty if nothing.
    """

    what: str
    consequence: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class InferenceAdvice:
    """Using a model; see `profile.Inference`.

    Attributes:
        engine: the first of `engines`.
        engines: in order of preference, without those that this processor cannot run.
        quantisation: of the package to pull.
        threads: as many as is best, at least 1.
        context_tokens: longest conversation held.
    """

    engine: Engine
    engines: tuple[Engine, ...]
    quantisation: Quantisation
    threads: int
    context_tokens: int


@dataclass(frozen=True, slots=True)
class TrainingAdvice:
    """Training; see `profile.Training`. All numbers are 0 and all switches off where it is not allowed.

    Attributes:
        allowed: whether this machine should train.
        reason: why not; empty if it should.
        rank: most ranks of an adapter.
        max_tokens: longest example.
        micro_batch_size: examples at once.
        threads: as many as is best, at least 1.
        memory_ceiling_mb: MiB for the training process.
        recompute: compute activations twice to hold fewer of them.
        jemalloc: preload it.
        trim_malloc: without jemalloc, have malloc give large blocks back at once.
    """

    allowed: bool
    reason: str = ""
    rank: int = 0
    max_tokens: int = 0
    micro_batch_size: int = 0
    threads: int = 0
    memory_ceiling_mb: int = 0
    recompute: bool = False
    jemalloc: bool = False
    trim_malloc: bool = False


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """What to do on this machine.

    Attributes:
        profile: the profile's name.
        inference: using a model.
        training: training.
        thermal: limits of heat.
        shortcomings: what the machine lacks.
    """

    profile: str
    inference: InferenceAdvice
    training: TrainingAdvice
    thermal: Thermal
    shortcomings: tuple[Shortcoming, ...]


def settings_for(profile: DeviceProfile, facts: Facts) -> DeviceSettings:
    """Fit a profile's advice to a machine."""
    inference = profile.inference
    missing = missing_flags(facts)
    # The last engine stays even so: whoever asks for it must get its error, not an empty list.
    engines = tuple(e for e in inference.engines if e != "llama.cpp" or not missing) or inference.engines
    return DeviceSettings(
        profile=profile.name,
        inference=InferenceAdvice(
            engine=engines[0],
            engines=engines,
            quantisation=inference.quantisation,
            threads=_threads(inference.threads, facts),
            context_tokens=inference.context_tokens,
        ),
        training=_training(profile, facts),
        thermal=profile.thermal,
        shortcomings=tuple(_shortcomings(profile, facts)),
    )


def configuration_layer(settings: DeviceSettings, model: type[BaseModel]) -> dict[str, Any]:
    """The advice as dotted keys, for `nightshift.host.configuration.load(profile=...)`.

    Args:
        settings: of this machine.
        model: the configuration; advice for which it has no key is left out.
    """
    inference, training, thermal = settings.inference, settings.training, settings.thermal
    advice: dict[str, Any] = {
        "inference.engine": inference.engine,
        "inference.quantisation": inference.quantisation,
        "inference.threads": inference.threads,
        "inference.context_tokens": inference.context_tokens,
        "training.enabled": training.allowed,
    }
    if training.allowed:
        advice |= {
            "training.rank": training.rank,
            "training.max_tokens": training.max_tokens,
            "training.micro_batch_size": training.micro_batch_size,
            "training.threads": training.threads,
            "training.memory_ceiling_mb": training.memory_ceiling_mb,
            "training.recompute": training.recompute,
            "training.jemalloc": training.jemalloc,
            "training.trim_malloc": training.trim_malloc,
        }
    if thermal.pause_above_celsius is not None:
        advice["conditions.maximum_temperature_celsius"] = thermal.pause_above_celsius
    if thermal.resume_below_celsius is not None:
        advice["conditions.begin_below_celsius"] = thermal.resume_below_celsius
    return {key: value for key, value in advice.items() if _has_key(model, key)}


def missing_flags(facts: Facts) -> tuple[str, ...]:
    """Instructions that a portable build of llama.cpp uses and this processor lacks.

    None are missing where the flags are unknown: nothing is refused on a guess.
    """
    needed = LLAMA_FLAGS.get(facts.architecture, ())
    return tuple(flag for flag in needed if flag not in facts.flags) if facts.flags else ()


def _training(profile: DeviceProfile, facts: Facts) -> TrainingAdvice:
    advice = profile.training
    if advice is None:
        return TrainingAdvice(allowed=False, reason=profile.inference_only or "")
    memory_mb = facts.memory_mb
    if memory_mb is not None and memory_mb < advice.minimum_memory_mb:
        reason = f"it has {memory_mb} MiB of memory, training wants a machine of {advice.minimum_memory_mb} MiB"
        return TrainingAdvice(allowed=False, reason=reason)
    # Unknown memory is taken to be the least that trains at all.
    present_mb = advice.minimum_memory_mb if memory_mb is None else memory_mb
    jemalloc = advice.jemalloc and facts.page_size_bytes <= SMALL_PAGE_BYTES
    return TrainingAdvice(
        allowed=True,
        rank=advice.rank,
        max_tokens=advice.max_tokens,
        micro_batch_size=advice.micro_batch_size,
        threads=_threads(advice.threads, facts),
        memory_ceiling_mb=min(advice.memory_ceiling_mb, int(present_mb * advice.memory_share)),
        recompute=present_mb < advice.recompute_below_mb,
        jemalloc=jemalloc,
        trim_malloc=present_mb < advice.trim_malloc_below_mb and not (jemalloc and facts.jemalloc),
    )


def _threads(most: int, facts: Facts) -> int:
    cores = facts.physical_cores or facts.processors or 1
    return min(most, cores) if most else cores


def _shortcomings(profile: DeviceProfile, facts: Facts) -> Iterator[Shortcoming]:
    if facts.python_bits == 32:
        yield Shortcoming(
            "the interpreter is a 32-bit one",
            "numpy and onnxruntime have no wheels for it",
            "install a 64-bit system; a 64-bit kernel alone is not enough",
        )
    if missing := missing_flags(facts):
        yield Shortcoming(
            f"the processor has no {', '.join(flag.upper() for flag in missing)}",
            "a llama-cpp-python wheel that was built elsewhere dies of an illegal instruction",
            'use the onnxruntime engine, or build llama-cpp-python here with CMAKE_ARGS="-DGGML_NATIVE=ON"',
        )
    if facts.architecture == "aarch64" and facts.flags and "asimddp" not in facts.flags:
        yield Shortcoming(
            "the processor has no dot-product instructions (ASIMDDP)",
            "int8 and int4 arithmetic is slower than on newer cores",
        )
    yield from _memory(profile, facts)
    if facts.system == "Linux" and not facts.thermal_zones:
        yield Shortcoming(
            "no thermal zone can be read", "training cannot pause when the machine gets hot", "see to its cooling"
        )
    if facts.battery is None:
        yield Shortcoming(
            "nothing says whether there is a battery",
            "the power condition is unknown and does not block",
            "set conditions.require_mains_power in the file",
        )
    for name in facts.unread:
        if name != "sys/class/power_supply":  # said above, with its consequence
            yield Shortcoming(f"{name} gave nothing", "what it says is taken as unknown")


def _memory(profile: DeviceProfile, facts: Facts) -> Iterator[Shortcoming]:
    training = profile.training
    if training is None:
        return
    if facts.memory_mb is not None and facts.memory_mb < training.minimum_memory_mb:
        yield Shortcoming(
            f"{facts.memory_mb} MiB of memory are less than {training.minimum_memory_mb} MiB",
            "it serves models and takes part in committees, but does not train",
        )
        return
    if facts.system != "Linux" or not training.jemalloc:
        return
    if facts.page_size_bytes > SMALL_PAGE_BYTES:
        yield Shortcoming(
            f"the kernel's pages are {facts.page_size_bytes // 1024} KiB",
            "a jemalloc built for pages of 4 KiB refuses to start here, so it is not preloaded",
            "on a Raspberry Pi 5, kernel=kernel8.img in config.txt brings pages of 4 KiB",
        )
    elif not facts.jemalloc:
        yield Shortcoming(
            "libjemalloc.so.2 is not installed",
            "training takes more memory, or more time where memory is short",
            "install it: apt install libjemalloc2",
        )


def _has_key(model: type[BaseModel], key: str) -> bool:
    section, _, leaf = key.partition(".")
    field = model.model_fields.get(section)
    annotation = field.annotation if field is not None else None
    return leaf in getattr(annotation, "model_fields", {})
