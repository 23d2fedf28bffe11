"""`edge-client ledger`."""

from __future__ import annotations

import click

from edge_client.cli.options import Call, device_command


@click.command(epilog="Example: edge-client ledger --since 7d", short_help="Everything that ever left this device.")
@click.option("--since", default="", metavar="SPAN|DATE", help="24h, 7d, or 2026-01-31.")
@device_command
def ledger(call: Call, since: str) -> None:
    """Show everything that ever left this device, in plain words."""
    from edge_client.ledger import parse_since, readable_size, readable_time
    from edge_client.store import open_store
    from nightshift.host.clock import now_unix_s

    start = parse_since(since, now_unix_s()) if since else 0
    with open_store(call.home) as store:
        entries = store.records.ledger(start)
    value = [
        {
            "time": readable_time(e.time_unix_s),
            "kind": e.kind,
            "size_bytes": e.size_bytes,
            "recipient": e.recipient,
            "sentence": e.sentence,
            **({"details": dict(e.details)} if e.details else {}),
        }
        for e in entries
    ]
    lines = [f"{readable_time(e.time_unix_s)}  {readable_size(e.size_bytes):>7}  {e.sentence}" for e in entries]
    call.emit(value, "\n".join(lines) or "nothing has left this device")
