"""Three real nights on one machine; see `scripts/demo --help`."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.console import Console

from scripts.night.fleet import CommandFailedError, Device
from scripts.night.measure import Measure, Request
from scripts.night.report import Answer, Report, Score, as_html, print_table
from scripts.night.stage import ALPHA, BATCH_SIZE, CLIP_NORM, MAX_TOKENS, RANK, ROOT, TASK, Stage, set_up

SHOWN_COMMANDS = (("wake me up at seven tomorrow", "alarm"), ("will it rain in the afternoon", "weather"))


def arguments() -> argparse.Namespace:
    """What the demo was asked for."""
    parser = argparse.ArgumentParser(
        prog="scripts/demo",
        description="A coordinator and some devices, as real processes, learn together for some nights.",
    )
    parser.add_argument("--devices", type=int, default=6, help="how many devices, 3 to 32 (default 6)")
    parser.add_argument("--rounds", type=int, default=3, help="how many nights, 1 to 20 (default 3)")
    parser.add_argument(
        "--cohorts", type=int, default=1, help="cohorts of a night, of equal size, at least 3 devices each (default 1)"
    )
    parser.add_argument(
        "--split",
        choices=("dirichlet", "scenario"),
        default="dirichlet",
        help="uneven mix of all scenarios, or scenarios of its own for each device (the hard case)",
    )
    parser.add_argument("--seed", type=int, default=2, help="of the split and the baselines (default 2)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep every directory, key, log and report.html here")
    chosen = parser.parse_args()
    if not 3 <= chosen.devices <= 32 or not 1 <= chosen.rounds <= 20:
        parser.error("--devices must be 3 to 32 and --rounds 1 to 20")
    if chosen.cohorts < 1 or chosen.devices % chosen.cohorts or chosen.devices // chosen.cohorts < 3:
        parser.error(
            f"--cohorts {chosen.cohorts} does not split {chosen.devices} devices into equal parts of at least 3"
        )
    if chosen.split == "scenario" and chosen.devices > 18:
        parser.error("--split scenario deals out 18 scenarios; --devices can be at most 18")
    if chosen.keep is not None and chosen.keep.exists() and any(chosen.keep.iterdir()):
        parser.error(f"--keep {chosen.keep} is not empty; name a new directory")
    return chosen


class Narrator:
    """Says on stderr what is going on, with the seconds since the start."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._start

    def __call__(self, text: str) -> None:
        """Print one line."""
        print(f"[{self.seconds:5.0f} s] {text}", file=sys.stderr, flush=True)


def start_baselines(stage: Stage, package: Path, directory: Path, rounds: int, seed: int) -> subprocess.Popen[bytes]:
    """Train the baselines in a process of its own; `baselines.json` appears when it ends."""
    request = Request(
        package=str(package),
        texts=[str(path) for path in stage.texts],
        scenarios=list(stage.scenarios),
        rank=RANK,
        alpha=ALPHA,
        steps=stage.recipe.steps * rounds,
        batch_size=BATCH_SIZE,
        learning_rate=stage.recipe.learning_rate,
        clip_norm=CLIP_NORM,
        max_tokens=MAX_TOKENS,
        seed=seed,
    )
    path = directory / "baselines-request.json"
    path.write_text(json.dumps(asdict(request)), "utf-8")
    return subprocess.Popen(
        [sys.executable, "-m", "scripts.night.measure", str(path), str(directory / "baselines.json")],
        cwd=ROOT,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )


def night(stage: Stage, number: int, order: Sequence[int], *, at_once: int, say: Narrator) -> None:
    """One night: everyone contributes, and at a later pass everyone answers.

    Args:
        stage: coordinator and devices.
        number: of the night, from 1.
        order: in which devices wake.
        at_once: 1 for a night in which no two devices ever run together.
        say: told what is going on.
    """
    cohorts = len(stage.coordinator.command("round", "open", TASK, "--json").json["cohorts"])
    if cohorts > 1:
        say(f"night {number}: the devices are dealt to {cohorts} cohorts")
    together = "one after the other" if at_once == 1 else f"{at_once} at a time"
    for what in ("contributes", "answers for the committee"):
        say(f"night {number}: every device {what}, {together}")
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(lambda index: stage.devices[index].run(), order))


def sums_are_exact(stage: Stage) -> bool:
    """Whether each opened vector is, integer for integer, the sum of what the devices encoded."""
    opened = sorted((stage.coordinator.directory / "objects" / "sums").glob("*.npy"))
    for path in opened:
        encoded = [device.home / "debug" / f"encoded-{path.stem}.npy" for device in stage.devices]
        total = sum(np.load(file).astype(np.uint64) for file in encoded if file.exists())
        if not np.array_equal(np.load(path), total):
            return False
    return bool(opened)


