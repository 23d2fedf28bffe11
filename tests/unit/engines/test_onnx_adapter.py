"""Exported adapters in stock ONNX Runtime, beside the package's own graphs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from edge_client.engines.onnx_adapter import to_onnx_adapter
from edge_client.engines.sessions import Feeds, RuntimeSettings, adapter_feeds, layout_for, open_session
from nightshift.packages.package import ModelPackage
from nightshift.protocol.adapters import AdapterLayout, Side, initialise
from nightshift.protocol.manifest import FileRole


def test_stock_onnxruntime_computes_the_same_losses(stories: ModelPackage, tmp_path: Path) -> None:
    """Two targets, rank 4, a scale that is not 1: read back by the library, given to the evaluate graph."""
    complete = layout_for(stories.manifest, rank=4, alpha=6.0)
    targets = tuple(target for target in complete.targets if target.name in {"q_proj", "down_proj"})
    layout = AdapterLayout(complete.layers, targets, rank=4, alpha=6.0)
    noise = np.random.default_rng(0).normal(scale=0.1, size=layout.vector_length(Side.B)).astype(np.float32)
    tensors = layout.with_delta(initialise(layout, bytes(32)), noise, Side.B)
    session = open_session(stories, FileRole.EVALUATE, RuntimeSettings(threads=1))
    text: Feeds = {
        "input_ids": np.array([[1, 5, 9, 20, 31]]),
        "labels": np.array([[5, 9, 20, 31, 0]]),
        "weights": np.ones((1, 5), dtype=np.float32),
    }
    (expected,) = session.run(["token_loss"], {**text, **adapter_feeds(stories.manifest, layout, tensors)})
    (bare,) = session.run(["token_loss"], {**text, **adapter_feeds(stories.manifest, None, None)})

    file = tmp_path / "mine.onnx_adapter"
    file.write_bytes(to_onnx_adapter(tensors, layout, stories.manifest))
    onnxruntime.LoraAdapter().Load(str(file))  # the binding of the C interface takes it, too
    adapter = onnxruntime.AdapterFormat.read_adapter(str(file))
    inputs = {name: value.numpy() for name, value in adapter.get_parameters().items()}
    (found,) = session.run(["token_loss"], {**text, **inputs, "lora_scale": np.array(1.0, dtype=np.float32)})

    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found - bare).max() > 1e-2, "an adapter that does nothing would prove nothing"
