"""The four graphs against each other: one model, so one answer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnxruntime
import pytest

from nightshift.packages.package import ModelPackage
from nightshift.packages.session import open_session

Feed = dict[str, np.ndarray]
MakeFeed = Callable[..., Feed]
Packages = Callable[[str], ModelPackage]


def results(session: onnxruntime.InferenceSession, feed: Feed) -> Feed:
    wanted = {entry.name for entry in session.get_inputs()}
    names = [entry.name for entry in session.get_outputs()]
    values = session.run(None, {name: value for name, value in feed.items() if name in wanted})
    return dict(zip(names, values, strict=True))


def empty_cache(package: ModelPackage, rows: int) -> Feed:
    d = package.manifest.dimensions
    return {
        f"past.{layer}.{part}": np.zeros((rows, d.kv_heads, 0, d.head_dim), np.float32)
        for layer in range(d.layers)
        for part in ("key", "value")
    }


@pytest.mark.parametrize("scheme", ["Q8_0", "Q4_0", "F16"])
def test_train_and_evaluate_give_the_same_loss(stories: Packages, make_feed: MakeFeed, scheme: str) -> None:
    package = stories(scheme)
    feed = make_feed(package, rows=3, length=19)
    feed["weights"] = np.random.default_rng(0).uniform(0, 2, (3, 19)).astype(np.float32)
    token_loss = results(open_session(package, "evaluate", threads=1), feed)["token_loss"]
    for role in ("train", "train_recompute"):
        loss = results(open_session(package, role, threads=1), feed)["loss"]
        assert loss.shape == ()
        np.testing.assert_allclose(loss, token_loss.sum() / feed["weights"].sum(), rtol=1e-5)


def test_recomputation_changes_nothing(stories: Packages, make_feed: MakeFeed) -> None:
    package = stories("Q8_0")
    feed = make_feed(package, rows=2, length=33, rank=4)
    kept = results(open_session(package, "train", threads=1), feed)
    again = results(open_session(package, "train_recompute", threads=1), feed)
    assert kept.keys() == again.keys()
    for name, value in kept.items():
        np.testing.assert_allclose(again[name], value, rtol=1e-5, atol=1e-7)


def test_recomputation_really_runs_the_blocks_again(stories: Packages) -> None:
    import onnx

    def products(role: str) -> int:
        graph = onnx.load(stories("Q8_0").path(role), load_external_data=False).graph
        return sum(node.op_type == "MatMulNBits" for node in graph.node)

    layers, quantised = 5, 6  # down_proj is float in this model
    assert products("train") == layers * quantised
    assert products("train_recompute") == 2 * layers * quantised


def test_batch_length_and_rank_are_free_in_one_session(stories: Packages, make_feed: MakeFeed) -> None:
    package = stories("Q4_0")
    session = open_session(package, "train", threads=1)
    for rows, length, rank in [(1, 1, 1), (1, 40, 16), (5, 3, 2)]:
        feed = make_feed(package, rows=rows, length=length, rank=rank)
        found = results(session, feed)
        assert np.isfinite(found["loss"])
        for name in package.manifest.lora_shapes():
            assert found[f"grad.{name}"].shape == feed[name].shape


def test_the_loss_of_a_batch_is_the_weighted_mean_of_its_rows(stories: Packages, make_feed: MakeFeed) -> None:
    package = stories("Q8_0")
    session = open_session(package, "train", threads=1)
    feed = make_feed(package, rows=4, length=9)
    feed["weights"][1] = 0.25
    whole = results(session, feed)
    mass = feed["weights"].sum(axis=1)
    rows = [
        results(session, feed | {name: feed[name][row : row + 1] for name in ("input_ids", "labels", "weights")})
        for row in range(4)
    ]
    for name, value in whole.items():
        mean = sum(share * row[name] for share, row in zip(mass / mass.sum(), rows, strict=True))
        np.testing.assert_allclose(value, mean, rtol=1e-4, atol=1e-6)


def test_weights_that_sum_to_less_than_one_are_not_blown_up(stories: Packages, make_feed: MakeFeed) -> None:
    package = stories("Q8_0")
    session = open_session(package, "train", threads=1)
    feed = make_feed(package, rows=1, length=4)
    full = results(session, feed | {"weights": np.array([[0, 0, 1, 0]], np.float32)})
    tenth = results(session, feed | {"weights": np.array([[0, 0, 0.1, 0]], np.float32)})
    none = results(session, feed | {"weights": np.zeros((1, 4), np.float32)})
    np.testing.assert_allclose(tenth["loss"], full["loss"] * 0.1, rtol=1e-5)
    assert none["loss"] == 0
    assert all(not none[f"grad.{name}"].any() for name in package.manifest.lora_shapes())


def test_padding_on_the_right_influences_nothing(stories: Packages, make_feed: MakeFeed) -> None:
    package = stories("Q8_0")
    session = open_session(package, "train_recompute", threads=1)
    feed = make_feed(package, rows=1, length=12)
    padded = {name: np.pad(feed[name], ((0, 0), (0, 7))) for name in ("input_ids", "labels", "weights")}
    short, long = results(session, feed), results(session, feed | padded)
    for name, value in short.items():
        np.testing.assert_allclose(long[name], value, rtol=1e-4, atol=1e-6)


def test_an_adapter_of_zeros_and_one_without_scale_are_the_base(stories: Packages, make_feed: MakeFeed) -> None:
    package = stories("Q8_0")
    session = open_session(package, "evaluate", threads=1)
    feed = make_feed(package, rows=2, length=8)
    zeros = {
        name: np.zeros((1, size), np.float32) if name.endswith("a") else np.zeros((size, 1), np.float32)
        for name, shape in package.manifest.lora_shapes().items()
        for size in shape
        if size != "r"
    }
    with_adapter = results(session, feed)["token_loss"]
    base = results(session, feed | zeros)["token_loss"]
    off = results(session, feed | {"lora_scale": np.array(0, np.float32)})["token_loss"]
    np.testing.assert_array_equal(base, off)
    assert np.abs(base - with_adapter).max() > 1e-3


@pytest.mark.parametrize(("scheme", "tolerance"), [("F16", 1e-4), ("Q8_0", 0.15)])
def test_decoding_in_pieces_follows_evaluation(
    stories: Packages, make_feed: MakeFeed, scheme: str, tolerance: float
) -> None:
    # F16 is exact; with 8-bit codes decode rounds activations too (accuracy level 4), evaluate does not.
    package = stories(scheme)
    decode, evaluate = (open_session(package, role, threads=1) for role in ("decode", "evaluate"))
    feed = make_feed(package, rows=2, length=15)
    cache = empty_cache(package, 2)
    for first, last in [(0, 6), (6, 7), (7, 8), (8, 15)]:
        piece = {"input_ids": feed["input_ids"][:, first:last]}
        found = results(decode, feed | piece | cache)
        logits = found.pop("logits")
        assert logits.shape == (2, 1, package.manifest.dimensions.vocabulary)
        cache = {name.replace("present", "past"): value for name, value in found.items()}
        assert cache["past.0.key"].shape[2] == last
        chances = logits[:, 0] - np.log(np.exp(logits[:, 0]).sum(-1, keepdims=True))
        label = feed["labels"][:, last - 1]
        expected = results(evaluate, feed)["token_loss"][:, last - 1]
        np.testing.assert_allclose(-chances[np.arange(2), label], expected, atol=tolerance)


def test_the_graphs_declare_the_contract(stories: Packages) -> None:
    package = stories("Q8_0")
    lora = set(package.manifest.lora_shapes())
    caches = {f"{layer}.{part}" for layer in range(5) for part in ("key", "value")}
    for role, inputs, outputs in [
        ("evaluate", {"labels", "weights"}, {"token_loss"}),
        ("train", {"labels", "weights"}, {"loss", *(f"grad.{name}" for name in lora)}),
        ("train_recompute", {"labels", "weights"}, {"loss", *(f"grad.{name}" for name in lora)}),
        ("decode", {f"past.{name}" for name in caches}, {"logits", *(f"present.{name}" for name in caches)}),
    ]:
        session = open_session(package, role, threads=1)
        assert {entry.name for entry in session.get_inputs()} == {"input_ids", "lora_scale"} | lora | inputs
        assert {entry.name for entry in session.get_outputs()} == outputs


def test_training_lowers_the_loss(stories: Packages, make_feed: MakeFeed) -> None:
    package = stories("Q4_0")
    session = open_session(package, "train", threads=1)
    feed = make_feed(package, rows=2, length=16, rank=4)
    names = list(package.manifest.lora_shapes())
    first = results(session, feed)["loss"]
    for _ in range(20):
        found = results(session, feed)
        for name in names:
            feed[name] = feed[name] - np.float32(0.3) * found[f"grad.{name}"]
    assert results(session, feed)["loss"] < 0.9 * first
