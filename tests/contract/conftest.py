"""Both databases and both object stores, for the contract that all of them must keep."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.storage.bucket import BucketObjects
from coordinator.storage.database import Database
from coordinator.storage.migration import migrate
from coordinator.storage.objects import DirectoryObjects, Objects

DATABASES = ("sqlite", "postgresql")
STORES = ("directory", "s3")


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'rows.sqlite3'}"
    made: str = request.getfixturevalue("postgresql_server").new_database()
    return made


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    opened = Database(url)
    migrate(opened)
    yield opened
    opened.close()


@pytest.fixture(params=STORES)
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    """An empty store of each kind."""
    if request.param == "directory":
        return DirectoryObjects(tmp_path / "objects")
    server = request.getfixturevalue("s3_server")
    return BucketObjects(f"{server.new_bucket()}/some/prefix", endpoint=server.endpoint)
