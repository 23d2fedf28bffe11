"""What the demo found, as a table, as JSON and as one HTML page without any other file."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Score:
    """How good an adapter is on the union of all devices' hold-out text.

    Attributes:
        loss: mean negative log-likelihood of an answer token, nats.
        accuracy: share of commands whose scenario the model finds likeliest of the 18.
    """

    loss: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What one engine says to one command, before and after."""

    engine: str
    command: str
    expected: str
    base: str
    federated: str


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that the demo measured; `as_json` has one key for each field."""

    devices: int
    rounds: int
    split: str
    seed: int
    seconds: float
    base: Score
    local: Score
    local_devices: Sequence[Score]
    nights: Sequence[Score]
    federated: Score
    central: Score
    sum_exact: bool
    bytes_per_device: int
    engines: Sequence[str]
    night_seconds: Sequence[float]
    examples_per_device: Sequence[int]
    holdout_rows: int
    steps_per_night: int
    answers: Sequence[Answer]

    @property
    def beats_local(self) -> bool:
        """Whether learning together was better than the best device alone, by both measures."""
        return self.federated.loss < min(s.loss for s in self.local_devices) and self.federated.accuracy > max(
            s.accuracy for s in self.local_devices
        )

    def as_json(self) -> dict[str, Any]:
        """The report as one JSON object."""
        return asdict(self)


def rows(report: Report) -> list[tuple[str, Score]]:
    """The lines of the table, worst to best in the order of the story."""
    return [
        ("base model, no adapter", report.base),
        *((f"device {i} alone", score) for i, score in enumerate(report.local_devices, start=1)),
        ("best device alone", report.local),
        *((f"together, after night {i}", score) for i, score in enumerate(report.nights, start=1)),
        ("central training (data pooled: the ceiling)", report.central),
    ]


def print_table(report: Report, console: Console) -> None:
    """Print the report for people."""
    table = Table(title=_title(report), title_justify="left")
    table.add_column("adapter")
    table.add_column("hold-out loss", justify="right")
    table.add_column("scenario accuracy", justify="right")
    for name, score in rows(report):
        style = "bold" if name.startswith(("together", "best")) else ""
        table.add_row(name, f"{score.loss:.3f}", f"{score.accuracy:.1%}", style=style)
    console.print(table)
    for name, value in facts(report).items():
        console.print(f"[bold]{name}[/]: {value}", highlight=False)
    answers = Table(title="Two commands, answered by the base and by the federated adapter", title_justify="left")
    for column in ("engine", "command", "expected", "base", "federated"):
        answers.add_column(column, overflow="fold")
    for answer in report.answers:
        answers.add_row(*(getattr(answer, name) for name in ("engine", "command", "expected", "base", "federated")))
    console.print(answers)


def facts(report: Report) -> dict[str, str]:
    """What else was measured, in words."""
    nights = ", ".join(f"{seconds:.0f} s" for seconds in report.night_seconds)
    return {
        "opened sums equal the sums of what the devices encoded": "yes, every integer" if report.sum_exact else "NO",
        "sent by a device in all nights": f"{report.bytes_per_device / 1e3:.0f} kB, most of any device",
        "nights took": nights,
        "hold-out": f"{report.holdout_rows} commands, at most 100 of each device",
        "training rows of the devices": ", ".join(str(count) for count in report.examples_per_device),
        "engines": ", ".join(report.engines),
        "whole demo": f"{report.seconds:.0f} s",
    }


def _title(report: Report) -> str:
    return f"{report.devices} devices, {report.rounds} nights, split by {report.split}, seed {report.seed}"


_STYLE = """
:root { --ink: #1b1f24; --soft: #5b6570; --line: #d7dde3; --ground: #fcfcfa; --night: #3b4cc0;
  --local: #b8860b; --ceil: #2e7d32 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e7eaee; --soft: #9aa5b1; --line: #333b44; --ground: #14171b; --night: #8fa2ff; --local: #e0b04a;
          --ceil: #7bc47f } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 62rem; padding: 2.5rem 1.25rem 4rem; background: var(--ground); color: var(--ink);
       font: 16px/1.55 system-ui, sans-serif }
h1 { font-size: 1.7rem; margin: 0 0 .2rem } h2 { font-size: 1.1rem; margin: 2.4rem 0 .6rem }
p.lead { color: var(--soft); margin: 0 0 1.5rem }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(19rem, 1fr)); gap: 1.5rem }
figure { margin: 0 } figcaption { font-weight: 600; margin-bottom: .3rem }
svg { width: 100%; height: auto; display: block } svg text { fill: var(--soft); font: 12px system-ui, sans-serif }
svg text.value { fill: var(--ink) }
.scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100% } th, td { padding: .35rem .7rem; border-bottom: 1px solid var(--line);
        text-align: left; vertical-align: top } th { color: var(--soft); font-weight: 500 }
