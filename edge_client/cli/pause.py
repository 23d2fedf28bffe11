"""`edge-client pause` and `edge-client resume`."""

from __future__ import annotations

import click

from edge_client.cli.options import Call, device_command


@click.command(epilog="Example: edge-client pause 3d", short_help="Leave this machine alone for a while.")
@click.argument("duration", required=False, metavar="[DURATION]")
@device_command
def pause(call: Call, duration: str | None) -> None:
    """Let no pass run for a DURATION (45m, 12h, 3d, 2w), or until `edge-client resume`.

    Training that runs now ends at a checkpoint. Chat and the local API go on; so does `edge-client run --now`.
    """
    from edge_client.agent.pausing import parse_span
    from edge_client.agent.pausing import pause as pause_device
    from edge_client.conditions.moment import FOREVER_UNIX_S
    from edge_client.identity import require_joined
    from nightshift.protocol.times import rfc3339

    span_s = None if duration is None else parse_span(duration)
    require_joined(call.home)
    until = pause_device(call.home, span_s)
    moment = None if until >= FOREVER_UNIX_S else rfc3339(until)
    text = f"paused until {moment}" if moment else "paused until told otherwise"
    call.emit({"paused": True, "until": moment}, f"{text}; to go on before: edge-client resume")


@click.command(epilog="Example: edge-client resume", short_help="End a pause.")
@device_command
def resume(call: Call) -> None:
    """End a pause; the next pass runs when its timer and conditions allow."""
    from edge_client.agent.pausing import resume as resume_device
    from edge_client.identity import require_joined

    require_joined(call.home)
    ended = resume_device(call.home)
    call.emit({"paused": False, "was_paused": ended}, "no longer paused" if ended else "there was no pause")
