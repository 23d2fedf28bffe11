"""`edge-client data`: which files the device may learn from."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_client.cli.options import Call, device_command

if TYPE_CHECKING:
    from edge_client.data.sources import DataSource

ROLES = ("prompt", "completion", "messages", "text")
SHOWN_PROBLEMS = 5


@click.group(short_help="The files that this device may learn from.")
def data() -> None:
    """Say which files this device may learn from. Only their paths are kept, never a copy."""


@data.command(epilog="Example: edge-client data add mails.csv --format csv --columns prompt=question,completion=answer")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--format", "format_", type=click.Choice(["chat", "prompt", "text", "csv"]), required=True)
@click.option("--columns", default="", metavar="ROLE=NAME,…", help="prompt=…,completion=… or text=… or messages=…")
@device_command
def add(call: Call, path: Path, format_: str, columns: str) -> None:
    """Add the file PATH. Rows that cannot be used are counted and shown; they do no harm."""
    from edge_client.agent.local_training import as_data_source
    from edge_client.data.files import resolve
    from edge_client.data.sources import scan
    from edge_client.store import open_store
    from edge_client.store.records import Source
    from nightshift.host.clock import now_unix_s
    from nightshift.host.console import note
    from nightshift.host.wording import number_of
    from nightshift.protocol.errors import UsageError

    named = _columns(columns)
    source = as_data_source(Source(0, str(resolve(path)), format_, named, 0))
    report = scan(source.path, source.format, source.columns)
    for line in _first_problems(source):
        note(f"note: {path}: {line}")
    if report.rows == 0:
        reasons = ", ".join(f"{count} x {reason}" for reason, count in report.skipped.items()) or "it is empty"
        raise UsageError(f"{path}: no usable row ({reasons}); expected {_expectation(format_)}")
    with open_store(call.home) as store:
        kept = store.records.add_source(str(source.path), format_, named, now_unix_s())
    skipped = dict(report.skipped)
    value = {"number": kept.number, "path": kept.path, "format": format_, "rows": report.rows, "skipped": skipped}
    rows = number_of(report.rows, "row")
    call.emit(value, f"{kept.number}: {kept.path}: {rows} to learn from, {sum(skipped.values())} skipped")


@data.command("list", epilog="Example: edge-client data list")
@device_command
def list_sources(call: Call) -> None:
    """List the files."""
    from edge_client.store import open_store

    with open_store(call.home) as store:
        sources = store.records.sources()
    value = [{"number": s.number, "path": s.path, "format": s.format, "columns": dict(s.columns)} for s in sources]
    lines = [f"{source.number}: {source.path} ({source.format})" for source in sources]
    call.emit(value, "\n".join(lines) or "no files; add one with: edge-client data add PATH --format …")


@data.command(epilog="Example: edge-client data stats --json")
@device_command
def stats(call: Call) -> None:
    """Count the rows of every file, and how many are held out for measuring."""
    from edge_client.agent.local_training import HELD_OUT_FRACTION, as_data_source
    from edge_client.data.errors import DataError
    from edge_client.data.holdout import is_held_out
    from edge_client.data.sources import read_examples, scan
    from edge_client.store import open_store
    from nightshift.host.wording import number_of

    with open_store(call.home) as store:
        sources = store.records.sources()
    value: list[dict[str, object]] = []
    lines = []
    for source in sources:
        known = as_data_source(source)
        try:
            report = scan(known.path, known.format, known.columns)
            held_out = sum(is_held_out(example, HELD_OUT_FRACTION) for example in read_examples(known))
        except DataError as error:
            value.append({"number": source.number, "path": source.path, "problem": str(error)})
            lines.append(f"{source.number}: {source.path}: {error}")
            continue
        value.append(
            {
                "number": source.number,
                "path": source.path,
                "rows": report.rows,
                "held_out": held_out,
                "skipped": dict(report.skipped),
                "size_bytes": report.size_bytes,
            }
        )
        lines.append(f"{source.number}: {source.path}: {number_of(report.rows, 'row')}, {held_out} of them held out")
    call.emit(value, "\n".join(lines) or "no files; add one with: edge-client data add PATH --format …")


@data.command(epilog="Example: edge-client data remove 1")
@click.argument("number", type=int)
@device_command
def remove(call: Call, number: int) -> None:
    """Stop learning from the file with this NUMBER; the file itself stays."""
    from edge_client.store import open_store
    from nightshift.protocol.errors import NotFoundError

    with open_store(call.home) as store:
        if not store.records.remove_source(number):
            raise NotFoundError(f"no data source {number}; see: edge-client data list")
    call.emit({"removed": number}, f"removed {number}; what was learned from it stays in the adapters")


def _columns(text: str) -> dict[str, str]:
    from nightshift.protocol.errors import UsageError

    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    for role, equals, name in pairs:
        if role.strip() not in ROLES or not equals or not name.strip():
            raise UsageError(f"--columns {text!r}: expected ROLE=NAME with ROLE one of {', '.join(ROLES)}")
    return {role.strip(): name.strip() for role, _, name in pairs}


def _first_problems(source: DataSource) -> list[str]:
    """Where the first unusable rows are, and why."""
    from edge_client.data.files import Skip, open_data, read_lines
    from edge_client.data.sources import DataFormat, read_rows

    problems = []
    if source.format in (DataFormat.CHAT, DataFormat.PROMPT):
        with open_data(source.path) as stream:
            filled = (n for n, line in enumerate(read_lines(stream), 1) if isinstance(line, Skip) or line.strip())
            for number, row in zip(filled, read_rows(source), strict=False):
                if isinstance(row, Skip):
                    problems.append(f"line {number}: {row.reason.value}")
                if len(problems) == SHOWN_PROBLEMS:
                    break
        return problems
    skips = ((n, row) for n, row in enumerate(read_rows(source), 1) if isinstance(row, Skip))
    return [f"row {number}: {row.reason.value}" for number, row in itertools.islice(skips, SHOWN_PROBLEMS)]


def _expectation(format_: str) -> str:
    return {
        "chat": 'a line like {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}',
        "prompt": 'a line like {"prompt": "…", "completion": "…"}',
        "text": "UTF-8 text",
        "csv": "a header line and records; name the columns with --columns",
    }[format_]
