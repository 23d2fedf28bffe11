"""The tables of docs/benchmarks/learning.md, from the rows that `scripts/bench learning` keeps."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

Row = dict[str, object]

BEGIN, END = "<!-- made by scripts/bench learning --markdown -->", "<!-- end -->"
_COLUMNS = (
    "", "seeds", "loss", "accuracy", "loss, worst device", "accuracy, worst device", "kB sent by a device",
    "nights to target",
)  # fmt: skip


def markdown(rows: Sequence[Row]) -> str:
    """One table for each dataset: mean ± standard deviation over the seeds.

    Args:
        rows: of `scripts.benchmarks.learning.with_targets`, in the order in which they are shown.
    """
    parts = []
    for dataset in dict.fromkeys(str(row["dataset"]) for row in rows):
        mine = [row for row in rows if row["dataset"] == dataset]
        parts += [f"### {dataset}", "", f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|"]
        for what in dict.fromkeys(str(row["what"]) for row in mine):
            parts.append(_line(what, [row for row in mine if row["what"] == what]))
            if what == "local":
                parts.append(_best([row for row in mine if row["what"] == what]))
        parts.append("")
    return "\n".join(parts)


def _line(what: str, rows: Sequence[Row]) -> str:
    cells = [what, str(len(rows))]
    cells += [_spread(rows, "loss", "{:.3f}"), _spread(rows, "accuracy", "{:.1%}")]
    cells += [_spread(rows, "worst_loss", "{:.2f}"), _spread(rows, "worst_accuracy", "{:.1%}")]
    if all("upload_bytes" in row for row in rows):
        cells += [f"{statistics.mean(_number(row['upload_bytes']) for row in rows) / 1000:.0f}"]
        cells += [", ".join(_nights(row) for row in rows)]
    else:
        cells += ["", ""]
    return f"| {' | '.join(cells)} |"


def _best(rows: Sequence[Row]) -> str:
    """What the best device alone reached: the target of the federations."""
    loss, accuracy = _spread(rows, "best_loss", "{:.3f}"), _spread(rows, "best_accuracy", "{:.1%}")
    return f"| local, the best device | {len(rows)} | {loss} | {accuracy} | | | | |"


def _nights(row: Row) -> str:
    if "nights_to_target" not in row:
        return "?"
    reached = row["nights_to_target"]
    return "–" if reached is None else str(reached)


def _spread(rows: Sequence[Row], name: str, shown: str) -> str:
    values = [_number(row[name]) for row in rows]
    mean = shown.format(statistics.mean(values))
    if len(values) == 1:
        return mean
    return f"{mean} ± {shown.format(statistics.stdev(values)).removesuffix('%')}"


def _number(value: object) -> float:
    assert isinstance(value, int | float), "a figure"
    return float(value)
