"""`edge-client leave`."""

from __future__ import annotations

import click

from edge_client.cli.options import Call, device_command


@click.command(epilog="Example: edge-client leave, then edge-client join TOKEN", short_help="Take part no more.")
@click.option("--wipe", is_flag=True, help="Also erase the ledger, the list of data sources and all adapters.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@device_command
def leave(call: Call, *, wipe: bool, yes: bool) -> None:
    """Leave the coordinator and erase this device's key; texts are never touched.

    Joining again makes a new key: the way on for a device that was revoked, or
    whose key is in use twice. Chat and the local API go on with the models that
    are here.

    What was contributed before cannot be withdrawn: it went into sums over many devices, and those
    into adapters. Nobody can take one device's part out again, and nobody can tell which it was.
    """
    from edge_client.agent.leaving import leave as leave_coordinator

    if not yes:
        wiping = ", and with it the ledger, the list of data sources and all adapters" if wipe else ""
        click.echo("past sums that hold this device's part cannot be withdrawn, whatever is erased here", err=True)
        click.confirm(f"erase this device's key{wiping}, and leave its coordinator?", abort=True, err=True)
    device = leave_coordinator(call.home, wipe=wipe)
    call.emit(
        {"device_id": device, "wiped": wipe, "past_sums_withdrawn": False},
        f"left; device {device[:16]} is no more. Its operator may revoke it: coordinator device revoke {device[:16]}\n"
        "sums that it contributed to stay as they are: one device's part cannot be taken out again",
    )
