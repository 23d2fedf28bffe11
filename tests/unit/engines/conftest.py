"""The small real model, built once."""

from __future__ import annotations

import pytest

from nightshift.packages.package import ModelPackage
from tests.support.stories import build_stories


@pytest.fixture(scope="session")
def stories(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return build_stories(tmp_path_factory.mktemp("stories") / "package")


@pytest.fixture(scope="session")
def half_precision(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    """The same model in F16: no runtime rounds activations to 8 bits, so numbers can be compared closely."""
    return build_stories(tmp_path_factory.mktemp("stories") / "f16", quantisation="F16")
