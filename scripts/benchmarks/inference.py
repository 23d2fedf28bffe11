"""Measures the speed and memory of the two engines beside llama-cpp-python itself, on the same GGUF.

    scripts/bench inference [--json] [--shape 135m|0.5b] [--quantisation Q4_0|Q8_0] [--threads 2]
        [--repeat 5] [--adapter]

The shapes are SmolLM-135M's and Qwen2-0.5B's with random weights, made here. One contestant is one process. In each
of the repeated turns all read a prompt of 256 tokens and then write 96 greedily, 16 at a time in rotation, so that
what else the machine does hits all alike. (A burst is a call with all tokens so far; each engine keeps what it has
read, so it starts with one ordinary step.) Medians over the turns, and the best decile of the bursts.

* raw: `llama_cpp.Llama` as its own documentation uses it, generate(temp=0);
* llama, onnx: the product's engines in this process, without the process in between;
* llama_process, onnx_process: the engines as chat and serve use them, in a process of their own.

prompt_tokens_per_s counts to the first token; generation_tokens_per_s counts the tokens after it, and
generation_tokens_per_cpu_s the same by processor time, all threads and both processes together: what to read with
--threads 1 where the machine is not quiet. (With more, threads that wait for one that was interrupted spin.)
memory_mb is the largest proportional set (PSS) of the processes that ran the model, mapped weights included.
With --adapter, all engines carry a LoRA adapter of rank 8 on every matrix, and raw loads it by `lora_path`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import psutil

from nightshift.packages.package import ModelPackage

if TYPE_CHECKING:
    from nightshift.protocol.adapters import AdapterLayout, Tensors

CONTESTANTS = ("raw", "llama", "onnx", "llama_process", "onnx_process")
PROMPT_TOKENS, ANSWER_TOKENS, BURST_TOKENS, CONTEXT_TOKENS = 256, 96, 16, 1024
RATIOS = (("llama", "raw", 0.97), ("onnx", "llama", 0.9), ("llama_process", "raw", 0.97))
GENERATION = ("generation_tokens_per_s", "best_generation_tokens_per_s", "generation_tokens_per_cpu_s")

Generate = Callable[[list[int], int], Iterator[int]]


def build(directory: Path, shape: str, quantisation: str) -> Path:
    """The package of a shape, made once for a bench run."""
    from nightshift.packages.build import build_package
    from nightshift.packages.random_model import QWEN2_500M, SMOLLM_135M, write_random_model

    source = directory / f"{shape}.gguf"
    if not source.exists():
        print(f"making {shape} with random weights", file=sys.stderr)
        write_random_model(source, {"135m": SMOLLM_135M, "0.5b": QWEN2_500M}[shape], seed=1)
    folder = directory / f"{shape}-{quantisation}"
    if not folder.exists():
        build_package(source, folder, quantisation=quantisation)
    return folder


def random_adapter(package: ModelPackage) -> tuple[Tensors, AdapterLayout]:
    """Rank 8 on every matrix; what it says does not matter here, what it costs does."""
    from edge_client.engines.sessions import layout_for

    layout = layout_for(package.manifest, rank=8, alpha=16)
    draw = np.random.default_rng(0)
    shapes = layout.shapes().items()
    return {name: (draw.standard_normal(shape) * 1e-3).astype(np.float32) for name, shape in shapes}, layout


def raw(package: ModelPackage, adapter: tuple[Tensors, AdapterLayout] | None, threads: int) -> Generate:
    """llama-cpp-python's own class."""
    import llama_cpp

    from nightshift.protocol.adapters.gguf_adapter import to_gguf

    path = None
    if adapter is not None:
        size, path = package.manifest.dimensions, Path(tempfile.mkdtemp()) / "adapter.gguf"
        path.write_bytes(to_gguf(*adapter, architecture=size.family, heads=size.heads, kv_heads=size.kv_heads))
    model = llama_cpp.Llama(
        str(package.path("gguf")),
        n_ctx=CONTEXT_TOKENS,
        n_threads=threads,
        n_threads_batch=threads,
        lora_path=None if path is None else str(path),
        verbose=False,
    )

    def generate(prompt: list[int], count: int) -> Iterator[int]:
        return itertools.islice(model.generate(prompt, temp=0.0), count)

    return generate


