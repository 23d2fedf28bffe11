"""Compares ways of learning together: base, alone, federated (by method), central.

    scripts/bench learning [--json | --markdown] [--datasets …] [--seeds 1 2 3] [--what …] [--nights 5] [--jobs 1]

Real training on the quantised model that the repository ships, with the device's own trainer; the plan's clipping,
weights and stochastic encoding; sums in the clear, which is what secure aggregation opens.

* base: the model as it is;
* local: every device for itself, as many steps as over all nights of the federation;
* ffa, alternate, fedavg: the three ways to average LoRA; then alternate with FedProx on the devices, and with
  FedAvgM and FedAdam (at a rate of 0.03, and of 0.01) on the coordinator;
* rank 4, rank 16 and ranks 4/8/16: alternate in other ranks; in the last a third of the devices each trains 4, 8 and
  all 16 rank slots of one adapter, in cohorts of their own. All the others have rank 8;
* central: all text in one place, three times the steps of one device.

Each (dataset, seed, what) is one unit of work. A unit that is done is kept in the state file, so that a run that was
cut off goes on where it was. The target loss of a dataset and seed is that of the best device alone.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

# Before numpy: a pool of spinning BLAS threads would be measured as work.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from coordinator.aggregation.server_optimisers import ServerMethod, ServerOptimiser
from edge_client.data.tokens import TokenExample
from edge_client.engines.sessions import layout_for
from nightshift.packages.build import build_package
from nightshift.packages.package import ModelPackage
from nightshift.protocol.adapters import Side, TrainedSlots
from nightshift.protocol.adapters.layout import Method
from scripts.learning.datasets import DATA, NAMES, load
from scripts.learning.federation import Recipe, federate, local, start
from scripts.learning.report import markdown
from scripts.learning.scoring import Score, Scorer

MODEL = DATA / "stories260K" / "stories260K-f32.gguf"
RANK = 8
SCALE = 2.0
"""alpha / rank, the same for all."""
LEARNING_RATE = 5e-3
CENTRAL_STEPS = 3


@dataclass(frozen=True, slots=True)
class Scale:
    """How long everything trains."""

    nights: int
    steps: int


def recipes(scale: Scale, batch_size: int) -> dict[str, Recipe]:
    """The federations that are compared."""

    def recipe(method: Method, **other: object) -> Recipe:
        return Recipe(method, scale.nights, scale.steps, batch_size, LEARNING_RATE, **other)  # type: ignore[arg-type]  # named below

    return {
        "ffa": recipe(Method.FFA),
        "alternate": recipe(Method.ALTERNATE),
        "fedavg": recipe(Method.FEDAVG),
        "alternate+fedprox": recipe(Method.ALTERNATE, proximal=0.01),
        "alternate+fedavgm": recipe(Method.ALTERNATE, server=ServerOptimiser(ServerMethod.FEDAVGM, momentum=0.5)),
        "alternate+fedadam": recipe(
            Method.ALTERNATE, server=ServerOptimiser(ServerMethod.FEDADAM, learning_rate=0.03, momentum=0.5)
        ),
        "alternate+fedadam 0.01": recipe(
            Method.ALTERNATE, server=ServerOptimiser(ServerMethod.FEDADAM, learning_rate=0.01, momentum=0.5)
        ),
        "rank 4": recipe(Method.ALTERNATE, ranks=(4,)),
        "rank 16": recipe(Method.ALTERNATE, ranks=(16,)),
        "ranks 4/8/16": recipe(Method.ALTERNATE, ranks=(4, 8, 16)),
    }


BASELINES = ("base", "local", "central")


@dataclass(frozen=True, slots=True)
class Unit:
    """One piece of work, and the key under which its result is kept."""

    dataset: str
    seed: int
    what: str
    scale: Scale

    @property
    def key(self) -> str:
        """Two units with one key have the same result, but for the randomness of the rounding."""
        return json.dumps(asdict(self), sort_keys=True)


def work(unit: Unit, package_directory: Path) -> dict[str, object]:
    """Do one unit: a row of the result."""
    began = time.process_time()
    package = ModelPackage.open(package_directory)
    dataset = load(unit.dataset, unit.seed)
    recipe = recipes(unit.scale, dataset.batch_size).get(unit.what)
    rank = RANK if recipe is None else max(recipe.ranks)
    layout = layout_for(package.manifest, rank=rank, alpha=SCALE * rank)
    scorer = Scorer(package, dataset, layout)
    row: dict[str, object] = {"dataset": unit.dataset, "seed": unit.seed, "what": unit.what}
    alone = Recipe(Method.FEDAVG, unit.scale.nights, unit.scale.steps, dataset.batch_size, LEARNING_RATE)
    steps = unit.scale.nights * unit.scale.steps

    def trained(examples: Sequence[TokenExample], device: int, steps: int) -> Score:
        adapter = local(
            package,
            start(layout, unit.seed),
            TrainedSlots.whole(layout, Side.BOTH),
            examples,
            alone,
            seed=1000 * unit.seed + device,
            steps=steps,
            max_tokens=dataset.max_tokens,
        )
        return scorer.score(adapter)

    if unit.what == "base":
        row |= asdict(scorer.score(None))
    elif unit.what == "central":
        pooled = [example for examples in scorer.training for example in examples]
        row |= asdict(trained(pooled, 0, CENTRAL_STEPS * steps))
    elif unit.what == "local":
        scores = [trained(examples, device, steps) for device, examples in enumerate(scorer.training)]
        row |= {name: statistics.mean(asdict(score)[name] for score in scores) for name in asdict(scores[0])}
        row["best_loss"] = min(score.loss for score in scores)
        row["best_accuracy"] = max(score.accuracy for score in scores)
    else:
        assert recipe is not None, "what is no baseline is a federation"
        nights = []
        sent = 0.0
        for night in federate(
            package,
            layout,
            scorer.training,
            recipe,
            seed=unit.seed,
            max_tokens=dataset.max_tokens,
        ):
            sent += night.upload_bytes
            nights.append(asdict(scorer.score(night.adapter)))
        row |= nights[-1] | {"nights": nights, "upload_bytes": sent}
    return row | {"cpu_s": time.process_time() - began}


class State:
    """Rows that are done, one JSON line each, appended and synced as they come."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.rows: dict[str, dict[str, object]] = {}
        if path.exists():
            for line in path.read_text("utf-8").splitlines():
                try:
                    entry = json.loads(line)
                except json.JSONDecodeError:
                    continue  # the last line of a run that was cut off
                self.rows[entry["key"]] = entry["row"]

    def keep(self, unit: Unit, row: dict[str, object]) -> None:
        """Make a row durable."""
        self.rows[unit.key] = row
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": unit.key, "row": row}) + "\n")
            file.flush()
            os.fsync(file.fileno())


