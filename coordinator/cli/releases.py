"""`coordinator release`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from coordinator.cli.api import admin_api, pages
from coordinator.cli.command import details, json_option, table
from nightshift.host.console import emit
from nightshift.protocol.errors import UsageError


@click.group()
def release() -> None:
    """Releases: published adapters."""


@release.command("list")
@click.option("--task", default="", help="Only of this task.")
@json_option
@click.pass_context
def list_releases(context: click.Context, task: str, as_json: bool) -> None:
    """Show all releases."""
    from coordinator.admin import learning_verbs as verbs
    from nightshift.admin.v1 import admin_pb2 as pb

    with admin_api(context) as api:
        rows = pages(api, verbs.list_releases, pb.ListReleasesRequest(task=task), "releases")
    shown = [{**row, "release_id": row["release_id"][:16]} for row in rows]
    columns = ("task", "number", "release_id", "contributors", "published")
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


def _require_whole(sha256: str, data: bytes) -> None:
    import hashlib

    from nightshift.protocol.errors import HashMismatchError

    if hashlib.sha256(data).hexdigest() != sha256:
        raise HashMismatchError("the adapter does not have the hash that its release states; nothing was written")


GROUPS = (release,)
