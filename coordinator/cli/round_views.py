"""A round for people: a row of a list, a page, a line of progress."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from coordinator.cli.tables import details, table
from nightshift.host.console import printable

if TYPE_CHECKING:
    from rich.table import Table

_COHORT_COLUMNS = (
    "cohort",
    "cohort_id",
    "state",
    "trained_rank",
    "contributions",
    "n_min",
    "answers",
    "threshold",
    "uploads_until",
)


def round_row(record: dict[str, Any]) -> dict[str, Any]:
    """A round as one row: how many cohorts, and how they stand."""
    return {**record, "cohorts": _cohorts_text(record)}


def round_text(record: dict[str, Any]) -> str:
    """A round's own fields, its cohorts as a table, and for each what the table cannot say.

    Where one cohort was asked for, everything that is known of it.
    """
    cohorts = record["cohorts"]
    fields = {key: value for key, value in record.items() if key not in ("cohorts", "metrics")}
    parts = [details(fields | {f"mean {name}": f"{value:.6g}" for name, value in record["metrics"].items()})]
    rows = [{**cohort, "cohort_id": cohort["cohort_id"][:16]} for cohort in cohorts]
    parts.append(table(rows, _COHORT_COLUMNS, empty="no cohorts"))
    parts += [text for cohort in cohorts if (text := _remarks(cohort))]
    if len(cohorts) == 1:
        members = [{**member, "device_id": member["device_id"][:16]} for member in cohorts[0]["committee"]]
        parts.append(table(members, ("index", "device_id", "said"), empty="no committee"))
    return "\n\n".join(parts)


def progress_text(record: dict[str, Any]) -> str:
    """A round in one line."""
    cohorts = ", ".join(
        f"{cohort['cohort']}: {cohort['state']} {cohort['contributions']}/{cohort['n_min']}..{cohort['n_max']} "
        f"contributions {cohort['answers']}/{cohort['threshold']} answers"
        for cohort in record["cohorts"]
    )
    return f"round {record['round']} of {record['task']} is {record['state']}; {cohorts}"


def round_table(record: dict[str, Any]) -> Table:
    """A round as a table that can be redrawn, for whoever watches it on a terminal of 80 columns or more."""
    from rich.table import Table
    from rich.text import Text

    shown = Table(
        title=f"round {record['round']} of {record['task']} is {record['state']}",
        title_justify="left",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    for heading in ("cohort", "state", "contributions", "answers", "until"):
        shown.add_column(heading, no_wrap=heading != "until", justify="left", header_style="bold")
    for cohort in record["cohorts"]:
        cells = (
            f"{cohort['cohort']}  {cohort['cohort_id'][:8]}",
            cohort["state"],
            f"{cohort['contributions']} ({cohort['n_min']} to {cohort['n_max']})",
            f"{cohort['answers']} of {cohort['threshold']}",
            printable(cohort["reason"] or _next_deadline(cohort)),
        )
        shown.add_row(*(Text(cell) for cell in cells))
    return shown


def _next_deadline(cohort: dict[str, Any]) -> str:
    """Until when what the cohort waits for may come."""
    return {"open": f"{cohort['uploads_until']}", "frozen": f"{cohort['answers_until']}"}.get(cohort["state"], "-")


def _cohorts_text(record: dict[str, Any]) -> str:
    states = [cohort["state"] for cohort in record["cohorts"]]
    counts = {state: states.count(state) for state in dict.fromkeys(states)}
    return ", ".join(f"{count} {state}" for state, count in counts.items())


def _remarks(cohort: dict[str, Any]) -> str:
    lines = []
    if cohort["reason"]:
        lines.append(f"cohort {cohort['cohort']} is void: {cohort['reason']}")
    for key, meaning in (
        ("members_outside", "gave answers that do not fit the others': they lied, or a contributor misled them"),
        ("members_disputed", "do not agree with the opened sum; that proves nothing against them"),
    ):
        if cohort[key]:
            indexes = ", ".join(str(index) for index in cohort[key])
            lines.append(f"cohort {cohort['cohort']}, committee members {indexes}: {meaning}")
    return "\n".join(lines)
