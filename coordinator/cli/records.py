"""`coordinator log` and `coordinator audit`: what was said to devices, and who changed what."""

from __future__ import annotations

import json
from datetime import datetime

import click

from coordinator.cli.api import admin_api, pages
from coordinator.cli.command import json_option
from coordinator.cli.tables import table
from nightshift.host.console import emit
from nightshift.host.log_heads import file_or_text
from nightshift.protocol.errors import UsageError


@click.group("log")
def log_group() -> None:
    """The transparency log."""


@log_group.command("verify", epilog="Example: coordinator log verify --head head-of-the-kitchen.txt")
@click.option(
    "--head", "heads", multiple=True, metavar="FILE|TEXT", help="What a device saw, or was kept elsewhere; repeatable."
)
@click.option("--note", is_flag=True, help="Print only the signed checkpoint: to be kept elsewhere, or for a witness.")
@json_option
@click.pass_context
def verify_log(context: click.Context, heads: tuple[str, ...], note: bool, as_json: bool) -> None:
    """Hash every entry again, and compare each with its object in the database.

    Plans, pools, frozen sets, ends, releases, decisions, certificates and revocations must stand in the log where the
    database says, and nothing else may. Exit status 14 if something does not agree.
    """
    from coordinator.admin import system_verbs as verbs
    from coordinator.admin.messages import to_record
    from nightshift.admin.v1 import admin_pb2 as pb

    with admin_api(context) as api:
        request = pb.VerifyLogRequest(heads=[file_or_text(head) for head in heads])
        result = to_record(api.call(verbs.verify_log, request))
    kinds = ", ".join(f"{count} {kind}" for kind, count in result["kinds"].items())
    lines = [
        f"{result['size']} entries, root {result['root']}: every entry has its hash ({kinds})",
        f"{result['objects']} objects of the database stand in it where they should",
        *(f"the head at {size} entries is part of it" for size in result["compared"]),
        f"head {result['short']}",
        f"verifier key {result['verifier_key']}",
    ]
    emit(result, as_json=as_json, text=result["note"].rstrip("\n") if note else "\n".join(lines))


@click.group("audit")
def audit_group() -> None:
    """Who changed what."""


@audit_group.command("list", epilog='Example: coordinator audit list --verb "device revoke" --since 2026-03-01')
@click.option("--since", default="", help="Only from this day or moment on: 2026-03-01, or 2026-03-01T02:15:00Z.")
@click.option("--actor", default="", help='Only by this actor: "admin carol".')
@click.option("--verb", default="", help='Only of this command: "token create".')
@click.option("--limit", type=click.IntRange(0, 1_000_000), default=100, show_default=True, help="Entries; 0 for all.")
@json_option
@click.pass_context
def list_audit(context: click.Context, *, since: str, actor: str, verb: str, limit: int, as_json: bool) -> None:
    """Show changes, newest first: when, by whom, what, and to what."""
    from coordinator.admin import system_verbs as verbs
    from nightshift.admin.v1 import admin_pb2 as pb

    request = pb.ListAuditRequest(actor=actor, verb=verb)
    if since:
        request.since.FromJsonString(_moment(since))
    with admin_api(context) as api:
        rows = pages(api, verbs.list_audit, request, "entries", most=limit)
    entries = [{**row, "detail": json.loads(row["detail"])} for row in rows]
    columns = ("time", "actor", "verb", "subject", "detail")
    emit({"entries": entries}, as_json=as_json, text=table(rows, columns, empty="nothing was changed"))


def _moment(text: str) -> str:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is no time; write 2026-03-01 or 2026-03-01T02:15:00Z") from error
    return found.strftime("%Y-%m-%dT%H:%M:%SZ") if found.tzinfo is None else found.isoformat()


GROUPS = (log_group, audit_group)
