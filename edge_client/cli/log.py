"""`edge-client log`: the coordinator's transparency log."""

from __future__ import annotations

import click

from edge_client.cli.options import Call, device_command


@click.group(short_help="The coordinator's transparency log.")
def log() -> None:
    """The append-only log of what the coordinator said; this device remembers how far it has seen it."""


@log.command(epilog="Example: edge-client log head > head-of-the-kitchen.txt")
@click.option("--note", is_flag=True, help="Only the signed note, to be sent or kept.")
@device_command
def head(call: Call, *, note: bool) -> None:
    """Show the log's head that this device saw last, for others to compare.

    Read the short form aloud to somebody else who takes part, or send the note:
    `edge-client log verify --head` takes both. Nothing is asked of the coordinator.
    """
    from edge_client.agent.session import load_trust, stored_log_head
    from edge_client.identity import require_joined
    from edge_client.store import open_store
    from nightshift.protocol.errors import NotFoundError
    from nightshift.protocol.log_heads import short_head

    _, membership = require_joined(call.home)
    trust = load_trust(membership)
    with open_store(call.home) as store:
        seen, signed = stored_log_head(store), store.database.blob("log_note")
    if seen is None or signed is None:
        raise NotFoundError("this device has seen no log yet; run: edge-client run")
    short = short_head(seen, trust.log_origin)
    value = {
        "origin": trust.log_origin,
        "size": seen.size,
        "root": seen.root.hex(),
        "short": short,
        "note": signed.decode(),
    }
    call.emit(value, signed.decode().rstrip("\n") if note else f"{short}\n\n{signed.decode()}".rstrip("\n"))


@log.command(epilog="Example: edge-client log verify --head head-of-the-kitchen.txt")
@click.option(
    "--head", "heads", multiple=True, metavar="FILE|TEXT", help="What another device saw: a note, or the short form."
)
@click.option("--quick", is_flag=True, help="Only prove that it grew; do not read all of it.")
@device_command
def verify(call: Call, *, heads: tuple[str, ...], quick: bool) -> None:
    """Read the whole log, hash it again, and compare it with what this device and others were shown.

    Exit status 14 if it forked, shrank, was altered, says something twice, or lacks
    something that this device was told.
    """
    from edge_client.agent.check_in import check_in
    from edge_client.agent.log_audit import audit
    from edge_client.agent.session_opening import open_session
    from nightshift.host.log_heads import file_or_text
    from nightshift.host.wording import number_of
    from nightshift.protocol.errors import UsageError, VerificationError
    from nightshift.protocol.log_heads import read_head, short_head

    if quick and heads:
        raise UsageError("--head needs the whole log; leave out --quick")
    with open_session(call.home, call.configuration()) as session:
        before, origin = session.log_size, session.trust.log_origin
        try:
            others = [read_head(file_or_text(text), session.trust) for text in heads]
            found = None if quick else audit(session, others)
            seen = check_in(session, no_plan=True).view.head if found is None else found.head
        except VerificationError as error:
            session.report(error)
            raise
    value = {
        "before": before,
        "size": seen.size,
        "root": seen.root.hex(),
        "short": short_head(seen, origin),
        "consistent": True,
        "read": found is not None,
    }
    lines = [
        f"the log has {number_of(seen.size, 'entry', 'entries')} and extends the {before} seen before",
        f"head {short_head(seen, origin)}",
    ]
    if found is not None:
        value |= {"kinds": found.kinds, "remembered": found.remembered, "compared": list(found.compared)}
        kinds = ", ".join(number_of(count, kind) for kind, count in found.kinds.items())
        lines += [
            f"every entry was read and hashed: {kinds}",
            f"whatever this device was told is in it ({found.remembered} compared)",
            *(f"the head of another device, at {size} entries, is the same" for size in found.compared),
        ]
    call.emit(value, "\n".join(lines))
