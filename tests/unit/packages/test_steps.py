"""The graphs against each other: one model, so one answer."""

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
        graph = onnx.load(stories("Q4_0").path(role), load_external_data=False).graph
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


def test_tokens_of_weight_zero_get_no_logits(stories: Packages, make_feed: MakeFeed) -> None:
    package = stories("Q4_0")
    feed = make_feed(package, rows=2, length=11)
    whole = results(open_session(package, "evaluate", threads=1), feed)["token_loss"]
    answers = np.zeros((2, 11), np.float32)
    answers[0, 7:], answers[1, 3:5] = 0.5, 2.0
    # A label outside the vocabulary would fail if anything looked at it.
    part = feed | {"weights": answers, "labels": np.where(answers > 0, feed["labels"], 10**6)}
    found = results(open_session(package, "evaluate", threads=1), part)["token_loss"]
    np.testing.assert_allclose(found, whole * answers, rtol=1e-5, atol=1e-7)
    assert not found[answers == 0].any()
    steps = [results(open_session(package, role, threads=1), part) for role in ("train", "train_recompute")]
    for step in steps:
        np.testing.assert_allclose(step["loss"], found.sum() / answers.sum(), rtol=1e-5)
    for name in package.manifest.lora_shapes():
        assert steps[0][f"grad.{name}"].any()
        np.testing.assert_allclose(steps[1][f"grad.{name}"], steps[0][f"grad.{name}"], rtol=1e-4, atol=1e-7)


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


def decode_adapter(feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The adapter of a feed as the decode graph takes it: B times alpha / r."""
    return {
        name: tensor * feed["lora_scale"] if name.endswith("lora_b") else tensor
        for name, tensor in feed.items()
        if ".lora_" in name
    }


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize(("scheme", "tolerance"), [("F16", 1e-4), ("Q8_0", 0.15)])
def test_decoding_in_pieces_follows_evaluation(
    stories: Packages, make_feed: MakeFeed, scheme: str, tolerance: float, rows: int
) -> None:
    # F16 is exact; with 8-bit codes decode rounds activations too (accuracy level 4), evaluate does not.
    package = stories(scheme)
    decode, evaluate = (open_session(package, role, threads=1) for role in ("decode_adapter", "evaluate"))
    feed = make_feed(package, rows=rows, length=15)
    adapter = decode_adapter(feed)
    cache = empty_cache(package, rows)
    # Several sequences at once take one token each after their first piece.
    for first, last in [(0, 6), (6, 7), (7, 8), *([(8, 15)] if rows == 1 else [])]:
        piece = {"input_ids": feed["input_ids"][:, first:last], "past_length": np.array(first)}
        found = results(decode, adapter | piece | cache)
        logits = found.pop("logits")
        assert logits.shape == (rows, package.manifest.dimensions.vocabulary)
        cache = {name.replace("present", "past"): value for name, value in found.items()}
        assert cache["past.0.key"].shape[2] == last
        chances = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        label = feed["labels"][:, last - 1]
        expected = results(evaluate, feed)["token_loss"][:, last - 1]
        np.testing.assert_allclose(-chances[np.arange(rows), label], expected, atol=tolerance)


def test_without_an_adapter_both_decode_graphs_say_the_same_to_the_bit(stories: Packages, make_feed: MakeFeed) -> None:
    package = stories("Q8_0")
    feed = make_feed(package, rows=1, length=9)
    piece = {"input_ids": feed["input_ids"], "past_length": np.array(0), **empty_cache(package, 1)}
    silent = {n: t * np.float32(0) if n.endswith("lora_b") else t for n, t in decode_adapter(feed).items()}
    base = results(open_session(package, "decode", threads=1), piece)
    adapted = results(open_session(package, "decode_adapter", threads=1), piece | silent)
    for name, value in base.items():
        np.testing.assert_array_equal(adapted[name], value)


def test_a_cache_that_is_bound_as_past_and_present_is_extended_in_place(stories: Packages, make_feed: MakeFeed) -> None:
    package, capacity = stories("F16"), 20
    session = open_session(package, "decode", threads=1)
    ids = make_feed(package, rows=1, length=9)["input_ids"]
    whole = results(session, {"input_ids": ids, "past_length": np.array(0), **empty_cache(package, 1)})
    binding, buffers = session.io_binding(), {}
    for name in empty_cache(package, 1):
        shape = (1, package.manifest.dimensions.kv_heads, capacity, package.manifest.dimensions.head_dim)
        buffers[name] = np.full(shape, np.nan, np.float32)  # what is not written yet must not be read
        value = onnxruntime.OrtValue.ortvalue_from_numpy(buffers[name])
        binding.bind_ortvalue_input(name, value)
        binding.bind_ortvalue_output(name.replace("past", "present"), value)
    for first, last in [(0, 4), (4, 5), (5, 9)]:
        binding.bind_cpu_input("input_ids", np.ascontiguousarray(ids[:, first:last]))
        binding.bind_cpu_input("past_length", np.array(first))
        binding.bind_output("logits", "cpu")
        session.run_with_iobinding(binding)
    found = next(value.numpy() for value in binding.get_outputs() if value.shape() == [1, 512])
    np.testing.assert_allclose(found, whole["logits"], atol=1e-4)
    for name, buffer in buffers.items():
        np.testing.assert_allclose(buffer[:, :, :9], whole[name.replace("past", "present")], atol=1e-5)
        assert np.isnan(buffer[:, :, 9:]).all()


def test_the_graphs_declare_the_contract(stories: Packages) -> None:
    package = stories("Q8_0")
    lora = set(package.manifest.lora_shapes())
    caches = {f"{layer}.{part}" for layer in range(5) for part in ("key", "value")}
    for role, inputs, outputs in [
        ("evaluate", {"labels", "weights"}, {"token_loss"}),
        ("train", {"labels", "weights"}, {"loss", *(f"grad.{name}" for name in lora)}),
        ("train_recompute", {"labels", "weights"}, {"loss", *(f"grad.{name}" for name in lora)}),
    ]:
        session = open_session(package, role, threads=1)
        assert {entry.name for entry in session.get_inputs()} == {"input_ids", "lora_scale"} | lora | inputs
        assert {entry.name for entry in session.get_outputs()} == outputs
    for role, adapter in [("decode", set()), ("decode_adapter", lora)]:
        session = open_session(package, role, threads=1)
        past = {f"past.{name}" for name in caches}
        assert {entry.name for entry in session.get_inputs()} == {"input_ids", "past_length"} | adapter | past
        assert {entry.name for entry in session.get_outputs()} == {"logits", *(f"present.{name}" for name in caches)}


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
