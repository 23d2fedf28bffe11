"""An adapter as a file of ONNX Runtime's own adapter format.

`onnxruntime.AdapterFormat.read_adapter` reads it, and other bindings' `LoraAdapter` loads it beside a package's
graphs. The format takes no scalars, so the scale is inside the B matrices: give the graphs `lora_scale` = 1.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from edge_client.engines.sessions import adapter_feeds
from nightshift.protocol.adapters import AdapterLayout, Tensors
from nightshift.protocol.manifest import Manifest

_VERSION = 1


def to_onnx_adapter(tensors: Tensors, layout: AdapterLayout, manifest: Manifest) -> bytes:
    """The file's bytes: every adapter input of the package's graphs, targets that the adapter leaves out as zeros.

    Raises:
        EngineUnavailableError: the adapter does not fit the model.
    """
    import onnxruntime

    feeds = adapter_feeds(manifest, layout, tensors)
    scale = np.float32(feeds.pop("lora_scale"))
    scaled = {name: value * scale if name.endswith(".lora_b") else value for name, value in feeds.items()}
    adapter = onnxruntime.AdapterFormat()
    adapter.set_adapter_version(_VERSION)
    adapter.set_model_version(_VERSION)
    adapter.set_parameters(
        {name: onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value)) for name, value in scaled.items()}
    )
    # It writes to a path and nowhere else.
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "adapter.onnx_adapter"
        adapter.export_adapter(str(path))
        return path.read_bytes()
