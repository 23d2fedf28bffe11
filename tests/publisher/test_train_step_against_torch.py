"""The train step against torch's autograd, on the weights that llama.cpp would use.

The reference shares nothing with the builder: it reads model.gguf with the `gguf` package's own
reader and dequantiser, keeps the llama family's interleaved rows and turns interleaved pairs, and
runs in float64, so what is measured is the graph's own rounding.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import gguf
import numpy as np
import pytest

from edge_client.data.batches import BatchOrder, collate
from edge_client.data.prepare import prepare
from edge_client.engines.sessions import RuntimeSettings, layout_for
from edge_client.training.adamw import Schedule
from edge_client.training.settings import TrainingSettings
from edge_client.training.trainer import train
from nightshift.packages.build import build_package
from nightshift.packages.package import ModelPackage
from nightshift.packages.random_model import SMALL, write_random_model
from nightshift.packages.session import open_session
from nightshift.protocol.adapters import Side, TrainedSlots, initialise
from nightshift.protocol.manifest import ModelDimensions
from tests.support.stories import commands

torch = pytest.importorskip("torch", reason="needs the publisher extra (torch)")
pytestmark = pytest.mark.publisher
# More threads than the machine has idle cores spin against each other on tensors as small as these.
torch.set_num_threads(1)

STORIES = Path(__file__).parents[2] / "data/stories260K/stories260K-f32.gguf"
LOSS_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-4
CURVE_TOLERANCE = 1e-3

SHAPES = {
    "tied": SMALL,
    "untied": dataclasses.replace(SMALL, tied_embeddings=False),
    "many-slices": dataclasses.replace(SMALL, vocabulary=9000, tied_embeddings=False),
    "all-heads": dataclasses.replace(SMALL, kv_heads=4),
    "one-layer-odd-ffn": dataclasses.replace(SMALL, layers=1, ffn=172),
    "qwen2": dataclasses.replace(SMALL, family="qwen2"),
    "qwen3": dataclasses.replace(SMALL, family="qwen3", head_dim=32),
}


class Reference:
    """The model in torch, float64, from model.gguf."""

    def __init__(self, package: ModelPackage) -> None:
        self.d: ModelDimensions = package.manifest.dimensions
        self.targets = package.manifest.lora_targets
        self.w = {}
        for tensor in gguf.GGUFReader(package.path("gguf")).tensors:
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            shape = [int(size) for size in reversed(tensor.shape)]
            self.w[tensor.name] = torch.from_numpy(np.array(values, np.float64)).reshape(shape)

    def norm(self, x, gain):
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + self.d.rms_eps) * gain

    def turn(self, x):
        d = self.d
        angles = torch.arange(x.shape[2], dtype=torch.float64)[:, None] * (
            d.rope_theta ** (-torch.arange(0, d.head_dim, 2, dtype=torch.float64) / d.head_dim)
        )
        c, s = angles.cos(), angles.sin()
        if d.family == "llama":
            a, b = x[..., 0::2], x[..., 1::2]
            return torch.stack([a * c - b * s, b * c + a * s], -1).flatten(-2)
        a, b = x.chunk(2, -1)
        return torch.cat([a * c - b * s, b * c + a * s], -1)

    def linear(self, x, layer, gguf_part, projection, lora, scale):
        y = x @ self.w[f"blk.{layer}.{gguf_part}.weight"].T
        if f"blk.{layer}.{gguf_part}.bias" in self.w:
            y = y + self.w[f"blk.{layer}.{gguf_part}.bias"]
        if projection in self.targets:
            a, b = (lora[f"layers.{layer}.{projection}.lora_{side}"] for side in "ab")
            if self.d.family == "llama" and projection in ("q_proj", "k_proj"):
                # llama.cpp's convert_hf_to_gguf.py: permute()
                heads = self.d.heads if projection == "q_proj" else self.d.kv_heads
                b = b.reshape(heads, 2, -1, b.shape[1]).swapaxes(1, 2).reshape(b.shape)
            y = y + scale * (x @ a.T @ b.T)
        return y

    def token_losses(self, ids, labels, lora, scale):
        d = self.d
        batch, length = ids.shape
        x = self.w["token_embd.weight"][ids]
        future = torch.ones(length, length, dtype=torch.bool).triu(1)

        def heads(t, n):
            return t.reshape(batch, length, n, d.head_dim).transpose(1, 2)

        for i in range(d.layers):
            h = self.norm(x, self.w[f"blk.{i}.attn_norm.weight"])
            q, k, v = (
                heads(self.linear(h, i, f"attn_{n}", f"{n}_proj", lora, scale), d.heads if n == "q" else d.kv_heads)
                for n in "qkv"
            )
            if d.family == "qwen3":
                q = self.norm(q, self.w[f"blk.{i}.attn_q_norm.weight"])
                k = self.norm(k, self.w[f"blk.{i}.attn_k_norm.weight"])
            q, k = self.turn(q), self.turn(k)
            k, v = (t.repeat_interleave(d.heads // d.kv_heads, 1) for t in (k, v))
            scores = (q @ k.transpose(-1, -2) / d.head_dim**0.5).masked_fill(future, -torch.inf)
            o = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, -1)
            x = x + self.linear(o, i, "attn_output", "o_proj", lora, scale)
            h = self.norm(x, self.w[f"blk.{i}.ffn_norm.weight"])
            gate = self.linear(h, i, "ffn_gate", "gate_proj", lora, scale)
            up = self.linear(h, i, "ffn_up", "up_proj", lora, scale)
            x = x + self.linear(torch.nn.functional.silu(gate) * up, i, "ffn_down", "down_proj", lora, scale)
        x = self.norm(x, self.w["output_norm.weight"])
        logits = x @ self.w.get("output.weight", self.w["token_embd.weight"]).T
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").reshape(
            batch, length
        )


def batch(package: ModelPackage, *, rows: int, length: int, rank: int) -> dict[str, np.ndarray]:
    """Right-padded rows of unequal length, loss on the later part of each, an adapter of `rank`."""
    generator = np.random.default_rng(7)
    ids = generator.integers(0, package.manifest.dimensions.vocabulary, (rows, length + 1))
    weights = np.zeros((rows, length), np.float32)
    for row in range(rows):
        end = length - 3 * row
        ids[row, end:] = 0
        weights[row, 2 + row : end] = generator.uniform(0.5, 1.5, end - 2 - row)
    feed = {"input_ids": ids[:, :-1], "labels": ids[:, 1:], "weights": weights, "lora_scale": np.array(0.5, np.float32)}
    for name, shape in package.manifest.lora_shapes().items():
        sizes = [rank if size == "r" else int(size) for size in shape]
        feed[name] = (generator.standard_normal(sizes) * 0.1).astype(np.float32)
    return feed


def check(package: ModelPackage, *, recompute: bool, rank: int = 3) -> None:
    feed = batch(package, rows=3, length=17, rank=rank)
    session = open_session(package, "train_recompute" if recompute else "train", threads=1)
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(None, feed), strict=True))

    lora = {name: torch.tensor(feed[name], dtype=torch.float64, requires_grad=True) for name in feed if "lora_" in name}
    ids, labels = torch.tensor(feed["input_ids"]), torch.tensor(feed["labels"])
    losses = Reference(package).token_losses(ids, labels, lora, float(feed["lora_scale"]))
    weights = torch.tensor(feed["weights"], dtype=torch.float64)
    loss = (losses * weights).sum() / weights.sum().clamp(min=1)
    loss.backward()

    assert abs(float(found["loss"]) - loss.item()) <= LOSS_TOLERANCE * max(1.0, loss.item())
    assert set(names) == {"loss", *(f"grad.{name}" for name in package.manifest.lora_shapes())}
    for name in package.manifest.lora_shapes():
        want = lora[name].grad.numpy()
        size = np.linalg.norm(want)
        assert size > 1e-6, f"{name}: nothing to compare"
        assert np.linalg.norm(found[f"grad.{name}"] - want) <= GRADIENT_TOLERANCE * size, name

    evaluate = open_session(package, "evaluate", threads=1)
    (token_loss,) = evaluate.run(None, feed)
    np.testing.assert_allclose(token_loss, (losses * weights).detach().numpy(), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("scheme", ["Q8_0", "Q4_0", "F16"])
def test_loss_and_gradients_of_a_real_model_follow_torch(tmp_path: Path, scheme: str, recompute: bool) -> None:
    check(build_package(STORIES, tmp_path / "package", quantisation=scheme), recompute=recompute)


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("scheme", ["Q8_0", "Q4_0"])
@pytest.mark.parametrize("shape", list(SHAPES))
def test_loss_and_gradients_of_random_shapes_follow_torch(
    tmp_path: Path, shape: str, scheme: str, recompute: bool
) -> None:
    source = tmp_path / "random.gguf"
    write_random_model(source, SHAPES[shape], seed=11)
    check(build_package(source, tmp_path / "package", quantisation=scheme), recompute=recompute)


def test_an_adapter_on_some_projections_only_follows_torch(tmp_path: Path) -> None:
    package = build_package(STORIES, tmp_path / "package", lora_targets=("q_proj", "v_proj"))
    check(package, recompute=True, rank=1)
    check(package, recompute=False, rank=8)


@pytest.mark.parametrize(
    ("scheme", "side", "recompute"),
    [("Q4_0", Side.BOTH, True), ("Q8_0", Side.B, False)],
    ids=["q4-both-recomputed", "q8-b-kept"],
)
def test_a_hundred_steps_follow_torch_and_its_adamw(tmp_path: Path, scheme: str, side: Side, recompute: bool) -> None:
    """The trainer as devices run it, beside autograd, clip_grad_norm_ and AdamW of torch on the same batches."""
    package = build_package(STORIES, tmp_path / "package", quantisation=scheme)
    examples = prepare(package, [commands(tmp_path / "rows", rows=160)], max_tokens=48).train
    layout = layout_for(package.manifest, rank=4, alpha=8.0)
    parent = initialise(layout, bytes(32))
    settings = TrainingSettings(
        steps=100, batch_size=8, micro_batch_size=4, learning_rate=2e-3, schedule=Schedule.COSINE,
        weight_decay=0.01, clip_norm=1.0, max_tokens=48, seed=3,
    )  # fmt: skip
    runtime = RuntimeSettings(threads=1, recompute=recompute)
    ours = train(package, parent, TrainedSlots(layout, side, layout.rank), examples, settings, runtime=runtime)

    reference = Reference(package)
    lora = {name: torch.tensor(tensor, dtype=torch.float64) for name, tensor in parent.items()}
    trained = [lora[name].requires_grad_() for name in layout.trained_names(side)]
    optimiser = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    order = BatchOrder([example.length for example in examples], settings.batch_size, settings.seed)
    theirs = []
    for step in range(settings.steps):
        batch = collate([examples[index] for index in order.indices(step)])
        weights = torch.tensor(batch.weights, dtype=torch.float64)
        losses = reference.token_losses(torch.tensor(batch.input_ids), torch.tensor(batch.labels), lora, layout.scale)
        loss = (losses * weights).sum() / weights.sum()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, settings.clip_norm)
        optimiser.param_groups[0]["lr"] = settings.schedule.rate(settings.learning_rate, step, settings.steps)
        optimiser.step()
        theirs.append(loss.item())
    assert theirs[-1] < 0.5 * theirs[0], "nothing was learnt: the curves would agree whatever they do"
    np.testing.assert_allclose(ours.losses, theirs, rtol=CURVE_TOLERANCE)
