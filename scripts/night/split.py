"""Who owns which sentences: the commands of HWU64, dealt out to devices.

`dirichlet` gives every device its own uneven mix of all scenarios (shares of
each scenario drawn from Dirichlet(0.5), as in Hsu et al., arXiv 1909.06335);
`scenario` gives each device scenarios that no other has, the hard case.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

DIRICHLET_CONCENTRATION = 0.5


@dataclass(frozen=True, slots=True)
class Command:
    """One sentence said to a home assistant, and the scenario it belongs to."""

    text: str
    scenario: str


def read_commands(path: Path) -> list[Command]:
    """Read the shipped commands (JSON lines with `text` and `scenario`)."""
    with path.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [Command(row["text"], row["scenario"]) for row in rows]


def deal(commands: Sequence[Command], devices: int, split: str, seed: int) -> list[list[Command]]:
    """Give every command to exactly one device.

    Args:
        commands: all of them.
        devices: how many owners.
        split: "dirichlet" or "scenario".
        seed: same seed, same deal.

    Returns:
        One list for each device, shuffled.
    """
    generator = np.random.default_rng(seed)
    scenarios = sorted({command.scenario for command in commands})
    owned: list[list[Command]] = [[] for _ in range(devices)]
    for position, scenario in enumerate(scenarios):
        rows = [command for command in commands if command.scenario == scenario]
        order = generator.permutation(len(rows))
        if split == "scenario":
            owned[position % devices] += [rows[i] for i in order]
            continue
        shares = generator.dirichlet([DIRICHLET_CONCENTRATION] * devices)
        cuts = (np.cumsum(shares)[:-1] * len(rows)).astype(int)
        for device, part in enumerate(np.split(order, cuts)):
            owned[device] += [rows[i] for i in part]
    for rows in owned:
        generator.shuffle(rows)
    return owned


def write_private_text(commands: Sequence[Command], path: Path) -> None:
    """Write a device's text as prompt/completion JSON lines, readable by its owner only."""
    lines = [json.dumps({"prompt": c.text, "completion": c.scenario}, ensure_ascii=False) for c in commands]
    path.touch(mode=0o600)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
