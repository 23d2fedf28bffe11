"""The machine: platform, clock, disk, memory, processor, heat."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from edge_client.conditions.checklist import Machine
from edge_client.conditions.heat import Heat
from edge_client.conditions.power import SupplyVoltage
from edge_client.conditions.reading import Condition, Verdict
from edge_client.conditions.room import FreeDisk, FreeMemory
from edge_client.configuration import ConditionSettings
from nightshift.host.clock import Synchronised, now_unix_s, synchronised
from nightshift.host.findings import Finding
from nightshift.protocol.errors import ExitCode, NightshiftError
from nightshift.protocol.times import rfc3339


def check_machine(settings: ConditionSettings, cache: Path, machine: Machine) -> Iterator[Finding]:
    """Everything that needs neither a membership nor a network."""
    yield _platform()
    yield _clock()
    yield _of_condition("disk", FreeDisk(cache, settings.minimum_free_disk_mb), ExitCode.NO_SPACE)
    yield _writable(cache)
    yield _of_condition("memory", FreeMemory(machine.files, settings.minimum_free_memory_mb), ExitCode.NO_SPACE)
    yield _of_condition("temperature", Heat(machine.files, settings.maximum_temperature_celsius), ExitCode.NOT_NOW)
    yield _of_condition("supply voltage", SupplyVoltage(machine.files), ExitCode.NOT_NOW)
    yield from _processor(machine)


def _platform() -> Finding:
    import platform

    from edge_client.service.platforms import require_supported

    try:
        require_supported()
    except NightshiftError as error:
        return Finding.of_error("platform", error)
    return Finding.ok("platform", f"{platform.system()} {platform.machine()}, Python {platform.python_version()}")


def _clock() -> Finding:
    kept, now = synchronised(), rfc3339(now_unix_s())
    if kept is Synchronised.NO:
        return Finding.warning(
            "clock",
            f"{now}, not synchronised",
            "let the system keep it: timedatectl set-ntp true (or install chrony)",
        )
    value = f"{now}, synchronised" if kept is Synchronised.YES else f"{now}; the system does not say who keeps it"
    return Finding.ok("clock", value) if kept is Synchronised.YES else Finding.unknown("clock", value)


def _writable(cache: Path) -> Finding:
    from nightshift.host.files import make_private_directory

    try:
        make_private_directory(cache)
        with tempfile.TemporaryFile(dir=cache) as file:
            file.write(b"x")
    except NightshiftError as error:
        return Finding.of_error("cache", error)
    except OSError as error:
        return Finding.problem(
            "cache",
            f"{cache} cannot be written: {error.strerror}",
            "mend its permissions, or name another place: cache.directory",
            ExitCode.NO_SPACE,
        )
    return Finding.ok("cache", f"{cache} can be written")


def _of_condition(name: str, condition: Condition, code: ExitCode) -> Finding:
    reading = condition.read()
    value = f"{reading.value} ({reading.source})"
    if reading.verdict is Verdict.UNKNOWN:
        return Finding.unknown(name, value)
    return (
        Finding.problem(name, value, reading.reason, code) if reading.verdict is Verdict.NO else Finding.ok(name, value)
    )


def _processor(machine: Machine) -> Iterator[Finding]:
    """What the device profile says that this machine lacks."""
    from edge_client.profiles.choice import choose
    from edge_client.profiles.reading import read_facts
    from edge_client.profiles.settings import settings_for
    from edge_client.profiles.shipped import load_profiles

    facts = read_facts(machine.files.root)
    profile = choose(facts, load_profiles()).profile
    if profile is None:
        yield Finding.warning(
            "profile", "no device profile fits this machine", "the defaults hold; see: edge-client profile detect"
        )
        return
    yield Finding.ok("profile", profile.name)
    for lack in settings_for(profile, facts).shortcomings:
        yield Finding.warning(
            "processor and system", f"{lack.what}: {lack.consequence}", lack.remedy or "nothing to do"
        )
