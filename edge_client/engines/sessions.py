"""ONNX Runtime sessions over a model package, and the inputs all its graphs share."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_client.engines.errors import EngineUnavailableError
from nightshift.packages import session
from nightshift.packages.package import ModelPackage
from nightshift.protocol.adapters import AdapterLayout, Tensors
from nightshift.protocol.manifest import FileRole, Manifest

if TYPE_CHECKING:
    import onnxruntime

if TYPE_CHECKING:
    import onnxruntime

Feeds = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class RuntimeSettings:
    """What the device profile says about running graphs.

    Attributes:
        threads: threads of one session; 0 lets ONNX Runtime take every core.
        recompute: train with recomputed activations: less memory, more time.
    """

    threads: int = 0
    recompute: bool = False


def open_session(package: ModelPackage, role: FileRole, runtime: RuntimeSettings) -> onnxruntime.InferenceSession:
    """Opens one graph of a package; the weights file is mapped, not read.

    Raises:
        EngineUnavailableError: the graph does not load in this ONNX Runtime.
        MemoryError: there is not enough memory to load it.
    """
    # Here, not above: the llama.cpp engine needs this module and must work without ONNX Runtime.

    path = package.path(role)
    try:
        return session.open_session(package, role, threads=runtime.threads)
    except Exception as error:  # the binding raises classes of its own without a common base
        if is_allocation_failure(error):
            raise MemoryError(f"{path.name} could not be loaded: {error}") from error
        raise EngineUnavailableError(
            f"{path}: does not load in ONNX Runtime {runtime_version()} ({error}); "
            "verify the package, or fetch it again"
        ) from error


def runtime_version() -> str:
    """Version of the installed ONNX Runtime."""
    return metadata.version("onnxruntime")


def is_allocation_failure(error: Exception) -> bool:
    """Tells whether ONNX Runtime's error means that memory ran out; only its text says so."""
    text = str(error).lower()
    return any(mark in text for mark in ("bad_alloc", "bad allocation", "failed to allocate memory"))


def layout_for(manifest: Manifest, *, rank: int, alpha: float) -> AdapterLayout:
    """Returns the layout of an adapter on every target that the package's graphs offer.

    Raises:
        LayoutError: the rank or alpha do not suit the model.
    """
    size = manifest.dimensions
    return AdapterLayout.for_llama(
        layers=size.layers,
        hidden=size.hidden,
        ffn=size.ffn,
        heads=size.heads,
        kv_heads=size.kv_heads,
        head_dim=size.head_dim,
        rank=rank,
        alpha=alpha,
        targets=manifest.lora_targets,
    )


def adapter_feeds(manifest: Manifest, layout: AdapterLayout | None, tensors: Tensors | None) -> Feeds:
    """Graph inputs for an adapter, or for none.

    The graphs want every tensor of every target they offer: targets that the
    adapter leaves out, or all without an adapter, are fed zeros. The arrays
    are passed on as they are, so writing into them changes the next run.

    Raises:
        EngineUnavailableError: the adapter does not fit the model.
    """
    rank = layout.rank if layout is not None else 1
    # A package for inference only offers no targets.
    complete = layout_for(manifest, rank=1, alpha=1.0).shapes() if manifest.lora_targets else {}
    feeds: Feeds = {"lora_scale": np.array(layout.scale if layout is not None else 0.0, dtype=np.float32)}
    given = tensors if tensors is not None and layout is not None else {}
    for name, (rows, columns) in complete.items():
        shape = (rank, columns) if name.endswith(".lora_a") else (rows, rank)
        tensor = given.get(name)
        if tensor is None:
            feeds[name] = np.zeros(shape, dtype=np.float32)
        elif tensor.shape == shape:
            feeds[name] = tensor
        else:
            raise EngineUnavailableError(
                f"the adapter's {name} is {list(tensor.shape)}, the model needs {list(shape)}; "
                "it was trained for another model"
            )
    foreign = [name for name in given if name not in feeds]
    if foreign:
        raise EngineUnavailableError(f"the adapter has {foreign[0]}, which the graphs of this model do not offer")
    return feeds