def with_targets(rows: Sequence[dict[str, object]]) -> list[dict[str, object]]:
    """Add to every federation the nights that it took to beat the best device alone; None where it never did."""
    targets = {(row["dataset"], row["seed"]): row["best_loss"] for row in rows if row["what"] == "local"}
    done = []
    for row in rows:
        target, nights = targets.get((row["dataset"], row["seed"])), row.get("nights")
        if target is not None and isinstance(nights, list):
            reached = [number for number, night in enumerate(nights, start=1) if night["loss"] <= target]
            done.append(row | {"nights_to_target": reached[0] if reached else None})
        else:
            done.append(row)
    return done


def show(rows: Sequence[dict[str, object]], scale: Scale) -> None:
    """A table for people: medians over the seeds."""
    print(f"{scale.nights} nights of {scale.steps} steps, rank {RANK} where nothing else is said; medians over seeds")
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        print(
            f"\n{dataset}\n  {'':20} {'loss':>7} {'acc':>7} {'worst loss':>11} {'worst acc':>10} {'kB sent':>8} nights"
        )
        mine = [row for row in rows if row["dataset"] == dataset]
        for what in dict.fromkeys(row["what"] for row in mine):
            some = [row for row in mine if row["what"] == what]
            loss, accuracy, worst_loss, worst_accuracy = (
                _median(row[name] for row in some) for name in ("loss", "accuracy", "worst_loss", "worst_accuracy")
            )
            line = f"  {what!s:20} {loss:7.3f} {accuracy:7.1%} {worst_loss:11.3f} {worst_accuracy:10.1%}"
            if "upload_bytes" in some[0]:
                reached = [str(row.get("nights_to_target") or "-") for row in some]
                line += f" {_median(row['upload_bytes'] for row in some) / 1000:8.0f} {' '.join(reached)}"
            print(line)


def _median(values: Iterable[object]) -> float:
    return statistics.median(float(str(value)) for value in values)


def main() -> None:
    """Parse the command line, do what is not done, print."""
    parser = argparse.ArgumentParser(prog="scripts/bench learning", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--json", action="store_true", help="print one JSON list of rows")
    parser.add_argument("--markdown", action="store_true", help="train nothing; print tables of what is there")
    parser.add_argument("--datasets", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--nights", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40, help="optimiser steps of one device in one night")
    parser.add_argument("--jobs", type=int, default=1, help="units at a time, one thread each")
    parser.add_argument("--what", nargs="+", choices=[*BASELINES, *recipes(Scale(1, 1), 1)])
    parser.add_argument(
        "--state", type=Path, default=Path.home() / ".cache" / "nightshift" / "bench" / "learning.jsonl"
    )
    chosen = parser.parse_args()
    scale = Scale(chosen.nights, chosen.steps)
    kinds = chosen.what or [*BASELINES, *recipes(scale, 1)]
    units = [Unit(name, seed, what, scale) for name in chosen.datasets for seed in chosen.seeds for what in kinds]
    state = State(chosen.state)
    if chosen.markdown:
        print(markdown(with_targets([state.rows[unit.key] for unit in units if unit.key in state.rows])))
        return
    todo = [unit for unit in units if unit.key not in state.rows]
    print(f"{len(units)} units, {len(units) - len(todo)} done before ({chosen.state})", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="nightshift-learning-") as directory:
        package = Path(directory) / "package"
        build_package(MODEL, package, quantisation="Q8_0")
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(chosen.jobs, mp_context=context) as pool:
            futures = {pool.submit(work, unit, package): unit for unit in todo}
            for number, future in enumerate(as_completed(futures), start=1):
                unit = futures[future]
                row = future.result()
                state.keep(unit, row)
                figures = f"loss {row['loss']:.3f}, accuracy {row['accuracy']:.1%}, {row['cpu_s']:.0f} CPU s"
                print(f"[{number}/{len(todo)}] {unit.dataset} {unit.seed} {unit.what}: {figures}", file=sys.stderr)
    rows = with_targets([state.rows[unit.key] for unit in units])
    if chosen.json:
        print(json.dumps(rows))
    else:
        show(rows, scale)


if __name__ == "__main__":
    main()
