"""`edge-client profile`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from edge_client.cli.options import Call, device_command

if TYPE_CHECKING:
    from edge_client.profiles.choice import Choice
    from edge_client.profiles.facts import Facts
    from edge_client.profiles.profile import DeviceProfile
    from edge_client.profiles.settings import DeviceSettings

# Of some hundred instruction-set flags, those that decide something.
_TELLING_FLAGS = ("avx", "avx2", "avx512f", "fma", "f16c", "bmi2", "sse4_2", "asimd", "asimddp", "asimdhp", "i8mm")


@click.group(short_help="What kind of machine this is, and what follows from it.")
def profile() -> None:
    """Device profiles: what kind of machine this is, and what it is asked to do.

    A profile is advice. The configuration file, the environment and flags override it.
    """


@profile.command(epilog="Example: edge-client profile detect")
@device_command
def detect(call: Call) -> None:
    """Look at this machine: which profile fits, why, what it sets, and what is missing."""
    from edge_client.profiles.choice import choose
    from edge_client.profiles.reading import read_facts
    from edge_client.profiles.settings import settings_for
    from edge_client.profiles.shipped import load_profiles
    from nightshift.protocol.errors import IncompatibleError

    facts = read_facts()
    choice = choose(facts, load_profiles())
    if choice.profile is None:
        raise IncompatibleError(
            f"no device profile fits this machine ({', '.join(choice.why)}); edge-client runs on 64-bit Linux and "
            "macOS, on x86_64 and aarch64. 32-bit Arm is not supported: numpy and onnxruntime have no wheels for it"
        )
    settings = settings_for(choice.profile, facts)
    value = {
        "profile": choice.profile.name,
        "why": list(choice.why),
        "alternatives": [{"profile": other.profile.name, "why": list(other.why)} for other in choice.alternatives],
        "facts": _facts(facts),
        "settings": _settings(settings),
        "missing": [asdict(shortcoming) for shortcoming in settings.shortcomings],
    }
    call.emit(value, "\n".join(_detected(choice, choice.profile, facts, settings)))


@profile.command("list", epilog="Example: edge-client profile list --json")
@device_command
def list_profiles(call: Call) -> None:
    """Name the profiles that come with the program."""
    from edge_client.profiles.shipped import load_profiles

    profiles = load_profiles()
    width = max(len(one.name) for one in profiles)
    value = [{"name": one.name, "description": one.description, "trains": one.training is not None} for one in profiles]
    call.emit(value, "\n".join(f"{one.name:{width}}  {one.description}" for one in profiles))


@profile.command(epilog="Example: edge-client profile show raspberry-pi-5")
@click.argument("name")
@device_command
def show(call: Call, name: str) -> None:
    """Show one profile in full."""
    from edge_client.profiles.shipped import find_profile, load_profiles

    one = find_profile(name, load_profiles())
    call.emit(one.model_dump(mode="json", exclude_none=True), "\n".join(_shown(one)))


def _detected(choice: Choice, one: DeviceProfile, facts: Facts, settings: DeviceSettings) -> list[str]:
    training, inference = settings.training, settings.inference
    lines = [f"{one.name}: {one.description}", "because:", *(f"  {why}" for why in choice.why), "this machine:"]
    for name, known in _facts(facts).items():
        label = name.replace("_mb", " (MiB)").replace("_bytes", " (bytes)").replace("_", " ")
        if name != "unread":  # said under "missing", with its consequence
            lines.append(f"  {label}: {_words(known)}")
    lines += [
        "what follows:",
        f"  engine: {inference.engine}"
        + (f", then {', '.join(inference.engines[1:])}" if len(inference.engines) > 1 else ""),
        f"  quantisation {inference.quantisation}, {_threads(inference.threads)}, "
        f"context {inference.context_tokens} tokens",
    ]
    if training.allowed:
        lines += [
            f"  training: rank {training.rank}, examples of {training.max_tokens} tokens, "
            f"{training.micro_batch_size} at once, {_threads(training.threads)}, "
            f"at most {training.memory_ceiling_mb} MiB",
            f"  activations are {'computed twice' if training.recompute else 'kept'}, "
            f"allocator: {_allocator(facts, settings)}",
        ]
    else:
        lines.append(f"  no training: {training.reason}")
    if settings.thermal.pause_above_celsius is not None and training.allowed and facts.thermal_zones:
        lines.append(f"  training pauses above {settings.thermal.pause_above_celsius:g} °C")
    if settings.shortcomings:
        lines.append("missing:")
    for lack in settings.shortcomings:
        lines.append(f"  {lack.what}: {lack.consequence}" + (f"; {lack.remedy}" if lack.remedy else ""))
    lines += [f"note: {text}" for text in one.notes]
    if choice.alternatives:
        lines.append(f"also fits: {', '.join(other.profile.name for other in choice.alternatives)}")
    return lines


def _allocator(facts: Facts, settings: DeviceSettings) -> str:
    if settings.training.jemalloc and facts.jemalloc:
        return "jemalloc"
    return "malloc that gives large blocks back at once" if settings.training.trim_malloc else "malloc"


def _threads(number: int) -> str:
    return "1 thread" if number == 1 else f"{number} threads"


def _facts(facts: Facts) -> dict[str, Any]:
    from edge_client.profiles.choice import core_name

    return {
        "system": facts.system or None,
        "architecture": facts.architecture or None,
        "board": facts.board or None,
        "processor": facts.processor or None,
        "cores": sorted(core_name(core) for core in facts.cores),
        "flags": [flag for flag in _TELLING_FLAGS if flag in facts.flags],
        "processors": facts.processors,
        "physical_cores": facts.physical_cores,
        "memory_mb": facts.memory_mb,
        "page_size_bytes": facts.page_size_bytes or None,
        "python_bits": facts.python_bits or None,
        "battery": facts.battery,
        "portable": facts.portable,
        "android": facts.android,
        "thermal_zones": facts.thermal_zones,
        "jemalloc": facts.jemalloc,
        "unread": list(facts.unread),
    }


def _settings(settings: DeviceSettings) -> dict[str, Any]:
    return {
        "inference": asdict(settings.inference),
        "training": asdict(settings.training),
        "thermal": settings.thermal.model_dump(),
    }


def _words(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(str(part) for part in value) or "none"
    if value is None:
        return "unknown"
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)


def _shown(one: DeviceProfile) -> list[str]:
    lines = [f"{one.name}: {one.description}"]
    tables = one.model_dump(mode="json", exclude_none=True, exclude={"name", "description", "notes", "match"})
    for index, rule in enumerate(one.match):
        said = rule.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        words = "; ".join(f"{key} {_words(value)}" for key, value in said.items())
        lines.append(f"{'or matches' if index else 'matches'}: {words}")
    for table, values in tables.items():
        if isinstance(values, dict):
            lines.append(f"{table}:")
            lines += [f"  {key.replace('_', ' ')}: {_words(value)}" for key, value in values.items()]
        else:
            lines.append(f"{table.replace('_', ' ')}: {values}")
    return [*lines, *(f"note: {text}" for text in one.notes)]
