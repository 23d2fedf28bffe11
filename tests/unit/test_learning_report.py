"""The learning benchmark's tables: what they say of given rows, and that the document holds what the kept rows give."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from scripts.learning.report import BEGIN, END, markdown

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "docs" / "benchmarks"


def row(what: str, seed: int, loss: float, **others: object) -> dict[str, object]:
    """A row of one dataset."""
    figures = {"accuracy": 0.5, "worst_loss": 2.0 * loss, "worst_accuracy": 0.25}
    return {"dataset": "text", "seed": seed, "what": what, "loss": loss, **figures, **others}


def cells(table: str, what: str) -> list[str]:
    """The cells of the row that begins so."""
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {what} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_line_is_the_mean_and_spread_over_seeds() -> None:
    table = markdown(
        [row("base", 1, 3.0), row("base", 2, 5.0), row("local", 1, 2.0, best_loss=1.5, best_accuracy=0.75)]
    )
    assert cells(table, "base")[1:6] == ["2", "4.000 ± 1.414", "50.0% ± 0.0", "8.00 ± 2.83", "25.0% ± 0.0"]
    assert cells(table, "local")[1:3] == ["1", "2.000"]
    assert cells(table, "local, the best device")[1:4] == ["1", "1.500", "75.0%"]


def test_a_federation_has_its_bytes_and_its_nights() -> None:
    rows = [
        row("ffa", 1, 1.0, upload_bytes=2000, nights_to_target=3),
        row("ffa", 2, 1.0, upload_bytes=4000, nights_to_target=None),
        row("ffa", 3, 1.0, upload_bytes=3000),  # its seed has no local row yet
    ]
    assert cells(markdown(rows), "ffa")[-2:] == ["3", "3, –, ?"]


def test_the_document_holds_what_the_rows_beside_it_give() -> None:
    text = (BENCHMARKS / "learning.md").read_text("utf-8")
    command = [sys.executable, "-m", "scripts.benchmarks.learning", "--markdown"]
    done = subprocess.run(
        [*command, "--state", str(BENCHMARKS / "learning.jsonl")], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip() == done.stdout.strip()
