"""`edge-client ledger`."""

from __future__ import annotations

import itertools
import shutil
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from edge_client.cli.options import Call, device_command

if TYPE_CHECKING:
    from edge_client.store.contributions import StoredContribution
    from edge_client.store.records import LedgerEntry

INDENT = "    "
WIDEST = 100
GROUPED = frozenset({"check-in"})
"""Kinds of which one line stands for several in a row; `--all` shows each."""


@click.command(epilog="Example: edge-client ledger --since 7d", short_help="Everything that ever left this device.")
@click.option("--since", default="", metavar="SPAN|DATE", help="24h, 7d, or 2026-01-31.")
@click.option("--all", "each", is_flag=True, help="Show each check-in, also where several follow one another.")
@device_command
def ledger(call: Call, since: str, *, each: bool) -> None:
    """Show everything that ever left this device, in plain words, with what became of it.

    Questions that carry nothing of this device, such as which file it wants to fetch, are not entered.
    """
    from edge_client.ledger import parse_since, readable_time
    from edge_client.store import open_store
    from nightshift.host.clock import now_unix_s
    from nightshift.host.console import note

    start = parse_since(since, now_unix_s()) if since else 0
    with open_store(call.home) as store:
        lost_at = store.database.lost_at_unix_s
        entries = store.records.ledger(start)
        outcomes = {
            entry.details["cohort"]: _outcome(store.contributions.find(bytes.fromhex(str(entry.details["cohort"]))))
            for entry in entries
            if entry.kind == "contribution"
        }
    value = [
        {
            "time": readable_time(e.time_unix_s),
            "kind": e.kind,
            "size_bytes": e.size_bytes,
            "recipient": e.recipient,
            "sentence": e.sentence,
            **({"details": dict(e.details)} if e.details else {}),
            **({"outcome": outcomes[e.details["cohort"]]} if e.kind == "contribution" else {}),
        }
        for e in entries
    ]
    width = min(shutil.get_terminal_size().columns, WIDEST)
    lines = [line for group in _groups(entries, each=each) for line in _lines(group, outcomes, width)]
    if lost_at is not None and lost_at >= start:
        note(f"note: the ledger begins {readable_time(lost_at)}; what was before was erased (leave --wipe) or lost")
    call.emit(value, "\n".join([*lines, *_total(entries)]) or f"nothing has left this device{_since(start, lost_at)}")


def _since(start_unix_s: int, lost_at_unix_s: int | None) -> str:
    """From when on nothing has left, where that is not for ever."""
    from edge_client.ledger import readable_time

    begin = max(start_unix_s, lost_at_unix_s or 0)
    return f" since {readable_time(begin)}" if begin else ""


def _outcome(contribution: StoredContribution | None) -> str:
    """What became of a contribution, as far as this device was shown."""
    from edge_client.store.contributions import State

    if contribution is None:
        return "unknown: the store that knew it was lost"
    if contribution.released_in is not None:
        return (
            f"opened as part of a sum: release {contribution.released_in} holds it, over {contribution.released_over} "
            "devices"
        )
    return {
        State.PREPARED: "not sent yet",
        State.SENDING: "partly sent",
        State.SENT: "taken; not seen in a release yet",
        State.LATE: "not taken, and never opened as far as this device was shown",
        State.VOID: "never opened: its cohort ended without a sum",
    }[contribution.state]


def _groups(entries: Sequence[LedgerEntry], *, each: bool) -> list[list[LedgerEntry]]:
    """Entries as they are shown together: several check-ins in a row that said the same to one place are one."""
    groups: list[list[LedgerEntry]] = []
    for (kind, *_), run in itertools.groupby(entries, key=lambda entry: (entry.kind, entry.recipient, entry.sentence)):
        together = list(run)
        groups += [together] if kind in GROUPED and not each else [[entry] for entry in together]
    return groups


def _lines(group: Sequence[LedgerEntry], outcomes: dict[Any, str], width: int) -> list[str]:
    from edge_client.ledger import readable_size, readable_time

    first, last = group[0], group[-1]
    size = readable_size(sum(entry.size_bytes for entry in group))
    several = f", {len(group)} times until {readable_time(last.time_unix_s)}" if len(group) > 1 else ""
    lines = [f"{readable_time(first.time_unix_s)}  {size:>7}  {first.kind}{several}"]
    said = [first.sentence if len(group) == 1 else f"{first.sentence} (each time)"]
    details = first.details
    if "committee" in details and isinstance(details["committee"], list):
        members = " ".join(str(member).partition("-")[0] for member in details["committee"])
        said.append(f"committee: {members}")
    if first.kind == "contribution":
        said.append(f"outcome: {outcomes[details['cohort']]}")
    if "sha256" in details:
        said.append(f"sha256: {details['sha256']}")
    for text in said:
        lines += textwrap.wrap(text, width, initial_indent=INDENT, subsequent_indent=INDENT)
    return lines


def _total(entries: Sequence[LedgerEntry]) -> list[str]:
    from edge_client.ledger import readable_size
    from nightshift.host.wording import enumerated, number_of

    if not entries:
        return []
    size = readable_size(sum(entry.size_bytes for entry in entries))
    recipients = enumerated(sorted({entry.recipient for entry in entries}))
    return [f"in all {size} in {number_of(len(entries), 'message')}, to {recipients}"]
