"""Measures training steps, and torch + peft beside them, on models of the same shape in the same run.

    scripts/bench training [--json] [--shape 135m|0.5b] [--peer peft] [--length 256] [--batch 1] [--rank 8]
                           [--targets q_proj,v_proj] [--threads 2] [--steps 5] [--repeat 1] [--allocators …]

A step is the gradient of a batch in which every token counts, clipping and AdamW: `edge_client.training.train` on our
side, torch's autograd and torch.optim.AdamW on the other. Weights are random; ours are Q4_0 (or --scheme Q8_0), the
peer's float32 or bfloat16, loaded from a safetensors file. For each side and mode:

* peak_rss_mb: peak resident memory of a process that does nothing else, mapped weights included;
* cpu_s_per_step: processor seconds of all threads, median over the steps after the first; on a shared machine
  compare these, and rather the ratios than the seconds;
* load_s: from files to a model that is ready for its first step, imports not included.

Every mode runs once under every allocator that is found here; the one with the smallest product of peak and time is
the best for that mode, and `--repeat` repeats that one, all modes taking turns. The figures are its medians.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Final

from nightshift.packages.random_model import QWEN2_500M, SMOLLM_135M

SHAPES: Final = {"135m": SMOLLM_135M, "0.5b": QWEN2_500M}
OURS: Final = ("recompute", "keep")
PEFT: Final = ("fp32", "bf16", "fp32+checkpointing", "bf16+checkpointing")
FIGURES: Final = ("peak_rss_mb", "cpu_s_per_step", "load_s")
PEER: Final = ("torch==2.13.0", "peft==0.21.2", "transformers==5.23.0")
PEER_SCRIPT: Final = Path(__file__).parent / "peers" / "training_peft.py"
MIB: Final = 2**20


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """A bound on the ratio of one of our modes to one of the peer's; None: no bound."""

    what: str
    ours: str
    peer: str
    memory: float
    time: float


