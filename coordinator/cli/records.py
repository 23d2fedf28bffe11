"""`coordinator log` and `coordinator audit`: what was said to devices, and who changed what."""

from __future__ import annotations

import json
from datetime import datetime

import click

from coordinator.cli.api import admin_api, pages
from coordinator.cli.command import json_option, table
from nightshift.host.console import emit
from nightshift.protocol.errors import UsageError


@click.group("log")
def log_group() -> None:
    """The transparency log."""


@log_group.command("verify")
@json_option
@click.pass_context
def verify_log(context: click.Context, as_json: bool) -> None:
    """Hash every entry again and print size and root."""
    from coordinator.admin import system_verbs as verbs
    from coordinator.admin.messages import to_record
    from nightshift.admin.v1 import admin_pb2 as pb

    with admin_api(context) as api:
        result = to_record(api.call(verbs.verify_log, pb.VerifyLogRequest()))
    text = f"{result['size']} entries, root {result['root']}: every entry has its hash"
    emit(result, as_json=as_json, text=text)


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
