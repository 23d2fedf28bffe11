"""The small real model, built once."""

from __future__ import annotations

import pytest

from nightshift.packages.package import ModelPackage
from tests.support.stories import build_stories


@pytest.fixture(scope="session")
def stories(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return build_stories(tmp_path_factory.mktemp("stories") / "package")
