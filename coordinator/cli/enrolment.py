"""`coordinator token` and `coordinator device`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from coordinator.cli.api import Api, admin_api, pages
from coordinator.cli.command import duration_s, json_option
from coordinator.cli.tables import details, table
from nightshift.host.console import emit, note
from nightshift.host.wording import number_of

if TYPE_CHECKING:
    from nightshift.admin.v1 import admin_pb2

_DEVICE_COLUMNS = (
    "device_id",
    "name",
    "state",
    "last_seen",
    "last_contribution",
    "certificate_days",
    "suspicion",
    "client_version",
)


@click.group()
def token() -> None:
    """Join tokens: what a person needs to add a device."""


@token.command("create", epilog="Example: coordinator token create --uses 20 --ttl 7d")
@click.option(
    "--uses", type=click.IntRange(1, 1_000_000), default=1, show_default=True, help="Devices that may use it."
)
@click.option("--ttl", default="24h", show_default=True, help="How long it is valid: 90s, 30m, 24h, 7d.")
@json_option
@click.pass_context
def create_token(context: click.Context, uses: int, ttl: str, as_json: bool) -> None:
    """Make a token and print it; it cannot be shown again."""
    from coordinator.admin import enrolment_verbs as verbs
    from coordinator.admin.messages import to_record
    from nightshift.admin.v1 import admin_pb2 as pb

    request = pb.CreateTokenRequest(uses=uses, ttl_s=duration_s(ttl))
    with admin_api(context) as api:
        result = to_record(api.call(verbs.create_token, request))
    emit(result, as_json=as_json, text=result["token"])
    if not as_json:
        note(
            f"token {result['token_id']}: {number_of(uses, 'use')}, until {result['expires']}; "
            "on the device: edge-client join TOKEN"
        )


@token.command("list", epilog="Example: coordinator token list --json")
@json_option
@click.pass_context
def list_tokens(context: click.Context, as_json: bool) -> None:
    """Show all tokens, without their secrets."""
    from coordinator.admin import enrolment_verbs as verbs
    from nightshift.admin.v1 import admin_pb2 as pb

    with admin_api(context) as api:
        rows = pages(api, verbs.list_tokens, pb.ListTokensRequest(), "tokens")
    columns = ("token_id", "state", "uses", "uses_allowed", "expires")
    emit(
        {"tokens": rows},
        as_json=as_json,
        text=table(rows, columns, empty="no tokens; make one: coordinator token create"),
    )


@token.command("revoke", epilog="Example: coordinator token revoke 1f3a9c20")
@click.argument("token_id")
@json_option
@click.pass_context
def revoke_token(context: click.Context, token_id: str, as_json: bool) -> None:
    """Let nobody else join with a token; devices that joined stay."""
    from coordinator.admin import enrolment_verbs as verbs
    from coordinator.admin.messages import to_record
    from nightshift.admin.v1 import admin_pb2 as pb

    with admin_api(context) as api:
        result = to_record(api.call(verbs.revoke_token, pb.RevokeTokenRequest(token_id=token_id)).token)
    emit(result, as_json=as_json, text=f"token {token_id} is revoked")


@click.group()
def device() -> None:
    """Enrolled devices."""


@device.command("list", epilog="Example: coordinator device list")
@json_option
@click.pass_context
def list_devices(context: click.Context, as_json: bool) -> None:
    """Show all devices."""
    from coordinator.admin import enrolment_verbs as verbs
    from nightshift.admin.v1 import admin_pb2 as pb

    with admin_api(context) as api:
        rows = pages(api, verbs.list_devices, pb.ListDevicesRequest(), "devices")
    shown = [{**row, "device_id": row["device_id"][:16]} for row in rows]
    emit({"devices": rows}, as_json=as_json, text=table(shown, _DEVICE_COLUMNS, empty="no devices have joined"))


@device.command("show", epilog="Example: coordinator device show 3f9c21d0")
@click.argument("device_id")
@json_option
@click.pass_context
def show_device(context: click.Context, device_id: str, as_json: bool) -> None:
    """Show one device, named by the first digits of its id."""
    from coordinator.admin.messages import to_record

    with admin_api(context) as api:
        result = to_record(_found(api, device_id))
    emit(result, as_json=as_json, text=details(result))


@device.command("revoke", epilog='Example: coordinator device revoke 3f9c21d0 --reason "lost on a train"')
@click.argument("device_id")
@click.option("--reason", default="", help="Logged for all devices to see.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@click.pass_context
def revoke_device(context: click.Context, device_id: str, reason: str, yes: bool, as_json: bool) -> None:
    """Take a device's right to take part, for good."""
    from coordinator.admin import enrolment_verbs as verbs
    from coordinator.admin.messages import to_record
    from nightshift.admin.v1 import admin_pb2 as pb

    with admin_api(context) as api:
        found = _found(api, device_id)
        if not yes:
            click.confirm(f"revoke device {found.device_id[:16]} ({found.name!r}) for good?", abort=True, err=True)
        request = pb.RevokeDeviceRequest(device_id=found.device_id, reason=reason)
        result = to_record(api.call(verbs.revoke_device, request).device)
    emit(result, as_json=as_json, text=f"device {result['device_id'][:16]} is revoked")


@device.command("clear", epilog="Example: coordinator device clear 3f9c21d0")
@click.argument("device_id")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@click.pass_context
def clear_device(context: click.Context, device_id: str, yes: bool, as_json: bool) -> None:
    """Let a device that is held take part again, once it is certain that it exists only once.

    A device is held when two copies of it have checked in: a cloned disk image,
    a stolen key, or a backup that was restored. Where a copy may still be about,
    revoke the device instead and let it join with a new key.
    """
    from coordinator.admin import enrolment_verbs as verbs
    from coordinator.admin.messages import to_record
    from nightshift.admin.v1 import admin_pb2 as pb

    with admin_api(context) as api:
        found = _found(api, device_id)
        if not yes:
            click.confirm(f"does device {found.device_id[:16]} ({found.name!r}) exist only once?", abort=True, err=True)
        request = pb.ClearDeviceRequest(device_id=found.device_id)
        result = to_record(api.call(verbs.clear_device, request).device)
    emit(result, as_json=as_json, text=f"device {result['device_id'][:16]} is {result['state']}")


@device.command("acquit", epilog="Example: coordinator device acquit 3f9c21d0")
@click.argument("device_id")
@json_option
@click.pass_context
def acquit_device(context: click.Context, device_id: str, as_json: bool) -> None:
    """Forget what a device is suspected of, and end its quarantine.

    A device is quarantined when cohorts failed wherever it was, or when more
    committee members could not use its shares than may be liars. Its contributions count again
    from the next round on; what happens from now on counts against it as against any other.
    """
    from coordinator.admin import enrolment_verbs as verbs
    from coordinator.admin.messages import to_record
    from nightshift.admin.v1 import admin_pb2 as pb

    with admin_api(context) as api:
        request = pb.AcquitDeviceRequest(device_id=device_id)
        result = to_record(api.call(verbs.acquit_device, request).device)
    emit(result, as_json=as_json, text=f"device {result['device_id'][:16]} is suspected of nothing")


def _found(api: Api, device_id: str) -> admin_pb2.Device:
    from coordinator.admin import enrolment_verbs as verbs
    from nightshift.admin.v1 import admin_pb2 as pb

    return api.call(verbs.get_device, pb.GetDeviceRequest(device_id=device_id)).device


GROUPS = (token, device)
