"""Both databases and both object stores, for the contract that all of them must keep, alone and in pairs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.configuration import Storage
from coordinator.storage.bucket import BucketObjects
from coordinator.storage.database import Database
from coordinator.storage.migration import migrate
from coordinator.storage.objects import DirectoryObjects, Objects
from tests.support.stores import DATABASES, STORES, StorageOf


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


@pytest.fixture
def storage_of(request: pytest.FixtureRequest) -> StorageOf:
    """Makes an empty database and an empty store of one of `PAIRS`; what stays empty lies in the data directory."""

    def made(pair: str) -> Storage:
        database, _, store = pair.partition("-")
        storage = Storage()
        if database == "postgresql":
            server = request.getfixturevalue("postgresql_server")
            storage = storage.model_copy(update={"database": server.new_database()})
        if store == "s3":
            server = request.getfixturevalue("s3_server")
            place = {"objects": f"{server.new_bucket()}/some/prefix", "objects_endpoint": server.endpoint}
            storage = storage.model_copy(update=place)
        return storage

    return made
