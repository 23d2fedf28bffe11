"""`coordinator admin`: who may operate this coordinator from elsewhere."""

from __future__ import annotations

from pathlib import Path

import click

from coordinator.cli.api import Api, admin_api, pages
from coordinator.cli.command import json_option
from coordinator.cli.tables import table
from nightshift.host.console import emit
from nightshift.protocol.errors import UsageError


@click.group()
def admin() -> None:
    """Operators: certificates for the admin listener."""


@admin.command("issue", epilog="Example: coordinator admin issue carol -o carol.toml")
@click.argument("name")
@click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False), required=True, help="A new file.")
@click.option("--read-only", is_flag=True, help="May ask, and change nothing.")
@click.option("--days", type=click.IntRange(1, 730), default=365, show_default=True, help="How long it lasts.")
@json_option
@click.pass_context
def issue_admin(context: click.Context, *, name: str, output: Path, read_only: bool, days: int, as_json: bool) -> None:
    """Make credentials for an operator: a key, made here, and a certificate for it.

    The file is all that the operator needs: coordinator --credentials FILE status
    """
    with admin_api(context) as api:
        record = issue(api, name, output, role="viewer" if read_only else "operator", days=days)
    emit(
        {**record, "output": str(output)},
        as_json=as_json,
        text=f"wrote {output}: {record['role']} {record['name']}, until {record['expires']}; give it to nobody else",
    )


def issue(api: Api, name: str, output: Path, *, role: str, days: int) -> dict[str, object]:
    """Make a key, have it certified, and write the credentials."""
    from coordinator.admin import admin_verbs as verbs
    from coordinator.admin.credentials import Credentials, new_request
    from coordinator.admin.messages import to_record
    from nightshift.admin.v1 import admin_pb2 as pb

    if output.exists():
        raise UsageError(f"{output} exists; name a new file")
    key, request_der = new_request()
    request = pb.IssueAdminRequest(name=name, role=role, days=days, certificate_request=request_der)
    reply = api.call(verbs.issue_admin, request)
    Credentials.of(reply, key).write(output.absolute())
    return to_record(reply.admin)


@admin.command("list", epilog="Example: coordinator admin list")
@json_option
@click.pass_context
def list_admins(context: click.Context, as_json: bool) -> None:
    """Show all operators' certificates."""
    from coordinator.admin import admin_verbs as verbs
    from nightshift.admin.v1 import admin_pb2 as pb

    with admin_api(context) as api:
        rows = pages(api, verbs.list_admins, pb.ListAdminsRequest(), "admins")
    shown = [{**row, "admin_id": row["admin_id"][:16]} for row in rows]
    columns = ("name", "role", "state", "admin_id", "issued", "expires", "last_seen")
    emit(
        {"admins": rows},
        as_json=as_json,
        text=table(shown, columns, empty="no operators; make one: coordinator admin issue NAME -o FILE"),
    )


@admin.command("revoke", epilog="Example: coordinator admin revoke carol")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@click.pass_context
def revoke_admin(context: click.Context, name: str, yes: bool, as_json: bool) -> None:
    """Let an operator's certificate pass no longer, from the next call on.

    NAME is the operator's, or the first digits of the certificate's id.
    """
    from coordinator.admin import admin_verbs as verbs
    from coordinator.admin.messages import to_record
    from nightshift.admin.v1 import admin_pb2 as pb

    if not yes:
        click.confirm(f"revoke the admin certificate of {name}?", abort=True, err=True)
    with admin_api(context) as api:
        result = to_record(api.call(verbs.revoke_admin, pb.RevokeAdminRequest(name=name)).admin)
    emit(result, as_json=as_json, text=f"the admin certificate of {result['name']} is revoked")


GROUPS = (admin,)
