"""All checks, in the order in which they build on each other."""

from __future__ import annotations

from collections.abc import Iterator

from coordinator.configuration import read_configuration
from coordinator.doctor.keys import check_authority, check_key_files
from coordinator.doctor.network import check_listeners, check_names
from coordinator.doctor.stores import check_database, check_disk, check_objects
from coordinator.enrolment.authority import Authority
from coordinator.home import Home
from nightshift.host.clock import Synchronised, now_unix_s, synchronised
from nightshift.host.findings import Finding
from nightshift.protocol.errors import NightshiftError
from nightshift.protocol.times import rfc3339


def check_up(home: Home) -> Iterator[Finding]:
    """Look at everything that can be looked at; what a failed check makes impossible is left out."""
    yield _clock()
    try:
        configuration = read_configuration(home)
    except NightshiftError as error:
        yield Finding.of_error("configuration", error)
        return
    yield Finding.ok("configuration", str(home.configuration_file))
    yield from check_key_files(home.keys_directory)
    yield check_disk(home.directory)
    try:
        authority = Authority.load(home.keys_directory)
    except NightshiftError as error:
        yield Finding.of_error("authority", error)
        return
    yield from check_authority(authority)
    yield from check_names(configuration, authority)
    yield from check_database(home, configuration, authority)
    yield check_objects(home, configuration)
    yield from check_listeners(home, configuration, authority)


def _clock() -> Finding:
    kept, now = synchronised(), rfc3339(now_unix_s())
    if kept is Synchronised.YES:
        return Finding.ok("clock", f"{now}, synchronised")
    if kept is Synchronised.UNKNOWN:
        return Finding.unknown("clock", f"{now}; the system does not say who keeps it")
    return Finding.warning(
        "clock",
        f"{now}, not synchronised; deadlines and certificates are judged by it",
        "let the system keep it: timedatectl set-ntp true (or install chrony)",
    )