TARGETS: Final = (
    Target("least memory, beside fp32", "recompute", "fp32", 1 / 3, 1.5),
    Target("memory to spare, beside fp32", "keep", "fp32", 2 / 3, 1.1),
    Target("least memory, beside gradient checkpointing", "recompute", "fp32+checkpointing", 1 / 2, 1.0),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Contender:
    """One mode of one side, and how to start it: interpreter, script and its arguments."""

    side: str
    mode: str
    command: tuple[str, ...]


def peak_rss_mb() -> float:
    """Peak resident memory of this process in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss of a new process starts at what its parent held
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / MIB


def run_ours(arguments: argparse.Namespace) -> dict[str, float]:
    """This process: the device's own trainer on a package."""
    import numpy as np

    from edge_client.data.tokens import TokenExample
    from edge_client.engines.sessions import RuntimeSettings, layout_for, open_session
    from edge_client.training.settings import TrainingSettings
    from edge_client.training.trainer import Progress, train
    from nightshift.packages.package import ModelPackage
    from nightshift.protocol.adapters import Side, TrainedSlots, initialise
    from nightshift.protocol.manifest import FileRole

    runtime = RuntimeSettings(threads=arguments.threads, recompute=arguments.child == "recompute")
    package = ModelPackage.open(arguments.package, verify=False)
    layout = layout_for(package.manifest, rank=arguments.rank, alpha=2.0 * arguments.rank)
    generator = np.random.default_rng(0)
    length = arguments.length + 1  # the last token is a label only
    examples = [
        TokenExample(
            generator.integers(3, package.manifest.dimensions.vocabulary, length), np.ones(length, dtype=np.bool_)
        )
        for _ in range(arguments.batch)
    ]
    settings = TrainingSettings(
        steps=arguments.steps + 1,
        batch_size=arguments.batch,
        micro_batch_size=arguments.batch,
        learning_rate=1e-4,
        max_tokens=length,
        checkpoint_every=0,
    )
    cpu_s, wall_s = [time.process_time()], [time.perf_counter()]

    def on_step(_: Progress) -> None:
        cpu_s.append(time.process_time())
        wall_s.append(time.perf_counter())

    outcome = train(
        package,
        initialise(layout, bytes(32)),
        TrainedSlots.whole(layout, Side.BOTH),
        examples,
        settings,
        on_step=on_step,
        runtime=runtime,
    )
    peak = peak_rss_mb()
    before = time.perf_counter()  # once more, by itself
    package = ModelPackage.open(arguments.package, verify=False)
    open_session(package, FileRole.TRAIN_RECOMPUTE if runtime.recompute else FileRole.TRAIN, runtime)
    load_s = time.perf_counter() - before
    # The first step includes loading and warms up.
    return {
        "peak_rss_mb": peak,
        "cpu_s_per_step": statistics.median(np.diff(cpu_s)[1:]),
        "wall_s_per_step": statistics.median(np.diff(wall_s)[1:]),
        "load_s": load_s,
        "loss": outcome.last_loss,
        "trained_values": layout.vector_length(Side.BOTH),
    }


def allocators(jemalloc: Path | None) -> dict[str, dict[str, str]]:
    """Name -> what it adds to the environment, for those that exist here."""
    from edge_client.training.allocator import JEMALLOC_DIRECTORIES, allocator_environment

    directories = [jemalloc.parent] if jemalloc else list(JEMALLOC_DIRECTORIES)
    found = {
        "malloc": {},
        "malloc-trim": allocator_environment({}, jemalloc=False, trim=True),
        "jemalloc": allocator_environment({}, jemalloc=True, trim=False, directories=directories),
    }
    return {name: added for name, added in found.items() if added or name == "malloc"}


def child(contender: Contender, added: dict[str, str], threads: int) -> dict[str, float]:
    """Run one measurement in a process of its own and read the JSON object that it prints last.

    Raises:
        RuntimeError: it failed; with its last line.
    """
    # Threads that wait sleep, on both sides: on a shared machine spinning would be counted as work.
    environment = os.environ | added | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    environment["OPENBLAS_NUM_THREADS"] = "1"
    done = subprocess.run(contender.command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit status {done.returncode}"
        raise RuntimeError(f"{contender.side} {contender.mode}: {last}")
    figures: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


def peer_python(home: Path) -> Path:
    """The interpreter of an environment with torch, transformers and peft, made at first use."""
    python, ready = home / "bin" / "python", home / "ready"
    if not ready.exists():
        print(f"installing {', '.join(PEER)} into {home} (once, some minutes)", file=sys.stderr)
        venv.create(home, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *PEER], check=True, stdout=sys.stderr)
        ready.touch()
    return python


def prepare_ours(arguments: argparse.Namespace, folder: Path) -> list[Contender]:
    """Build the package; our contenders."""
    from nightshift.packages.build import build_package
    from nightshift.packages.random_model import write_random_model

    source = folder / "random.gguf"
    write_random_model(source, SHAPES[arguments.shape], seed=1)
    build_package(
        source, folder / "package", quantisation=arguments.scheme, lora_targets=tuple(arguments.targets.split(","))
    )
    source.unlink()
    return [
        Contender(
            "nightshift",
            mode,
            (sys.executable, __file__, "--child", mode, "--package", str(folder / "package"), *_shared(arguments)),
        )
        for mode in OURS
    ]


def prepare_peer(arguments: argparse.Namespace, folder: Path, python: Path) -> list[Contender]:
    """Write the peer's models; its contenders."""
    dimensions = json.dumps(dataclasses.asdict(SHAPES[arguments.shape]))
    contenders = []
    for mode in PEFT:
        precision, _, extra = mode.partition("+")
        place = ("--folder", str(folder / precision), "--precision", precision)
        command = (str(python), str(PEER_SCRIPT), *place)
        if not extra:
            subprocess.run([*command, "--prepare", dimensions], check=True, capture_output=True)
        flags = ("--checkpointing",) if extra else ()
        contenders.append(Contender("peft", mode, (*command, *flags, *_shared(arguments))))
    return contenders


def _shared(arguments: argparse.Namespace) -> tuple[str, ...]:
    names = ("batch", "length", "rank", "targets", "threads", "steps")
    return tuple(part for name in names for part in (f"--{name}", str(getattr(arguments, name))))


def measure(
    contenders: list[Contender], added: dict[str, dict[str, str]], *, threads: int, repeat: int
) -> dict[str, dict[str, dict[str, object]]]:
    """Side -> mode -> figures under its best allocator, and those under every other.

    Args:
        contenders: what to measure.
        added: allocator -> what it adds to the environment.
        threads: of each process.
        repeat: runs under the best allocator.
    """
    first: dict[Contender, dict[str, dict[str, float]]] = {contender: {} for contender in contenders}
    for allocator, environment in added.items():
        for contender in contenders:
            run = first[contender][allocator] = child(contender, environment, threads)
            figures = ", ".join(f"{name} {run[name]:.2f}" for name in FIGURES)
            print(f"{contender.side} {contender.mode}, {allocator}: {figures}", file=sys.stderr, flush=True)
    best = {
        contender: min(runs, key=lambda name: runs[name]["peak_rss_mb"] * runs[name]["cpu_s_per_step"])
        for contender, runs in first.items()
    }
    runs = {contender: [first[contender][name]] for contender, name in best.items()}
    for _ in range(repeat - 1):
        for contender in contenders:
            runs[contender].append(child(contender, added[best[contender]], threads))
    results: dict[str, dict[str, dict[str, object]]] = {}
    for contender in contenders:
        results.setdefault(contender.side, {})[contender.mode] = {
            **{name: statistics.median(run[name] for run in runs[contender]) for name in FIGURES},
            "wall_s_per_step": statistics.median(run["wall_s_per_step"] for run in runs[contender]),
            "allocator": best[contender],
            "by_allocator": {
                name: {figure: run[figure] for figure in FIGURES} for name, run in first[contender].items()
            },
        }
    return results


def judge(ours: dict[str, dict[str, object]], peer: dict[str, dict[str, object]]) -> list[dict[str, object]]:
    """Each target with its ratios, and whether it is met."""
    verdicts = []
    for target in TARGETS:
        memory, seconds = (
            float(str(ours[target.ours][name])) / float(str(peer[target.peer][name]))
            for name in ("peak_rss_mb", "cpu_s_per_step")
        )
        verdicts.append(
            {
                "target": target.what,
                "memory_ratio": memory,
                "memory_at_most": target.memory,
                "time_ratio": seconds,
                "time_at_most": target.time,
                "met": memory <= target.memory and seconds <= target.time,
            }
        )
    return verdicts


def report(arguments: argparse.Namespace, results: dict[str, dict[str, dict[str, object]]]) -> dict[str, object]:
    """The JSON object; its figures are those of the mode with the least memory, the peer's those of fp32."""
    ours = results["nightshift"]
    found: dict[str, object] = {
        name: getattr(arguments, name)
        for name in ("shape", "scheme", "length", "batch", "rank", "targets", "threads", "steps", "repeat")
    }
    found |= {
        "machine": platform.machine(),
        "onnxruntime": importlib.metadata.version("onnxruntime"),
        **{name: ours["recompute"][name] for name in FIGURES},
        "modes": ours,
    }
    if "peft" in results:
        peer = results["peft"]
        found["peer"] = {"name": " ".join(PEER), **{name: peer["fp32"][name] for name in FIGURES}, "modes": peer}
        if arguments.shape == "135m":
            found["targets_met"] = judge(ours, peer)
    return found


def show(results: dict[str, dict[str, dict[str, object]]], found: dict[str, object]) -> None:
    """Tables for people."""
    print(f"{'':32} {'peak MB':>9} {'CPU s/step':>11} {'load s':>7}  allocator")
    for side, modes in results.items():
        for mode, figures in modes.items():
            peak, seconds, load = (float(str(figures[name])) for name in FIGURES)
            print(f"{side + ' ' + mode:32} {peak:9.0f} {seconds:11.2f} {load:7.2f}  {figures['allocator']}")
    verdicts = found.get("targets_met", [])
    assert isinstance(verdicts, list)
    for verdict in verdicts:
        of_memory = f"{verdict['memory_ratio']:.2f} of the memory (at most {verdict['memory_at_most']:.2f})"
        of_time = f"{verdict['time_ratio']:.2f} of the time (at most {verdict['time_at_most']:.2f})"
        print(f"{verdict['target']}: {of_memory}, {of_time}: {'met' if verdict['met'] else 'missed'}")


def main() -> None:
    """Parse the command line and print."""
    parser = argparse.ArgumentParser(prog="scripts/bench training", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--shape", choices=list(SHAPES), default="135m")
    parser.add_argument("--scheme", choices=["Q4_0", "Q8_0"], default="Q4_0")
    parser.add_argument("--length", type=int, default=256, help="tokens of a sequence")
    parser.add_argument("--batch", type=int, default=1, help="sequences")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--targets", default="q_proj,v_proj", help="projections with an adapter")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5, help="measured steps of each process")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--allocators", help="only these, of malloc,malloc-trim,jemalloc")
    parser.add_argument("--jemalloc", type=Path, help="libjemalloc.so.2, where it is not in a usual place")
    parser.add_argument("--peer", choices=["peft"])
    parser.add_argument(
        "--peer-environment", type=Path, default=Path.home() / ".cache" / "nightshift" / "bench" / PEER[1]
    )
    parser.add_argument("--child", choices=OURS, help=argparse.SUPPRESS)
    parser.add_argument("--package", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(run_ours(arguments)))
        return
    added = allocators(arguments.jemalloc)
    if arguments.allocators:
        added = {name: added[name] for name in arguments.allocators.split(",") if name in added}
    with tempfile.TemporaryDirectory(prefix="nightshift-bench-") as name:
        contenders = prepare_ours(arguments, Path(name))
        if arguments.peer:
            contenders += prepare_peer(arguments, Path(name), peer_python(arguments.peer_environment))
        results = measure(contenders, added, threads=arguments.threads, repeat=arguments.repeat)
    found = report(arguments, results)
    if arguments.json:
        print(json.dumps(found))
    else:
        show(results, found)


if __name__ == "__main__":
    main()
