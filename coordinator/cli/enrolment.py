"""`coordinator token` and `coordinator device`."""

from __future__ import annotations

import click

from coordinator import audit
from coordinator.cli.command import coordinator, details, duration_s, json_option, table
from nightshift.host.clock import now_unix_s
from nightshift.host.console import emit, note
from nightshift.host.tokens import JoinToken
from nightshift.protocol.times import rfc3339


@click.group()
def token() -> None:
    """Join tokens: what a person needs to add a device."""


@token.command("create")
@click.option(
    "--uses", type=click.IntRange(1, 1_000_000), default=1, show_default=True, help="Devices that may use it."
)
@click.option("--ttl", default="24h", show_default=True, help="How long it is valid: 90s, 30m, 24h, 7d.")
@json_option
@click.pass_context
def create_token(context: click.Context, uses: int, ttl: str, as_json: bool) -> None:
    """Make a token and print it; it cannot be shown again."""
    from coordinator.enrolment import tokens

    ttl_s = duration_s(ttl)
    with coordinator(context) as deployment:
        with deployment.database.transaction() as session:
            row, secret = tokens.create_token(session, uses=uses, ttl_s=ttl_s, now_unix_s=now_unix_s())
            audit.record(session, "token create", row.token_id, uses=uses, expires_unix_s=row.expires_unix_s)
        configuration = deployment.configuration
        word = JoinToken(
            root_der=deployment.authority.root_der,
            join_address=configuration.join_address(),
            device_address=configuration.device_address(),
            secret=secret,
        ).encode()
    expires = rfc3339(row.expires_unix_s)
    emit(
        {"token": word, "token_id": row.token_id, "uses_allowed": uses, "expires": expires}, as_json=as_json, text=word
    )
    if not as_json:
        note(f"token {row.token_id}: {uses} uses, until {expires}; on the device: edge-client join TOKEN")


@token.command("list")
@json_option
@click.pass_context
def list_tokens(context: click.Context, as_json: bool) -> None:
    """Show all tokens, without their secrets."""
    from coordinator.admin.records import token_record
    from coordinator.enrolment import tokens

    with coordinator(context) as deployment, deployment.database.reading() as session:
        rows = [token_record(row, now_unix_s()) for row in tokens.list_tokens(session)]
    columns = ("token_id", "state", "uses", "uses_allowed", "expires")
    emit(
        {"tokens": rows},
        as_json=as_json,
        text=table(rows, columns, empty="no tokens; make one: coordinator token create"),
    )


@token.command("revoke")
@click.argument("token_id")
@json_option
@click.pass_context
def revoke_token(context: click.Context, token_id: str, as_json: bool) -> None:
    """Let nobody else join with a token; devices that joined stay."""
    from coordinator.admin.records import token_record
    from coordinator.enrolment import tokens

    with coordinator(context) as deployment, deployment.database.transaction() as session:
        row = tokens.revoke_token(session, token_id, now_unix_s())
        audit.record(session, "token revoke", row.token_id)
        result = token_record(row, now_unix_s())
    emit(result, as_json=as_json, text=f"token {token_id} is revoked")


@click.group()
def device() -> None:
    """Enrolled devices."""


@device.command("list")
@json_option
@click.pass_context
def list_devices(context: click.Context, as_json: bool) -> None:
    """Show all devices."""
    from coordinator.admin.records import device_record
    from coordinator.enrolment import devices
    from coordinator.rounds.standing import suspicion

    with coordinator(context) as deployment, deployment.database.reading() as session:
        now = now_unix_s()
        found = suspicion(session, now)
        rows = [device_record(session, row, now, found) for row in devices.list_devices(session)]
    shown = [{**row, "device_id": row["device_id"][:16]} for row in rows]
    columns = (
        "device_id",
        "name",
        "state",
        "last_seen",
        "last_contribution",
        "certificate_days",
        "suspicion",
        "client_version",
    )
    emit({"devices": rows}, as_json=as_json, text=table(shown, columns, empty="no devices have joined"))


@device.command("show")
@click.argument("device_id")
@json_option
@click.pass_context
def show_device(context: click.Context, device_id: str, as_json: bool) -> None:
    """Show one device, named by the first digits of its id."""
    from coordinator.admin.records import device_record
    from coordinator.enrolment import devices

    with coordinator(context) as deployment, deployment.database.reading() as session:
        result = device_record(session, devices.find_device(session, device_id), now_unix_s())
    emit(result, as_json=as_json, text=details(result))


@device.command("revoke")
@click.argument("device_id")
@click.option("--reason", default="", help="Logged for all devices to see.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@click.pass_context
def revoke_device(context: click.Context, device_id: str, reason: str, yes: bool, as_json: bool) -> None:
    """Take a device's right to take part, for good."""
    from coordinator.admin.records import device_record
    from coordinator.enrolment import devices

    with coordinator(context) as deployment:
        with deployment.database.reading() as session:
            row = devices.find_device(session, device_id)
        if not yes:
            click.confirm(f"revoke device {row.device_id.hex()[:16]} ({row.name!r}) for good?", abort=True, err=True)
        with deployment.database.transaction() as session:
            row = devices.find_device(session, row.device_id.hex())
            entry = devices.revoke(session, deployment.log, row, reason=reason, now_unix_s=now_unix_s())
            audit.record(session, "device revoke", row.device_id.hex(), reason=entry.reason, number=entry.number)
            result = device_record(session, row, now_unix_s())
    emit(result, as_json=as_json, text=f"device {result['device_id'][:16]} is revoked")


@device.command("clear")
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
    from coordinator.admin.records import device_record
    from coordinator.enrolment import clones, devices

    with coordinator(context) as deployment:
        with deployment.database.reading() as session:
            row = devices.find_device(session, device_id)
        if not yes:
            click.confirm(
                f"does device {row.device_id.hex()[:16]} ({row.name!r}) exist only once?", abort=True, err=True
            )
        with deployment.database.transaction() as session:
            row = devices.find_device(session, row.device_id.hex())
            clones.clear(session, row)
            audit.record(session, "device clear", row.device_id.hex())
            result = device_record(session, row, now_unix_s())
    emit(result, as_json=as_json, text=f"device {result['device_id'][:16]} is {result['state']}")


@device.command("acquit")
@click.argument("device_id")
@json_option
@click.pass_context
def acquit_device(context: click.Context, device_id: str, as_json: bool) -> None:
    """Forget what a device is suspected of, and end its quarantine.

    A device is quarantined when cohorts failed wherever it was, or when more
    committee members could not use its shares than may be liars. Its contributions count again
    from the next round on; what happens from now on counts against it as against any other.
    """
    from coordinator.admin.records import device_record
    from coordinator.enrolment import devices
    from coordinator.rounds import standing

    with coordinator(context) as deployment, deployment.database.transaction() as session:
        row = devices.find_device(session, device_id)
        standing.clear(row, now_unix_s())
        audit.record(session, "device acquit", row.device_id.hex())
        session.flush()
        result = device_record(session, row, now_unix_s())
    emit(result, as_json=as_json, text=f"device {result['device_id'][:16]} is suspected of nothing")


GROUPS = (token, device)
