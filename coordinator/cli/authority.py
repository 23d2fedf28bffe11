"""`coordinator ca`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from coordinator import audit
from coordinator.cli.command import coordinator, json_option
from coordinator.cli.tables import table
from nightshift.host.clock import now_unix_s
from nightshift.host.console import emit
from nightshift.host.files import write_atomic
from nightshift.protocol.errors import UsageError
from nightshift.protocol.times import rfc3339

_FILE = click.Path(path_type=Path, dir_okay=False)
_RESTART = "restart `coordinator serve` to use it; devices need to do nothing"


@click.group(short_help="The certificate authority.")
def ca() -> None:
    """The certificate authority: the root that devices trust, and the intermediate that issues."""


@ca.command("show", short_help="Show the certificates and when they end.", epilog="Example: coordinator ca show")
@json_option
@click.pass_context
def show(context: click.Context, as_json: bool) -> None:
    """Show the certificates, how long they last, and whether the root's key is here."""
    from coordinator.enrolment.ceremony import root_key_is_here

    with coordinator(context) as deployment:
        authority = deployment.authority
        records = [_record(role, certificate) for role, certificate in authority.certificates().items()]
        here = root_key_is_here(authority.directory)
    lines = [
        table(records, ("role", "name", "expires", "days"), empty=""),
        f"root fingerprint (SHA-256): {records[0]['sha256']}",
        "the root's key is in the keys directory; take it offline: coordinator ca offline FILE"
        if here
        else "the root's key is offline",
    ]
    emit({"certificates": records, "root_key_here": here}, as_json=as_json, text="\n".join(lines))


@ca.command("export", short_help="Print the root certificate.", epilog="Example: coordinator ca export root.crt")
@click.argument("file", type=_FILE, required=False)
@json_option
@click.pass_context
def export(context: click.Context, file: Path | None, as_json: bool) -> None:
    """Print the root certificate, or write it to FILE. It is public."""
    with coordinator(context) as deployment:
        pem = deployment.authority.root_pem
    if file is not None:
        _write_new(file, pem)
    text = pem.decode("ascii").rstrip() if file is None else f"wrote {file}"
    emit({"root_certificate": pem.decode("ascii"), "file": file and str(file)}, as_json=as_json, text=text)


@ca.command(
    "offline",
    short_help="Move the root's key to a file.",
    epilog="Example: coordinator ca offline /media/stick/root.pem",
)
@click.argument("file", type=_FILE)
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@click.pass_context
def offline(context: click.Context, file: Path, yes: bool, as_json: bool) -> None:
    """Move the root's key to FILE, best on a medium that is then put away.

    Everything goes on without it until the intermediate must be replaced. Keep
    two copies: without the root's key every device must join again one day.
    """
    from coordinator.enrolment import ceremony

    with coordinator(context) as deployment:
        if not yes:
            click.confirm(f"move the root's key to {file} and remove it here?", abort=True, err=True)
        ceremony.take_offline(deployment.home.keys_directory, file.absolute())
        with deployment.database.transaction() as session:
            audit.record(session, "ca offline", str(file))
    emit({"file": str(file)}, as_json=as_json, text=f"the root's key is in {file} and nowhere else; put it away safely")


@ca.command(
    "renew-intermediate", short_help="Make a new intermediate.", epilog="Example: coordinator ca renew-intermediate"
)
@json_option
@click.pass_context
def renew_intermediate(context: click.Context, as_json: bool) -> None:
    """Make a new intermediate, while the root's key is here."""
    from coordinator.enrolment import ceremony

    with coordinator(context) as deployment:
        certificate = ceremony.renew_here(deployment.home.keys_directory, now_unix_s())
        record = _record("intermediate", certificate)
        with deployment.database.transaction() as session:
            audit.record(session, "ca renew-intermediate", record["sha256"])
    emit(record, as_json=as_json, text=f"{record['name']} lasts until {record['expires']}; {_RESTART}")


