"""What the demo sets up before the first night: coordinator, package, task, devices and their text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.night.fleet import Coordinator, Device
from scripts.night.split import Command, deal, read_commands, write_private_text

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "data" / "stories260K" / "stories260K-f32.gguf"
COMMANDS = ROOT / "data" / "hwu64" / "commands.jsonl"

TASK = "home-commands"
RANK = 8
ALPHA = 16.0
# Half of it lets gradient noise pull the devices apart: docs/benchmarks/demo.md has the figures.
BATCH_SIZE = 32
CLIP_NORM = 1.0
MAX_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a night trains; the two splits want different care.

    Attributes:
        method: alternate, ffa or fedavg.
        steps: optimiser steps of one device in one night.
        learning_rate: of AdamW, constant.
        value_clip: largest value of a rotated, weighted change that the encoding can carry; the steps below move
            an adapter value by 0.3 at the most, and six times that is hardly ever exceeded.
    """

    method: str
    steps: int
    learning_rate: float
    value_clip: float


RECIPES = {
    "dirichlet": Recipe(method="alternate", steps=60, learning_rate=5e-3, value_clip=2.0),
    # Devices that share no scenario pull apart less while A stays where it is.
    "scenario": Recipe(method="ffa", steps=60, learning_rate=5e-3, value_clip=2.0),
}


@dataclass(frozen=True, slots=True)
class Stage:
    """Everything that the nights act on."""

    coordinator: Coordinator
    devices: Sequence[Device]
    texts: Sequence[Path]
    scenarios: Sequence[str]
    recipe: Recipe


def task_toml(recipe: Recipe, *, devices: int, cohorts: int, rounds: int) -> str:
    """The task file of the demo: every night cohorts that are full, and closed, with all devices; opened by hand.

    Without the gate: what the last night learned would wait to be measured by a next night that never comes.
    """
    return f"""name = "{TASK}"
model = "stories260K"
[adapter]
rank = {RANK}
alpha = {ALPHA}
method = "{recipe.method}"
[training]
steps = {recipe.steps}
batch_size = {BATCH_SIZE}
learning_rate = {recipe.learning_rate}
schedule = "constant"
gradient_clip_norm = {CLIP_NORM}
max_tokens = {MAX_TOKENS}
examples_for_full_weight = 1024
[encoding]
value_bits = 16
value_clip = {recipe.value_clip}
clip_norm = 0.0
[cohort]
n_min = 3
n_max = {devices // cohorts}
pool_min = {devices}
[gate]
enabled = false
[rounds]
cohorts = {cohorts}
open = "operator"
total = {rounds}
upload_window_s = 3600
answer_window_s = 3600
"""


DEVICE_CONFIG = """# Six devices are a small cohort; the default asks for ten.
[policy]
minimum_cohort = 3
[training]
threads = 1
# For the demo's check that the opened sum is exact: keep what was encoded.
[debug]
keep_encoded_vector = true
"""


def set_up(
    directory: Path, *, devices: int, cohorts: int, rounds: int, split: str, seed: int, say: Callable[[str], None]
) -> Stage:
    """Start the coordinator, publish the model, create the task, join the devices.

    Args:
        directory: empty; everything of the run lies under it.
        devices: how many.
        cohorts: of a night; `devices` is a multiple of it.
        rounds: nights.
        split: "dirichlet" or "scenario".
        seed: of the split.
        say: told what is going on.
    """
    recipe = RECIPES[split]
    say("coordinator: keys, certificates, database")
    coordinator = Coordinator.init(directory / "coordinator")
    coordinator.serve()
    try:
        say("coordinator: stories260K becomes a model package (Q8_0 GGUF and ONNX graphs over the same numbers)")
        coordinator.command("model", "add", str(MODEL), "--quantisation", "Q8_0", "--alias", "stories260K")
        task = directory / "task.toml"
        task.write_text(task_toml(recipe, devices=devices, cohorts=cohorts, rounds=rounds), "utf-8")
        coordinator.command("task", "create", "-f", str(task))
        token = coordinator.command("token", "create", "--uses", str(devices), "--json").json["token"]
        commands = read_commands(COMMANDS)
        fleet, texts = [], []
        for number, owned in enumerate(deal(commands, devices, split, seed), start=1):
            say(f"device {number}: joins, pulls and checks the package, registers {len(owned)} private sentences")
            device, text = add_device(directory / f"device{number}", token, owned)
            fleet.append(device)
            texts.append(text)
    except BaseException:
        coordinator.stop()
        raise
    return Stage(coordinator, fleet, texts, sorted({command.scenario for command in commands}), recipe)


def add_device(home: Path, token: str, owned: Sequence[Command]) -> tuple[Device, Path]:
    """Make a home with private text in it, and join.

    Returns:
        The device and the path of its text.
    """
    home.mkdir(parents=True, mode=0o700)
    (home / "config.toml").write_text(DEVICE_CONFIG, "utf-8")
    text = home / "commands.jsonl"
    write_private_text(owned, text)
    device = Device(home)
    device.command("join", token, "--name", home.name)
    device.command("model", "pull", TASK)
    device.command("data", "add", str(text), "--format", "prompt")
    return device, text
