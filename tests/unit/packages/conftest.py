"""Packages that many tests look at and none may change: built once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nightshift.packages.build import build_package
from nightshift.packages.package import ModelPackage

DATA = Path(__file__).parents[3] / "data"
STORIES = DATA / "stories260K/stories260K-f32.gguf"


@pytest.fixture(scope="session")
def stories_source() -> Path:
    return STORIES


@pytest.fixture(scope="session")
def stories(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ModelPackage]:
    """Scheme -> the package of stories260K in that scheme."""
    built: dict[str, ModelPackage] = {}

    def package(scheme: str) -> ModelPackage:
        if scheme not in built:
            built[scheme] = build_package(STORIES, tmp_path_factory.mktemp("stories") / scheme, quantisation=scheme)
        return built[scheme]

    return package


@pytest.fixture(scope="session")
def commands() -> list[str]:
    """Real home-assistant commands (HWU64), in file order."""
    with (DATA / "hwu64/commands.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]


@pytest.fixture
def make_feed() -> Callable[..., dict[str, np.ndarray]]:
    """Inputs for evaluate and train: random ids, all weights one, an adapter of some size."""

    def feed(
        package: ModelPackage, *, rows: int, length: int, rank: int = 2, size: float = 0.1
    ) -> dict[str, np.ndarray]:
        generator = np.random.default_rng(5)
        ids = generator.integers(3, package.manifest.dimensions.vocabulary, (rows, length + 1))
        values = {
            "input_ids": ids[:, :-1],
            "labels": ids[:, 1:],
            "weights": np.ones((rows, length), np.float32),
            "lora_scale": np.array(0.5, np.float32),
        }
        for name, shape in package.manifest.lora_shapes().items():
            axes = [rank if axis == "r" else int(axis) for axis in shape]
            values[name] = (generator.standard_normal(axes) * size).astype(np.float32)
        return values

    return feed