def ours(
    contestant: str, package: ModelPackage, adapter: tuple[Tensors, AdapterLayout] | None, threads: int
) -> Generate:
    """One of the product's engines."""
    from edge_client.engines.engine import Engine, EngineKind
    from edge_client.engines.isolated import IsolatedEngine
    from edge_client.engines.llama_engine import LlamaEngine
    from edge_client.engines.onnx_engine import OnnxEngine
    from edge_client.engines.sampling import SamplingSettings
    from edge_client.engines.sessions import RuntimeSettings

    kind, runtime = EngineKind(contestant.partition("_")[0]), RuntimeSettings(threads=threads)
    engine: Engine
    if contestant.endswith("_process"):
        engine = IsolatedEngine(package, kind, threads=threads, context_tokens=CONTEXT_TOKENS)
    elif kind is EngineKind.LLAMA:
        engine = LlamaEngine(package, runtime, context_tokens=CONTEXT_TOKENS)
    else:
        engine = OnnxEngine(package, runtime, context_tokens=CONTEXT_TOKENS)
    if adapter is not None:
        engine.set_adapter(*adapter)
    return lambda prompt, count: engine.generate(prompt, SamplingSettings(max_tokens=count))


def contest(contestant: str, folder: Path, *, threads: int, adapted: bool) -> None:
    """The process of one contestant: every line on stdin is an order, and is answered with a line of JSON."""
    package = ModelPackage.open(folder, verify=False)
    adapter = random_adapter(package) if adapted else None
    generate = raw(package, adapter, threads) if contestant == "raw" else ours(contestant, package, adapter, threads)
    draw = np.random.default_rng(os.getpid())
    text: list[int] = []
    for order in sys.stdin:
        started, started_cpu_s = time.perf_counter(), _cpu_s()
        if order == "prompt\n":
            # A new prompt for every turn: nobody may profit from what it has read before.
            text = [1, *(int(token) for token in draw.integers(1000, 40_000, PROMPT_TOKENS - 1))]
            text += generate(text, 1)
            figures = {"prompt_tokens_per_s": PROMPT_TOKENS / (time.perf_counter() - started)}
        else:
            written = list(generate(text, BURST_TOKENS))
            figures = {
                "generation_tokens_per_s": len(written) / (time.perf_counter() - started),
                "generation_tokens_per_cpu_s": len(written) / (_cpu_s() - started_cpu_s),
                "memory_mb": _memory_mb(),
            }
            text += written
        print(json.dumps(figures), flush=True)


def _cpu_s() -> float:
    """Processor time of all threads of this process and its child; psutil's clock ticks 100 times a second only."""
    family = [psutil.Process(), *psutil.Process().children()]
    clocks = [path for each in family for path in Path(f"/proc/{each.pid}/task").glob("*/schedstat")]
    if clocks:  # Linux
        return sum(int(path.read_text().split()[0]) for path in clocks) / 1e9
    return sum(float(sum(each.cpu_times()[:2])) for each in family)


def _memory_mb() -> float:
    """Of the process that holds the model: this one, or its child."""
    this = psutil.Process()
    full = next(iter(this.children()), this).memory_full_info()
    return float(getattr(full, "pss", full.rss)) / 2**20


