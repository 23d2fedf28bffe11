"""`edge-client join`."""

from __future__ import annotations

import click

from edge_client.cli.options import Call, device_command


@click.command(
    epilog="Example: edge-client join nightshift1AbCd… --name kitchen-pi",
    short_help="Take part, with a token from an operator.",
)
@click.argument("token")
@click.option("--name", default="", help="A name for people; the operator sees it.")
@device_command
def join(call: Call, token: str, name: str) -> None:
    """Join a coordinator with the TOKEN that its operator gave.

    The private key is made on this device and stays here. Joining the same
    coordinator again changes nothing.
    """
    from edge_client.agent.joining import first_check_in
    from edge_client.agent.joining import join as join_coordinator
    from edge_client.service.platforms import require_supported
    from nightshift.protocol.readable_ids import readable_id

    require_supported()
    joined = join_coordinator(call.home, token, name)
    if joined.new:
        first_check_in(call.home, call.configuration())
    device = joined.identity.device_id
    value = {
        "device_id": device.hex(),
        "name": joined.membership.device_name,
        "coordinator": joined.membership.device_address,
        "new": joined.new,
    }
    verb = "joined" if joined.new else "already joined"
    call.emit(value, f"{verb} {joined.membership.device_address}\ndevice id {readable_id(device)}")
