"""`edge-client log`: the coordinator's transparency log."""

from __future__ import annotations

import click

from edge_client.cli.options import Call, device_command


@click.group(short_help="The coordinator's transparency log.")
def log() -> None:
    """The append-only log of what the coordinator said; this device remembers how far it has seen it."""


@log.command(epilog="Example: edge-client log verify")
@device_command
def verify(call: Call) -> None:
    """Ask for the log as it is now, and prove that it only grew since it was seen last."""
    from edge_client.agent.check_in import check_in
    from edge_client.agent.session_opening import open_session
    from nightshift.protocol.errors import VerificationError

    with open_session(call.home, call.configuration()) as session:
        before = session.log_size
        try:
            checked = check_in(session, no_plan=True)
        except VerificationError as error:
            session.report(error)
            raise
    head = checked.view.head
    call.emit(
        {"before": before, "size": head.size, "root": head.root.hex(), "consistent": True},
        f"the log has {head.size} entries and extends the {before} seen before; root {head.root.hex()}",
    )