def measure(folder: Path, repeat: int, *, threads: int, adapted: bool) -> dict[str, dict[str, float]]:
    """Contestant -> its figures."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTESTANTS}
    with tempfile.TemporaryFile("w+") as log:  # llama.cpp writes a line for every matrix of an adapter
        processes = {name: _start(name, folder, threads=threads, adapted=adapted, log=log) for name in CONTESTANTS}
        try:
            for turn in range(repeat + 1):
                for order in ["prompt", *["burst"] * (ANSWER_TOKENS // BURST_TOKENS)]:
                    for name, process in processes.items():
                        figures = _order(order, name, process, log)
                        if turn > 0:  # the first warms up
                            found[name].append(figures)
        finally:
            for process in processes.values():
                process.kill()
                process.wait()
    return {name: _summary(each) for name, each in found.items()}


def _start(name: str, folder: Path, *, threads: int, adapted: bool, log: IO[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "scripts.benchmarks.inference", "--folder", str(folder), "--contestant", name]
    command += ["--threads", str(threads), *(["--adapter"] if adapted else [])]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)


def _order(order: str, name: str, process: subprocess.Popen[str], log: IO[str]) -> dict[str, float]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{order}\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{name} ended with status {process.wait()}: {_last_lines(log)}")
    figures: dict[str, float] = json.loads(line)
    return figures


def _last_lines(log: IO[str]) -> str:
    log.seek(0)
    return "".join(log.readlines()[-3:]).strip()


def _summary(found: list[dict[str, float]]) -> dict[str, float]:
    """Medians, and the best decile of generation: what a machine that others use as well does when it is free."""
    values = {figure: [each[figure] for each in found if figure in each] for figure in {**found[0], **found[1]}}
    best = float(np.quantile(values["generation_tokens_per_s"], 0.9))
    medians = {figure: statistics.median(each) for figure, each in values.items()}
    return medians | {"best_generation_tokens_per_s": best}


def main() -> None:
    """Parse the command line and print."""
    parser = argparse.ArgumentParser(prog="scripts/bench inference", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--shape", action="append", choices=["135m", "0.5b"], help="default: both")
    parser.add_argument("--quantisation", action="append", choices=["Q4_0", "Q8_0"], help="default: both")
    parser.add_argument("--repeat", type=int, default=5, help="turns that count")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--adapter", action="store_true", help="with a LoRA adapter of rank 8 on every matrix")
    parser.add_argument("--keep", type=Path, help="folder for the models, kept for the next run")
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contestant:
        contest(arguments.contestant, arguments.folder, threads=arguments.threads, adapted=arguments.adapter)
        return
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        directory = arguments.keep or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        for shape in arguments.shape or ["135m", "0.5b"]:
            for quantisation in arguments.quantisation or ["Q4_0", "Q8_0"]:
                found = measure(
                    build(directory, shape, quantisation),
                    arguments.repeat,
                    threads=arguments.threads,
                    adapted=arguments.adapter,
                )
                settings = {"quantisation": quantisation, "adapter": arguments.adapter, "threads": arguments.threads}
                rows.append({"shape": shape, **settings, **found})
                if not arguments.json:
                    show(rows[-1], found)
    if arguments.json:
        json.dump({"prompt": PROMPT_TOKENS, "answer": ANSWER_TOKENS, "rows": rows}, sys.stdout)
        print()


def show(row: dict[str, object], found: dict[str, dict[str, float]]) -> None:
    """A table for people."""
    print(
        f"{row['shape']} {row['quantisation']}{' with an adapter' if row['adapter'] else ''}, {row['threads']} threads"
    )
    for name, figures in found.items():
        print(
            f"  {name:14} prompt {figures['prompt_tokens_per_s']:7.1f}/s  "
            f"generation {figures['generation_tokens_per_s']:6.1f}/s "
            f"(best {figures['best_generation_tokens_per_s']:6.1f}, by processor time "
            f"{figures['generation_tokens_per_cpu_s']:6.1f})  {figures['memory_mb']:6.0f} MB"
        )
    for one, other, target in RATIOS:
        median, best, cpu = (found[one][figure] / found[other][figure] for figure in GENERATION)
        print(f"  {one} / {other}: {median:.3f}, best {best:.3f}, by processor time {cpu:.3f} (target {target})")


if __name__ == "__main__":
    main()
