"""The small real model that the device's tests run: built once per session of pytest."""

from __future__ import annotations

import json
from pathlib import Path

from edge_client.data.sources import Columns, DataFormat, DataSource
from nightshift.packages.build import build_package
from nightshift.packages.package import ModelPackage

DATA = Path(__file__).parents[2] / "data"
STORIES = DATA / "stories260K/stories260K-f32.gguf"
COMMANDS = DATA / "hwu64/commands.jsonl"


def build_stories(directory: Path, *, quantisation: str = "Q8_0") -> ModelPackage:
    """The package of stories260K in a directory that does not exist yet."""
    return build_package(STORIES, directory, quantisation=quantisation)


def commands(path: Path, *, rows: int, first: int = 0) -> DataSource:
    """Real home-assistant commands (HWU64) and their scenarios, as a file of prompts and completions."""
    lines = COMMANDS.read_text("utf-8").splitlines()[first : first + rows]
    records = [json.loads(line) for line in lines]
    pairs = [{"prompt": record["text"], "completion": record["scenario"]} for record in records]
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), "utf-8")
    return DataSource(path, DataFormat.PROMPT, Columns())
