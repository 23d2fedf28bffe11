"""What reaches ONNX Runtime: no dead nodes, and no dequantisation that it could run early and keep."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import pytest

from nightshift.packages.graph import GraphBuilder
from nightshift.packages.lowering import live_nodes
from nightshift.packages.package import ModelPackage

GRAPHS = ["decode", "decode_adapter", "evaluate", "train", "train_recompute"]


def test_what_no_output_needs_is_left_out() -> None:
    graph = GraphBuilder()
    x = graph.input("x", "float32", ("n",))
    kept, inverse = graph.emit_many("RmsNorm", x, "gain", count=2, epsilon=0.1)
    graph.emit("Mul", graph.emit("Sigmoid", x), inverse)
    graph.output(kept, "y", "float32", ("n",))
    assert [(node.op, len(node.outputs)) for node in live_nodes(graph)] == [("RmsNorm", 1), ("Identity", 1)]


@pytest.mark.parametrize("role", GRAPHS)
def test_every_dequantisation_depends_on_an_input(stories: Callable[[str], ModelPackage], role: str) -> None:
    graph = onnx.load(stories("Q4_0").path(role), load_external_data=False).graph
    dynamic = {entry.name for entry in graph.input}
    indices = []
    for node in graph.node:
        if dynamic.intersection(node.input):
            dynamic.update(node.output)
        if node.op_type == "GatherBlockQuantized":
            indices.append(node.input[1])
    assert indices
    assert dynamic.issuperset(indices)


@pytest.mark.parametrize("role", GRAPHS)
def test_the_graphs_carry_no_weights_of_their_own(stories: Callable[[str], ModelPackage], role: str) -> None:
    model = onnx.load(stories("Q4_0").path(role), load_external_data=False)
    assert (model.ir_version, model.opset_import[0].version) == (10, 21)
    own = [entry for entry in model.graph.initializer if entry.data_location != onnx.TensorProto.EXTERNAL]
    assert sum(len(entry.raw_data) for entry in own) < 4096
    external = [entry for entry in model.graph.initializer if entry.data_location == onnx.TensorProto.EXTERNAL]
    assert external
    for entry in external:
        place = {pair.key: pair.value for pair in entry.external_data}
        assert place["location"] == "weights.bin"
        assert int(place["offset"]) % 4096 == 0


def test_eight_bit_codes_are_dequantised_once_where_there_are_many_tokens(
    stories: Callable[[str], ModelPackage],
) -> None:
    for role in GRAPHS:
        graph = onnx.load(stories("Q8_0").path(role), load_external_data=False).graph
        by_codes = sum(node.op_type == "MatMulNBits" for node in graph.node)
        assert (by_codes > 0) == role.startswith("decode")


def test_only_decode_rounds_activations(stories: Callable[[str], ModelPackage]) -> None:
    for role in GRAPHS:
        graph = onnx.load(stories("Q4_0").path(role), load_external_data=False).graph
        levels = {
            attribute.i
            for node in graph.node
            if node.op_type == "MatMulNBits"
            for attribute in node.attribute
            if attribute.name == "accuracy_level"
        }
        assert levels == ({4} if role.startswith("decode") else {0})
