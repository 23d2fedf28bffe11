"""A model with random weights whose likeliest answers have no end and take minutes: something to interrupt."""

from __future__ import annotations

from pathlib import Path

from edge_client.engines.isolated import CANCEL_WITHIN_S
from nightshift.packages.build import build_package
from nightshift.packages.package import ModelPackage
from nightshift.packages.random_model import write_random_model
from nightshift.protocol.manifest import ModelDimensions

STOPPED_WITHIN_S = 5 * CANCEL_WITHIN_S
"""As long as a busy machine may take to stop an answer."""

DIMENSIONS = ModelDimensions(
    family="llama",
    layers=6,
    hidden=384,
    ffn=1024,
    heads=8,
    kv_heads=4,
    head_dim=48,
    vocabulary=512,
    context=8192,
    rope_theta=10_000.0,
    rms_eps=1e-5,
    tied_embeddings=True,
)


def build_slow_model(directory: Path) -> ModelPackage:
    """The package in a new folder below `directory`."""
    write_random_model(directory / "slow.gguf", DIMENSIONS, seed=3, endless=True)
    return build_package(directory / "slow.gguf", directory / "package")
