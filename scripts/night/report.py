"""What the demo found, as a table, as JSON and as one HTML page without any other file."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
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
    cohorts: int
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
    cohorts = f" in {report.cohorts} cohorts" if report.cohorts > 1 else ""
    return f"{report.devices} devices{cohorts}, {report.rounds} nights, split by {report.split}, seed {report.seed}"


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
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums } tr.strong td { font-weight: 650 }
dl { display: grid; grid-template-columns: minmax(12rem, max-content) 1fr; gap: .25rem 1.2rem }
dt { color: var(--soft) }
dd { margin: 0 } @media (max-width: 36rem) { dl { grid-template-columns: 1fr } dd { margin-bottom: .5rem } }
"""


def as_html(report: Report) -> str:
    """One self-contained page: curves, table, facts, answers."""
    loss = {f"night {i}": score.loss for i, score in enumerate(report.nights, start=1)}
    accuracy = {"base": 100 * report.base.accuracy}
    accuracy |= {f"night {i}": 100 * score.accuracy for i, score in enumerate(report.nights, start=1)}
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
{
        _chart(
            f"Hold-out loss, nats per answer token; lower is better (base: {report.base.loss:.2f}, off the scale)",
            loss,
            {"best alone": (report.local.loss, "local"), "central": (report.central.loss, "ceil")},
            ".2f",
        )
    }
{
        _chart(
            "Scenario accuracy, % of commands; higher is better",
            accuracy,
            {"best alone": (100 * report.local.accuracy, "local"), "central": (100 * report.central.accuracy, "ceil")},
            ".0f",
        )
    }
</div>
<h2>All adapters on the same hold-out text</h2>
<div class="scroll"><table><tr><th>adapter</th><th class="number">loss</th><th class="number">accuracy</th></tr>{
        table
    }</table></div>
<h2>What else was measured</h2><dl>{listed}</dl>
<h2>Two commands, before and after</h2>
<div class="scroll"><table><tr><th>engine</th><th>command</th><th>expected</th><th>base</th><th>federated</th></tr>
{answers}</table></div>
</body></html>
""".replace("three nights", f"{report.rounds} night{'s' if report.rounds != 1 else ''}")


_WIDTH, _HEIGHT = 460, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 108, 16, 34
_LABEL_GAP = 15


def _chart(title: str, points: Mapping[str, float], references: Mapping[str, tuple[float, str]], number: str) -> str:
    """One line over the nights, with dashed lines to compare it with, as inline SVG."""
    low, high = _axis([*points.values(), *(value for value, _ in references.values())])
    across, down = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    right = _WIDTH - _RIGHT

    def y(value: float) -> float:
        return _TOP + down * (1 - (value - low) / (high - low))

    places = [_LEFT + across * (i + 0.5) / len(points) for i in range(len(points))]
    grid = "".join(
        f'<line x1="{_LEFT}" x2="{right}" y1="{y(v):.1f}" y2="{y(v):.1f}" stroke="var(--line)"/>'
        f'<text x="{_LEFT - 6}" y="{y(v) + 4:.1f}" text-anchor="end">{v:.4g}</text>'
        for v in (low + (high - low) * i / 4 for i in range(5))
    )
    ticks = "".join(
        f'<text x="{x:.1f}" y="{_HEIGHT - 12}" text-anchor="middle">{html.escape(name)}</text>'
        for x, name in zip(places, points, strict=True)
    )
    line = " ".join(f"{x:.1f},{y(v):.1f}" for x, v in zip(places, points.values(), strict=True))
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y(v):.1f}" r="4" fill="var(--night)"/>'
        f'<text class="value" x="{x:.1f}" y="{y(v) - 9:.1f}" text-anchor="middle">{v:{number}}</text>'
        for x, v in zip(places, points.values(), strict=True)
    )
    return (
        f"<figure><figcaption>{html.escape(title)}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(title)}">{grid}{ticks}'
        f"{_reference_lines(references, y, number)}"
        f'<polyline points="{line}" fill="none" stroke="var(--night)" stroke-width="2.5"/>{dots}</svg></figure>'
    )


def _references(alone: float, central: float) -> dict[str, tuple[float, str]]:
    return {"best alone": (alone, "local"), "central": (central, "ceil")}


def _reference_lines(references: Mapping[str, tuple[float, str]], y: Callable[[float], float], number: str) -> str:
    drawn = []
    lowest = -math.inf
    for name, (value, colour) in sorted(references.items(), key=lambda item: y(item[1][0])):
        label = max(y(value) + 4, lowest + _LABEL_GAP)
        lowest = label
        drawn.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}" '
            f'stroke="var(--{colour})" stroke-dasharray="5 4" stroke-width="1.5"/>'
            f'<text x="{_WIDTH - _RIGHT + 6}" y="{label:.1f}" style="fill: var(--{colour})">'
            f"{name} {value:{number}}</text>"
        )
    return "".join(drawn)


def _axis(values: Sequence[float]) -> tuple[float, float]:
    """Round ends around the values, four round steps apart; from 0 where the values come near it."""
    spread = max(values) - (0.0 if min(values) < max(values) / 2 else min(values))
    magnitude = 10.0 ** math.floor(math.log10(max(spread, 1e-6) / 4))
    start = 0.0 if min(values) < max(values) / 2 else min(values)
    for step in (m * magnitude for m in (1, 2, 2.5, 5, 10, 20)):
        low = math.floor(start / step) * step
        if low + 4 * step > max(values):
            return low, low + 4 * step
    return low, low + 4 * step
