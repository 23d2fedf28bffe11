"""What devices serve: whether its metadata can be signed, and how long it lasts."""

from __future__ import annotations

from collections.abc import Iterator

from coordinator.home import Home
from coordinator.releases.freshness import ROOT_WARNING_DAYS
from coordinator.releases.release_keys import ReleaseKeys
from coordinator.releases.repository import current_keys, newest_versions
from coordinator.storage.database import Database
from nightshift.host.clock import now_unix_s
from nightshift.host.findings import Finding
from nightshift.protocol.errors import ExitCode
from nightshift.protocol.targets import Role
from nightshift.protocol.times import rfc3339

_DAY_S = 86_400
_BY_THE_ROOT = (Role.ROOT, Role.TARGETS)


def check_release_metadata(home: Home, database: Database) -> Iterator[Finding]:
    """One line for the keys of the online roles, one for the root's, one for what ends."""
    keys, now = ReleaseKeys(home.keys_directory), now_unix_s()
    with database.reading() as session:
        chosen = current_keys(session)
        ends = {Role(row.role): row.expires_unix_s for row in newest_versions(session)}
    absent = [role for role, key in chosen.online.items() if not keys.signers(role, [key.keyid])]
    if absent:
        yield Finding.problem(
            "release keys",
            f"no key here for {', '.join(absent)}: nothing new can be served",
            f"restore {keys.online_directory} from a backup, or: coordinator keys rotate {' '.join(absent)}",
            ExitCode.USAGE,
        )
    else:
        yield Finding.ok("release keys", "one for each online role")
    if keys.signers(Role.ROOT, chosen.root_ids):
        yield Finding.warning(
            "release root keys",
            "in the keys directory",
            "put them away once everything works: coordinator keys offline DIRECTORY",
        )
    else:
        yield Finding.ok("release root keys", "offline")
    yield _ends(ends, now)


def _ends(ends: dict[Role, int], now_unix_s: int) -> Finding:
    first = min(ends, key=ends.__getitem__)
    if ends[first] < now_unix_s:
        fix = (
            "sign the next root: coordinator keys rotate --to FILE"
            if first in _BY_THE_ROOT
            else "start it, it signs by itself: coordinator serve"
        )
        value = f"{first} ended {rfc3339(ends[first])}: devices adopt nothing"
        return Finding.problem("release metadata", value, fix, ExitCode.VERIFICATION_FAILED)
    days = (min(ends[role] for role in _BY_THE_ROOT) - now_unix_s) // _DAY_S
    value = f"{first} until {rfc3339(ends[first])}, the root for {days} days"
    if days < ROOT_WARNING_DAYS:
        return Finding.warning("release metadata", value, "sign the next root: coordinator keys rotate --to FILE")
    return Finding.ok("release metadata", value)
