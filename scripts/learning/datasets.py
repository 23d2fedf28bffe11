"""Private text, dealt out to devices: what each experiment of `scripts/bench learning` learns from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_client.data.examples import Example, Passage, question
from scripts.night.split import deal, read_commands

DATA = Path(__file__).resolve().parents[2] / "data"
HWU64_DEVICES = 6


@dataclass(frozen=True, slots=True)
class Dataset:
    """What every device owns.

    Attributes:
        name: one of `NAMES`.
        devices: the examples of each device.
        answers: what a command's answer may be; empty where devices hold free text.
        max_tokens: longest example in tokens.
        batch_size: examples of one optimiser step.
    """

    name: str
    devices: Sequence[Sequence[Example]]
    answers: Sequence[str]
    max_tokens: int
    batch_size: int


def _commands(name: str, split: str, seed: int) -> Dataset:
    commands = read_commands(DATA / "hwu64" / "commands.jsonl")
    dealt = deal(commands, HWU64_DEVICES, split, seed)
    return Dataset(
        name=name,
        devices=[[question(row.text, row.scenario) for row in rows] for rows in dealt],
        answers=sorted({row.scenario for row in commands}),
        max_tokens=64,
        batch_size=32,
    )


def _speeches(name: str) -> Dataset:
    by_role: dict[str, list[Example]] = {}
    with (DATA / "shakespeare" / "speeches.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            by_role.setdefault(row["role"], []).append(Passage(row["speech"]))
    devices = [by_role[role] for role in sorted(by_role)]
    return Dataset(name=name, devices=devices, answers=(), max_tokens=96, batch_size=16)


NAMES = ("hwu64-dirichlet", "hwu64-scenario", "shakespeare")


def load(name: str, seed: int) -> Dataset:
    """One dataset; the seed deals the commands of HWU64 anew, roles are what they are."""
    if name == "shakespeare":
        return _speeches(name)
    return _commands(name, name.removeprefix("hwu64-"), seed)
