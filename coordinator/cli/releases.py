"""`coordinator release`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from coordinator.cli.api import admin_api, pages
from coordinator.cli.command import json_option
from coordinator.cli.tables import details, table
from nightshift.host.console import emit
from nightshift.protocol.errors import UsageError


@click.group()
def release() -> None:
    """Releases: published adapters."""


@release.command("list", epilog="Example: coordinator release list --task commands")
@click.option("--task", default="", help="Only of this task.")
@json_option
@click.pass_context
def list_releases(context: click.Context, task: str, as_json: bool) -> None:
    """Show all releases: which one devices serve, and from which the next round trains on.

    A release is a candidate until the devices of the next round have measured it on their own text.
    """
    from coordinator.admin import learning_verbs as verbs
    from nightshift.admin.v1 import admin_pb2 as pb

    with admin_api(context) as api:
        rows = pages(api, verbs.list_releases, pb.ListReleasesRequest(task=task), "releases")
    shown = [{**row, "release_id": row["release_id"][:16], "standing": _standing(row)} for row in rows]
    columns = ("task", "number", "release_id", "contributors", "published", "standing")
    emit(
        {"releases": rows},
        as_json=as_json,
        text=table(shown, columns, empty="no releases; see: coordinator task create"),
    )


@release.command("show", epilog="Example: coordinator release show commands/7")
@click.argument("name")
@json_option
@click.pass_context
def show_release(context: click.Context, name: str, as_json: bool) -> None:
    """Show one release, named by TASK/NUMBER or by the first digits of its id."""
    from coordinator.admin import learning_verbs as verbs
    from coordinator.admin.messages import to_record
    from nightshift.admin.v1 import admin_pb2 as pb

    with admin_api(context) as api:
        result = to_record(api.call(verbs.get_release, pb.GetReleaseRequest(name=name)).release)
    emit(result, as_json=as_json, text=details(result))


@release.command("promote", epilog='Example: coordinator release promote commands/7 --reason "good in our own tests"')
@click.argument("name")
@click.option("--reason", required=True, help="Logged for all devices to see.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@click.pass_context
def promote_release(context: click.Context, name: str, reason: str, yes: bool, as_json: bool) -> None:
    """Have devices serve the release NAME (TASK/NUMBER), whatever the gate said.

    A device that finds it worse on its own text keeps what it has.
    """
    from coordinator.admin import release_verbs as verbs
    from coordinator.admin.messages import to_record
    from nightshift.admin.v1 import admin_pb2 as pb

    if not yes:
        click.confirm(f"have every device serve {name}?", abort=True, err=True)
    with admin_api(context) as api:
        result = to_record(api.call(verbs.promote_release, pb.PromoteReleaseRequest(name=name, reason=reason)).decision)
    emit(result, as_json=as_json, text=_decided(result))


@release.command("rollback", epilog='Example: coordinator release rollback commands/5 --reason "7 answers nonsense"')
@click.argument("name")
@click.option("--reason", required=True, help="Logged for all devices to see.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@click.pass_context
def roll_back_release(context: click.Context, name: str, reason: str, yes: bool, as_json: bool) -> None:
    """Have devices serve the earlier release NAME (TASK/NUMBER) again, and learning start again from it.

    Devices follow without comparing, but for those whose owner chose an adapter. What a round that is under way
    learns from a later release is not used.
    """
    from coordinator.admin import release_verbs as verbs
    from coordinator.admin.messages import to_record
    from nightshift.admin.v1 import admin_pb2 as pb

    if not yes:
        click.confirm(f"go back to {name}, and discard what was learned since?", abort=True, err=True)
    with admin_api(context) as api:
        result = to_record(
            api.call(verbs.roll_back_release, pb.RollBackReleaseRequest(name=name, reason=reason)).decision
        )
    emit(result, as_json=as_json, text=_decided(result))


@release.command("decisions", epilog="Example: coordinator release decisions commands")
@click.argument("task")
@json_option
@click.pass_context
def list_decisions(context: click.Context, task: str, as_json: bool) -> None:
    """Show what was decided about the releases of TASK, by the gate or by an operator, and why."""
    from coordinator.admin import release_verbs as verbs
    from nightshift.admin.v1 import admin_pb2 as pb

    with admin_api(context) as api:
        rows = pages(api, verbs.list_decisions, pb.ListDecisionsRequest(task=task), "decisions")
    columns = ("number", "decided", "kind", "judged", "served", "next_parent", "reason")
    emit({"decisions": rows}, as_json=as_json, text=table(rows, columns, empty="nothing was decided yet"))


@release.command("export", epilog="Example: coordinator release export commands/7 -o adapter.safetensors")
@click.argument("name")
@click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False), required=True, help="A new file.")
@json_option
@click.pass_context
def export_release(context: click.Context, name: str, output: Path, as_json: bool) -> None:
    """Write the adapter of a release, named by TASK/NUMBER, as safetensors."""
    from coordinator.admin import learning_verbs as verbs
    from coordinator.admin.messages import to_record
    from nightshift.admin.v1 import admin_pb2 as pb
    from nightshift.host.files import write_atomic

    if output.exists():
        raise UsageError(f"{output} exists already; name a new file")
    with admin_api(context) as api:
        replies: Iterator[pb.ExportReleaseResponse] = api.call(verbs.export_release, pb.ExportReleaseRequest(name=name))
        record = to_record(next(replies).release)
        data = b"".join(reply.data for reply in replies)
    _require_whole(record["adapter_sha256"], data)
    result = {**record, "output": str(output), "size_bytes": len(data)}
    write_atomic(output, data, mode=0o644)
    emit(result, as_json=as_json, text=f"{output}: {len(data)} bytes, release {result['task']}/{result['number']}")


def _standing(row: dict[str, Any]) -> str:
    if row["served"]:
        return "served"
    if row["next_parent"]:
        return "restored" if row["restores"] is not None else "candidate"
    return ""


def _decided(decision: dict[str, Any]) -> str:
    return (
        f"release {decision['task']}/{decision['served']} is served from now on; "
        f"the next round trains on from {decision['task']}/{decision['next_parent']}"
    )


def _require_whole(sha256: str, data: bytes) -> None:
    import hashlib

    from nightshift.protocol.errors import HashMismatchError

    if hashlib.sha256(data).hexdigest() != sha256:
        raise HashMismatchError("the adapter does not have the hash that its release states; nothing was written")


GROUPS = (release,)
