"""The online cross-entropy against the textbook one, over one slice and over several."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from nightshift.packages.graph import GraphBuilder
from nightshift.packages.loss import SLICE_ROWS, cross_entropy
from nightshift.packages.lowering import to_onnx
from nightshift.packages.weights_file import WeightsFile

TOKENS, HIDDEN = 7, 16


def textbook(hidden: np.ndarray, matrix: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    logits = hidden.astype(np.float64) @ matrix.astype(np.float64).T
    logits -= logits.max(-1, keepdims=True)
    chances = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    nll = -np.log(chances[np.arange(TOKENS), labels])
    chances[np.arange(TOKENS), labels] -= 1
    return nll, chances @ matrix


@pytest.mark.parametrize("with_gradient", [False, True])
@pytest.mark.parametrize("vocabulary", [5, SLICE_ROWS, SLICE_ROWS + 1, 3 * SLICE_ROWS - 7])
@pytest.mark.parametrize("size", [0.1, 1.0, 30.0])  # the last gives logits of several hundred
def test_loss_and_gradient_are_the_textbooks(tmp_path: Path, vocabulary: int, size: float, with_gradient: bool) -> None:
    generator = np.random.default_rng(vocabulary)
    matrix = generator.standard_normal((vocabulary, HIDDEN)).astype(np.float32)
    hidden = (generator.standard_normal((TOKENS, HIDDEN)) * size).astype(np.float32)
    labels = generator.integers(0, vocabulary, TOKENS)
    labels[0], labels[1] = 0, vocabulary - 1
    with WeightsFile(tmp_path / "weights.bin") as weights:
        weights.add_float("lm_head", matrix, transposed=False)
    graph = GraphBuilder()
    graph.input("hidden", "float32", ("N", HIDDEN))
    graph.input("labels", "int64", ("N",))
    loss = cross_entropy(
        graph, "hidden", "labels", matrix="lm_head", vocabulary=vocabulary, with_gradient=with_gradient
    )
    graph.output(loss.nll, "nll", "float32", ("N", 1))
    if loss.gradient:
        graph.output(loss.gradient, "gradient", "float32", ("N", HIDDEN))
    (tmp_path / "loss.onnx").write_bytes(to_onnx(graph, weights))
    session = onnxruntime.InferenceSession(str(tmp_path / "loss.onnx"), providers=["CPUExecutionProvider"])
    found = session.run(None, {"hidden": hidden, "labels": labels})
    nll, gradient = textbook(hidden, matrix, labels)
    np.testing.assert_allclose(found[0][:, 0], nll, rtol=1e-5, atol=1e-5 * max(1.0, np.abs(nll).max()))
    assert len(found) == 1 + with_gradient
    if with_gradient:
        np.testing.assert_allclose(found[1], gradient, rtol=1e-4, atol=1e-4)
