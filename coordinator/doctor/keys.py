"""Key files and the certificates of the authority."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cryptography import x509

from coordinator.admin.authority import ADMIN_AUTHORITY, AdminAuthority
from coordinator.enrolment.authority import INTERMEDIATE_WARNING_DAYS, SERVER_RENEWAL, Authority
from coordinator.enrolment.ceremony import root_key_is_here
from nightshift.host.clock import now_unix_s
from nightshift.host.findings import Finding
from nightshift.protocol.chains import not_after_unix_s
from nightshift.protocol.errors import ExitCode, NightshiftError
from nightshift.protocol.times import rfc3339

_DAY_S = 86_400
_REPLACED_BY = {
    "root": "every device must join again; make a new coordinator and give out tokens",
    "intermediate": "make the next one: coordinator ca renew-intermediate, or ca request if the root's key is offline",
    "signing": "nothing: its end is not judged",
    "server": "make a new one: coordinator ca issue-server",
}


def check_key_files(keys: Path) -> Iterator[Finding]:
    """Whether anybody else can read a private key."""
    if not keys.is_dir():
        yield Finding.problem("keys", f"{keys} is missing", "restore it from a backup", ExitCode.USAGE)
        return
    files = [path for path in sorted(keys.rglob("*")) if path.is_file() and path.suffix != ".crt"]
    open_files = [path for path in (keys, *files) if path.stat().st_mode & 0o077]
    for path in open_files:
        mode = "700" if path.is_dir() else "600"
        yield Finding.problem(
            "keys",
            f"{path} has mode {path.stat().st_mode & 0o777:03o}: others can reach it",
            f"chmod {mode} {path}, and replace a key that somebody may have read",
            ExitCode.USAGE,
        )
    if not open_files:
        yield Finding.ok("keys", f"{len(files)} private files, for their owner only")


def check_authority(authority: Authority) -> Iterator[Finding]:
    """How long the certificates last, and where the root's key is."""
    for role, certificate in authority.certificates().items():
        yield _certificate(role, certificate)
    try:
        operators = AdminAuthority.load(authority.directory)
        yield _certificate("operators", operators.issuer.certificate)
    except NightshiftError as error:
        yield Finding.problem(
            "certificate operators",
            str(error),
            f"restore {ADMIN_AUTHORITY} from a backup of the keys; until then no operator can call",
            error.exit_code,
        )
    if root_key_is_here(authority.directory):
        yield Finding.warning(
            "root key", "in the keys directory", "put it away once everything works: coordinator ca offline FILE"
        )
    else:
        yield Finding.ok("root key", "offline")


def _certificate(role: str, certificate: x509.Certificate) -> Finding:
    name = f"certificate {role}"
    ends = not_after_unix_s(certificate)
    days = (ends - now_unix_s()) // _DAY_S
    value = f"until {rfc3339(ends)}, {days} days"
    fix = _REPLACED_BY.get(role, "make a new coordinator's directory and move what is needed")
    if role == "signing":
        return Finding.ok(name, value)
    if days < 0:
        return Finding.problem(name, f"ended {rfc3339(ends)}", fix, ExitCode.REVOKED)
    soon = SERVER_RENEWAL.days // 2 if role == "server" else INTERMEDIATE_WARNING_DAYS
    return Finding.warning(name, value, fix) if days < soon else Finding.ok(name, value)