@ca.command("request", short_help="Ask for the next intermediate.", epilog="Example: coordinator ca request next.csr")
@click.argument("file", type=_FILE)
@json_option
@click.pass_context
def request(context: click.Context, file: Path, as_json: bool) -> None:
    """Write a signing request for the next intermediate to FILE. It is public."""
    from coordinator.enrolment import ceremony

    with coordinator(context) as deployment:
        _write_new(file, ceremony.request(deployment.home.keys_directory))
        with deployment.database.transaction() as session:
            audit.record(session, "ca request", str(file))
    text = f"wrote {file}; where the root's key is: coordinator ca sign-intermediate --root ROOT {file} CERTIFICATE"
    emit({"file": str(file)}, as_json=as_json, text=text)


@ca.command(
    "sign-intermediate",
    short_help="Sign a request with the root's key.",
    epilog="Example: coordinator ca sign-intermediate --root root.pem next.csr next.crt",
)
@click.option("--root", type=_FILE, required=True, help="What `coordinator ca offline` wrote.")
@click.argument("request_file", type=_FILE, metavar="REQUEST")
@click.argument("certificate_file", type=_FILE, metavar="CERTIFICATE")
@json_option
def sign_intermediate(root: Path, request_file: Path, certificate_file: Path, as_json: bool) -> None:
    """Sign REQUEST with the root's key and write CERTIFICATE; needs no coordinator on this machine."""
    from coordinator.enrolment import ceremony

    if not request_file.exists() or request_file.stat().st_size > ceremony.MAX_FILE_BYTES:
        raise UsageError(f"{request_file} is not a signing request; make it with `coordinator ca request`")
    _write_new(certificate_file, ceremony.sign_intermediate(root, request_file.read_bytes(), now_unix_s()))
    text = f"wrote {certificate_file}; where the coordinator is: coordinator ca install {certificate_file}"
    emit({"file": str(certificate_file)}, as_json=as_json, text=text)


@ca.command("install", short_help="Use a signed intermediate.", epilog="Example: coordinator ca install next.crt")
@click.argument("file", type=_FILE)
@json_option
@click.pass_context
def install(context: click.Context, file: Path, as_json: bool) -> None:
    """Take the signed intermediate of FILE in the place of the present one."""
    from coordinator.enrolment import ceremony

    with coordinator(context) as deployment:
        certificate = ceremony.install(deployment.home.keys_directory, file, now_unix_s())
        record = _record("intermediate", certificate)
        with deployment.database.transaction() as session:
            audit.record(session, "ca install", record["sha256"])
    emit(record, as_json=as_json, text=f"{record['name']} lasts until {record['expires']}; {_RESTART}")


@ca.command("issue-server", short_help="Make a new server certificate.", epilog="Example: coordinator ca issue-server")
@json_option
@click.pass_context
def issue_server(context: click.Context, as_json: bool) -> None:
    """Make a new server key and certificate now, for the addresses of coordinator.toml.

    `serve` does it by itself when the addresses change or the certificate ages;
    this is for a server key that somebody else may have seen.
    """
    with coordinator(context) as deployment:
        addresses = deployment.configuration.listen.addresses
        deployment.authority.server_credentials(addresses, now_unix_s(), anew=True)
        record = _record("server", deployment.authority.certificates()["server"])
        with deployment.database.transaction() as session:
            audit.record(session, "ca issue-server", record["sha256"], addresses=addresses)
    text = f"new server certificate for {', '.join(addresses)} until {record['expires']}; a running service takes it up"
    emit(record, as_json=as_json, text=text)


def _record(role: str, certificate: Any) -> dict[str, Any]:
    from cryptography.hazmat.primitives import hashes

    from coordinator.enrolment.issuing import common_name
    from nightshift.protocol.chains import not_after_unix_s

    ends_unix_s = not_after_unix_s(certificate)
    return {
        "role": role,
        "name": common_name(certificate),
        "sha256": certificate.fingerprint(hashes.SHA256()).hex(),
        "expires": rfc3339(ends_unix_s),
        "days": (ends_unix_s - now_unix_s()) // 86_400,
    }


def _write_new(file: Path, data: bytes) -> None:
    if file.exists():
        raise UsageError(f"{file} exists; name a new file")
    write_atomic(file.absolute(), data, mode=0o644)


GROUPS = (ca,)
