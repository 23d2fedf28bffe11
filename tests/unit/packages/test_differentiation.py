"""Every differentiation rule against finite differences, run in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from nightshift.packages.differentiation import RULES, gradients
from nightshift.packages.graph import GraphBuilder
from nightshift.packages.lowering import to_onnx
from nightshift.packages.quantised import QuantisedMatrix
from nightshift.packages.weights_file import WeightsFile

Values = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """Ops on the named values, and the shape of their result."""

    emit: Callable[[GraphBuilder], str]
    values: Values
    shape: tuple[int, ...]


GENERATOR = np.random.default_rng(3)


def draw(*shape: int) -> np.ndarray:
    return GENERATOR.standard_normal(shape).astype(np.float32)


ANGLES = GENERATOR.uniform(0, 6, (5, 4)).astype(np.float32)

GAIN = draw(8)

MASK = np.where(np.tri(4, 6, dtype=bool), np.float32(0), np.float32(-1e9))

CASES: dict[str, list[Case]] = {
    "Add": [Case(lambda g: g.emit("Add", "x", "y"), {"x": draw(2, 3), "y": draw(2, 3)}, (2, 3))],
    "Mul": [
        Case(lambda g: g.emit("Mul", "x", "y"), {"x": draw(2, 3), "y": draw(2, 3)}, (2, 3)),
        Case(lambda g: g.emit("Mul", "x", "x"), {"x": draw(2, 3)}, (2, 3)),
    ],
    "SwiGlu": [
        Case(lambda g: g.emit("SwiGlu", "x", "y"), {"x": draw(3, 4), "y": draw(3, 4)}, (3, 4)),
        Case(lambda g: g.emit("SwiGlu", "x", "x"), {"x": draw(3, 4)}, (3, 4)),
    ],
    "Attention": [
        Case(
            lambda g: g.emit_many("Attention", "q", "k", "v", g.constant(MASK), count=2, scale=0.7)[0],
            {"q": draw(2, 3, 4, 5), "k": draw(2, 3, 6, 5), "v": draw(2, 3, 6, 5)},
            (2, 3, 4, 5),
        ),
        Case(
            lambda g: g.emit_many("Attention", "x", "x", "x", g.constant(MASK[:3, :3]), count=2, scale=0.4)[0],
            {"x": draw(1, 2, 3, 5)},
            (1, 2, 3, 5),
        ),
    ],
    "Linear": [Case(lambda g: g.emit("Linear", "x", "w"), {"x": draw(2, 3, 4), "w": draw(5, 4)}, (2, 3, 5))],
    "FrozenLinear": [
        Case(lambda g, m=matrix: g.emit("FrozenLinear", "x", matrix=m), {"x": draw(2, 3, 64)}, (2, 3, 7))
        for matrix in ("eight", "four", "float", "transposed")
    ],
    "RmsNorm": [
        Case(
            lambda g: g.emit_many("RmsNorm", "x", g.constant(GAIN), count=2, epsilon=0.01)[0],
            {"x": draw(2, 3, 8)},
            (2, 3, 8),
        )
    ],
    "RotaryEmbedding": [
        Case(
            lambda g: g.emit("RotaryEmbedding", "x", g.constant(np.cos(ANGLES)), g.constant(np.sin(ANGLES))),
            {"x": draw(2, 3, 5, 8)},
            (2, 3, 5, 8),
        )
    ],
    "Reshape": [Case(lambda g: g.emit("Reshape", "x", g.integers(0, -1, 2)), {"x": draw(2, 3, 4)}, (2, 6, 2))],
    "Transpose": [Case(lambda g: g.emit("Transpose", "x", perm=[0, 2, 3, 1]), {"x": draw(2, 3, 4, 5)}, (2, 4, 5, 3))],
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> WeightsFile:
    generator = np.random.default_rng(4)
    with WeightsFile(tmp_path_factory.mktemp("weights") / "weights.bin") as file:
        for name, bits in (("eight", 8), ("four", 4)):
            codes = generator.integers(0, 256, (7, 64 * bits // 8), np.uint8)
            scales = generator.uniform(-0.02, 0.02, (7, 2)).astype(np.float32)
            file.add_quantised(name, QuantisedMatrix(codes, scales, bits))
        file.add_float("float", generator.standard_normal((7, 64)).astype(np.float32), transposed=False)
        file.add_float("transposed", generator.standard_normal((7, 64)).astype(np.float32), transposed=True)
    return file


def session(graph: GraphBuilder, weights: WeightsFile, name: str) -> onnxruntime.InferenceSession:
    path = weights.path.parent / f"{name}.onnx"
    path.write_bytes(to_onnx(graph, weights))
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_every_rule_has_a_case() -> None:
    assert set(CASES) == set(RULES)


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=f"{op}-{index}") for op, cases in CASES.items() for index, case in enumerate(cases)]
)
def test_a_rule_agrees_with_finite_differences(case: Case, weights: WeightsFile, tmp_path: Path) -> None:
    graph = GraphBuilder()
    for name, value in case.values.items():
        graph.input(name, "float32", value.shape)
    graph.input("dy", "float32", case.shape)
    y = case.emit(graph)
    names = gradients(graph, list(graph.nodes), y, "dy", list(case.values))
    graph.output(y, "result", "float32", case.shape)
    for name, gradient in zip(case.values, names, strict=True):
        graph.output(gradient, f"grad.{name}", "float32", case.values[name].shape)
    run = session(graph, weights, tmp_path.name).run
    generator = np.random.default_rng(9)
    feed = {**case.values, "dy": generator.standard_normal(case.shape).astype(np.float32)}

    def objective(name: str, moved: np.ndarray) -> float:
        result = run(["result"], {**feed, name: moved.astype(np.float32)})[0]
        return float((result.astype(np.float64) * feed["dy"]).sum())

    for name, gradient in zip(case.values, run(None, feed)[1:], strict=True):
        assert gradient.shape == case.values[name].shape
        direction, step = generator.standard_normal(gradient.shape), 0.02
        # Five-point stencil: its error is of order step**4, so float32 rounding is what remains.
        at = [objective(name, case.values[name] + k * step * direction) for k in (-2, -1, 1, 2)]
        slope = (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * step)
        scale = np.linalg.norm(gradient) * np.linalg.norm(direction)
        assert scale > 0
        assert abs((gradient * direction).sum() - slope) <= 1e-4 * scale


def test_gradients_of_a_value_used_twice_add_up(weights: WeightsFile, tmp_path: Path) -> None:
    graph = GraphBuilder()
    graph.input("x", "float32", (2, 2))
    y = graph.emit("Add", "x", graph.emit("Mul", "x", "x"))
    (gradient,) = gradients(graph, list(graph.nodes), y, graph.constant(np.ones((2, 2), np.float32)), ["x"])
    graph.output(gradient, "grad.x", "float32", (2, 2))
    x = draw(2, 2)
    np.testing.assert_allclose(session(graph, weights, tmp_path.name).run(None, {"x": x})[0], 1 + 2 * x, rtol=1e-6)


def test_an_op_without_a_rule_is_named() -> None:
    graph = GraphBuilder()
    y = graph.emit("Erf", graph.input("x", "float32", (2,)))
    with pytest.raises(NotImplementedError, match="no differentiation rule for Erf"):
        gradients(graph, list(graph.nodes), y, "dy", ["x"])


def test_a_target_that_does_not_matter_is_named() -> None:
    graph = GraphBuilder()
    graph.input("unused", "float32", (2,))
    y = graph.emit("Mul", graph.input("x", "float32", (2,)), "x")
    with pytest.raises(ValueError, match="unused does not influence"):
        gradients(graph, list(graph.nodes), y, "dy", ["x", "unused"])