td.number { text-align: right; font-variant-numeric: tabular-nums } tr.strong td { font-weight: 650 }
dl { display: grid; grid-template-columns: minmax(12rem, max-content) 1fr; gap: .25rem 1.2rem }
dt { color: var(--soft) }
dd { margin: 0 } @media (max-width: 36rem) { dl { grid-template-columns: 1fr } dd { margin-bottom: .5rem } }
"""


def as_html(report: Report) -> str:
    """One self-contained page: curves, table, facts, answers."""
    loss = [report.base.loss, *(score.loss for score in report.nights)]
    accuracy = [100 * report.base.accuracy, *(100 * score.accuracy for score in report.nights)]
    verdict = (
        "Learning together beat the best device alone."
        if report.beats_local
        else "Learning together did not beat the best device alone."
    )
    table = "".join(
        f'<tr class="{"strong" if name.startswith(("together", "best")) else ""}"><td>{html.escape(name)}</td>'
        f'<td class="number">{score.loss:.3f}</td><td class="number">{score.accuracy:.1%}</td></tr>'
        for name, score in rows(report)
    )
    listed = "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>" for k, v in facts(report).items())
    answers = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in asdict(answer).values()) + "</tr>"
        for answer in report.answers
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Nightshift: {html.escape(_title(report))}</title><style>{_STYLE}</style></head><body>
<h1>Nightshift: three nights of learning together</h1>
<p class="lead">{html.escape(_title(report))}. {verdict}</p>
<div class="charts">
{_chart("Hold-out loss (nats per answer token; lower is better)", loss, report.local.loss, report.central.loss, ".2f")}
{
        _chart(
            "Scenario accuracy (% of 18 scenarios; higher is better)",
            accuracy,
            100 * report.local.accuracy,
            100 * report.central.accuracy,
            ".0f",
        )
    }
</div>
<h2>All adapters on the same hold-out text</h2>
<div class="scroll"><table><tr><th>adapter</th><th>loss</th><th>accuracy</th></tr>{table}</table></div>
<h2>What else was measured</h2><dl>{listed}</dl>
<h2>Two commands, before and after</h2>
<div class="scroll"><table><tr><th>engine</th><th>command</th><th>expected</th><th>base</th><th>federated</th></tr>
{answers}</table></div>
</body></html>
""".replace("three nights", f"{report.rounds} night{'s' if report.rounds != 1 else ''}")


_WIDTH, _HEIGHT = 460, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 16, 14, 34


def _chart(title: str, values: Sequence[float], local: float, central: float, number: str) -> str:
    top = _ceiling(max([*values, local, central]))
    across = _WIDTH - _LEFT - _RIGHT
    down = _HEIGHT - _TOP - _BOTTOM

    def x(night: float) -> float:
        return _LEFT + across * night / max(len(values) - 1, 1)

    def y(value: float) -> float:
        return _TOP + down * (1 - value / top)

    grid = "".join(
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(v):.1f}" y2="{y(v):.1f}" stroke="var(--line)"/>'
        f'<text x="{_LEFT - 6}" y="{y(v) + 4:.1f}" text-anchor="end">{v:g}</text>'
        for v in (top * i / 4 for i in range(5))
    )
    ticks = "".join(
        f'<text x="{x(i):.1f}" y="{_HEIGHT - 12}" text-anchor="middle">{"base" if i == 0 else f"night {i}"}</text>'
        for i in range(len(values))
    )
    references = _references({"best device alone": (local, "local"), "central": (central, "ceil")}, y, number)
    points = " ".join(f"{x(i):.1f},{y(v):.1f}" for i, v in enumerate(values))
    dots = "".join(
        f'<circle cx="{x(i):.1f}" cy="{y(v):.1f}" r="4" fill="var(--night)"/>'
        f'<text class="value" x="{x(i) + (8 if i < len(values) - 1 else -8):.1f}" y="{y(v) - 8:.1f}" '
        f'text-anchor="{"start" if i < len(values) - 1 else "end"}">{v:{number}}</text>'
        for i, v in enumerate(values)
    )
    return (
        f"<figure><figcaption>{html.escape(title)}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(title)}">{grid}{ticks}{references}'
        f'<polyline points="{points}" fill="none" stroke="var(--night)" stroke-width="2.5"/>{dots}</svg></figure>'
    )


def _references(lines: Mapping[str, tuple[float, str]], y: Any, number: str) -> str:
    drawn = []
    placed: list[float] = []
    for name, (value, colour) in sorted(lines.items(), key=lambda item: item[1][0]):
        height = y(value) - 5
        while any(abs(height - other) < 14 for other in placed):
            height -= 14
        placed.append(height)
        drawn.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}" '
            f'stroke="var(--{colour})" stroke-dasharray="5 4" stroke-width="1.5"/>'
            f'<text x="{_LEFT + 90}" y="{height:.1f}" style="fill: var(--{colour})">{name} {value:{number}}</text>'
        )
    return "".join(drawn)


def _ceiling(value: float) -> float:
    """A round number at or above a value, so that the axis has round ticks."""
    step: float = 10.0 ** math.floor(math.log10(max(value, 1e-9)))
    return next(m * step for m in (1, 2, 4, 6, 8, 10) if m * step >= value)