def bytes_sent(device: Device) -> int:
    """What the device's own ledger says has left it, in bytes."""
    return sum(entry["size_bytes"] for entry in device.command("ledger", "--json").json)


def answers(device: Device, engines: Sequence[str]) -> list[Answer]:
    """Two commands, through every engine, with and without the adopted adapter."""
    told = []
    for engine in engines:
        for command, expected in SHOWN_COMMANDS:
            said = {
                flag: device.command("generate", command, "--engine", engine, "--max-tokens", "8", *flag).stdout.strip()
                for flag in ((), ("--base",))
            }
            told.append(Answer(engine, command, expected, said[("--base",)], said[()]))
    return told


def installed_engines() -> list[str]:
    """ONNX Runtime always; llama.cpp where the extra is installed."""
    found = subprocess.run([sys.executable, "-c", "import llama_cpp"], capture_output=True, check=False, timeout=120)
    return ["onnx", "llama"] if found.returncode == 0 else ["onnx"]


def demo(chosen: argparse.Namespace, directory: Path, say: Narrator) -> Report:
    """Run everything under a directory and measure it."""
    stage = set_up(
        directory,
        devices=chosen.devices,
        cohorts=chosen.cohorts,
        rounds=chosen.rounds,
        split=chosen.split,
        seed=chosen.seed,
        say=say,
    )
    baselines = None
    try:
        package = Path(stage.devices[0].command("model", "list", "--json").json[0]["path"])
        baselines = start_baselines(stage, package, directory, chosen.rounds, chosen.seed)
        request = Request(**json.loads((directory / "baselines-request.json").read_text("utf-8")))
        measure = Measure(request)
        nights: list[Score] = []
        seconds: list[float] = []
        generator = np.random.default_rng(chosen.seed)
        for number in range(1, chosen.rounds + 1):
            start = time.monotonic()
            order = [int(index) for index in generator.permutation(chosen.devices)]
            night(stage, number, order, at_once=1 if number == 1 else 2, say=say)
            seconds.append(time.monotonic() - start)
            adapter = directory / f"release-{number}.safetensors"
            stage.coordinator.command("release", "export", f"{TASK}/{number}", "--output", str(adapter))
            nights.append(measure.score_file(adapter))
            say(f"night {number}: loss {nights[-1].loss:.3f}, accuracy {nights[-1].accuracy:.1%}")
        say("morning: every device adopts the last release")
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda device: device.run(), stage.devices))
        engines = installed_engines()
        told = answers(stage.devices[0], engines)
        exact = sums_are_exact(stage)
        sent = max(bytes_sent(device) for device in stage.devices)
        say("baselines: each device alone, and all data pooled")
        if baselines.wait(timeout=600) != 0:
            raise CommandFailedError("the baselines could not be trained; the lines above say why")
    finally:
        if baselines is not None and baselines.poll() is None:
            baselines.kill()
            baselines.wait()
        stage.coordinator.stop()
    trained = json.loads((directory / "baselines.json").read_text("utf-8"))
    local = [Score(**score) for score in trained["local"]]
    return Report(
        devices=chosen.devices,
        cohorts=chosen.cohorts,
        rounds=chosen.rounds,
        split=chosen.split,
        seed=chosen.seed,
        seconds=round(say.seconds, 1),
        base=Score(**trained["base"]),
        local=max(local, key=lambda score: score.accuracy),
        local_devices=local,
        nights=nights,
        federated=nights[-1],
        central=Score(**trained["central"]),
        sum_exact=exact,
        bytes_per_device=sent,
        engines=engines,
        night_seconds=[round(value, 1) for value in seconds],
        examples_per_device=[len(text.training) for text in measure.texts],
        holdout_rows=measure.rows,
        steps_per_night=stage.recipe.steps,
        answers=told,
    )


def main() -> int:
    """Run the demo; 0 if everything worked and the sums were exact."""
    chosen = arguments()
    say = Narrator()
    with tempfile.TemporaryDirectory(prefix="nightshift-demo-") as temporary:
        directory = (chosen.keep or Path(temporary)).resolve()
        directory.mkdir(parents=True, exist_ok=True)
        try:
            report = demo(chosen, directory, say)
        except CommandFailedError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        page = directory / "report.html" if chosen.keep else ROOT / "out" / "report.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(as_html(report), "utf-8")
        if chosen.json:
            print(json.dumps(report.as_json()))
        else:
            print_table(report, Console())
        say(f"the same with curves: {page}")
    return 0 if report.sum_exact else 1


if __name__ == "__main__":
    sys.exit(main())
