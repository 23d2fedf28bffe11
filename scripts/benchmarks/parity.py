"""Measures how far the two engines, and a float64 reference, agree on real text.

    scripts/bench parity [--json] [--positions 1500] [--model FILE.gguf]

The model is stories260K (data/stories260K) unless --model names another of architecture llama, quantised here to Q8_0,
Q4_0 and F16, bare and with an adapter that is trained here for a moment; the text is HWU64 (data/hwu64). Each
row compares the engines as they ship, ONNX Runtime's decode graph and llama.cpp, on the probabilities of every
token at every position:

* kl: mean of KL(llama.cpp || ONNX Runtime), nats;
* top1: share of positions at which both put the same token first;
* perplexity_ratio: perplexity of the text in ONNX Runtime over that in llama.cpp;
* reference: the same three for each engine, and for the evaluate graph the difference of its losses,
  against the float64 reference (scripts/benchmarks/peers/float_model.py).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_client.data.prepare import package_tokenizer
from edge_client.data.tokens import TokenExample
from edge_client.engines.llama_engine import LlamaEngine
from edge_client.engines.onnx_engine import OnnxEngine
from edge_client.engines.sampling import log_softmax
from edge_client.engines.sessions import RuntimeSettings, layout_for
from edge_client.training.settings import TrainingSettings
from edge_client.training.trainer import train
from nightshift.packages.build import build_package
from nightshift.packages.package import ModelPackage
from nightshift.protocol.adapters import AdapterLayout, Side, Tensors, TrainedSlots, initialise
from nightshift.protocol.adapters.gguf_adapter import to_gguf
from scripts.benchmarks.peers.float_model import FloatModel

DATA = Path(__file__).parents[2] / "data"
TWO_THREADS = RuntimeSettings(threads=2)
PASSAGE_TOKENS = 64
KL_TARGET, TOP_TARGET, PERPLEXITY_TARGET = 1e-4, 0.99, 0.005

Logs = list[NDArray[np.float64]]


def passages(package: ModelPackage, positions: int) -> list[list[int]]:
    """Real commands as token sequences of one length, enough of them for so many positions."""
    tokenizer = package_tokenizer(package)
    lines = (DATA / "hwu64" / "commands.jsonl").read_text("utf-8").splitlines()
    tokens = tokenizer.encode("\n".join(json.loads(line)["text"] for line in lines[5000:8000]))
    count = -(-positions // PASSAGE_TOKENS)
    body = PASSAGE_TOKENS + 1 - len(tokenizer.prefix)
    return [[*tokenizer.prefix, *tokens[at * body : (at + 1) * body]] for at in range(count)]


def trained_adapter(package: ModelPackage) -> tuple[Tensors, AdapterLayout]:
    """An adapter on every matrix, trained on other commands until it answers differently from the base."""
    tokenizer, layout = package_tokenizer(package), layout_for(package.manifest, rank=8, alpha=16)
    lines = (DATA / "hwu64" / "commands.jsonl").read_text("utf-8").splitlines()[:200]
    examples = []
    for line in lines:
        tokens = np.array([*tokenizer.prefix, *tokenizer.encode(json.loads(line)["text"]), *tokenizer.suffix])
        examples.append(TokenExample(tokens[:PASSAGE_TOKENS], np.ones(min(len(tokens), PASSAGE_TOKENS), np.bool_)))
    settings = TrainingSettings(steps=40, batch_size=8)
    start = initialise(layout, bytes(32))
    return train(
        package, start, TrainedSlots.whole(layout, Side.BOTH), examples, settings, runtime=TWO_THREADS
    ).adapter, layout


def engine_logs(engine: OnnxEngine | LlamaEngine, texts: Sequence[Sequence[int]]) -> Logs:
    """Log-probabilities of every token after every position but the last, [positions, vocabulary] for each text."""
    return [log_softmax(engine.logits(text[:-1])) for text in texts]


def figures(expected: Logs, found: Logs, texts: Sequence[Sequence[int]]) -> dict[str, float]:
    """KL(expected || found), agreement about the top token, and perplexity of found over that of expected."""
    theirs, ours = np.concatenate(expected), np.concatenate(found)
    labels = np.concatenate([text[1:] for text in texts])
    at = np.arange(len(labels))
    return {
        "kl": float((np.exp(theirs) * (theirs - ours)).sum(-1).mean()),
        "top1": float((theirs.argmax(-1) == ours.argmax(-1)).mean()),
        "perplexity_ratio": float(np.exp((theirs[at, labels] - ours[at, labels]).mean())),
    }


def measure(package: ModelPackage, positions: int, adapter: tuple[Tensors, AdapterLayout] | None) -> dict[str, object]:
    """One row."""
    texts, size = passages(package, positions), package.manifest.dimensions
    tensors, layout = adapter or (None, None)
    with tempfile.TemporaryDirectory() as directory:
        file = None
        if tensors is not None and layout is not None:
            file = Path(directory) / "adapter.gguf"
            file.write_bytes(
                to_gguf(tensors, layout, architecture=size.family, heads=size.heads, kv_heads=size.kv_heads)
            )
        reference = FloatModel(package.path("gguf"), file)
        exact = [reference.log_probabilities(text[:-1]) for text in texts]
    with OnnxEngine(package, TWO_THREADS) as onnx:
        onnx.set_adapter(tensors, layout)
        ours = engine_logs(onnx, texts)
        examples = [TokenExample(np.array(text), np.ones(len(text), np.bool_)) for text in texts]
        losses = onnx.token_losses(examples)
    with LlamaEngine(package, TWO_THREADS) as llama:
        llama.set_adapter(tensors, layout)
        theirs = engine_logs(llama, texts)
    evaluated = [
        abs(loss + logs[np.arange(len(loss)), text[1:]]).max()
        for loss, logs, text in zip(losses, exact, texts, strict=True)
    ]
    return {
        "model": package.manifest.name,
        "quantisation": package.manifest.quantisation.scheme.value,
        "adapter": adapter is not None,
        "positions": sum(len(text) - 1 for text in texts),
        **figures(theirs, ours, texts),
        "reference": {
            "onnxruntime": figures(exact, ours, texts),
            "llama.cpp": figures(exact, theirs, texts),
            "evaluate_largest_loss_difference": float(max(evaluated)),
        },
    }


def rows(model: Path, schemes: Sequence[str], positions: int) -> Iterator[dict[str, object]]:
    """All rows, as they are measured."""
    for scheme in schemes:
        with tempfile.TemporaryDirectory() as directory:
            package = build_package(model, Path(directory) / "package", quantisation=scheme)
            for adapter in (None, trained_adapter(package)):
                yield measure(package, positions, adapter)


def main() -> None:
    """Parse the command line and print."""
    parser = argparse.ArgumentParser(prog="scripts/bench parity", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--positions", type=int, default=1500, help="of text, at least")
    parser.add_argument("--model", type=Path, default=DATA / "stories260K" / "stories260K-f32.gguf")
    parser.add_argument("--quantisation", action="append", choices=["Q8_0", "Q4_0", "F16"], help="default: all three")
    arguments = parser.parse_args()
    found = []
    for row in rows(arguments.model, arguments.quantisation or ["Q8_0", "Q4_0", "F16"], arguments.positions):
        found.append(row)
        if not arguments.json:
            show(row)
    if arguments.json:
        json.dump({"rows": found}, sys.stdout, indent=1)
        print()


def show(row: dict[str, object]) -> None:
    """A row for people."""
    adapter = "adapter" if row["adapter"] else "base"
    print(f"{row['model']} {row['quantisation']} {adapter}, {row['positions']} positions")
    reference = row["reference"]
    assert isinstance(reference, dict)
    pairs = {"onnxruntime | llama.cpp": row, "float64 | onnxruntime": reference["onnxruntime"]}
    for name, figure in (pairs | {"float64 | llama.cpp": reference["llama.cpp"]}).items():
        kl, top, ratio = figure["kl"], figure["top1"], figure["perplexity_ratio"]
        met = kl <= KL_TARGET and top >= TOP_TARGET and abs(ratio - 1) <= PERPLEXITY_TARGET
        print(f"  {name:24} kl {kl:.2e}  top1 {top:.4f}  perplexity {ratio:.5f}{'' if met else '  (target missed)'}")
    print(f"  evaluate graph, largest loss difference {reference['evaluate_largest_loss_difference']:.1e}")


if __name__ == "__main__":
    main()
