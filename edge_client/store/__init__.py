"""The device's memory: one SQLite file that survives a power cut at any point."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from edge_client.home import Home
from edge_client.store.adapters import Adapters
from edge_client.store.answers import Answers
from edge_client.store.contributions import Contributions
from edge_client.store.database import Database
from edge_client.store.prekeys import Prekeys
from edge_client.store.records import Records
from edge_client.store.served import Served
from edge_client.store.traffic import Traffic
from nightshift.host.clock import now_unix_s

__all__ = ["Store", "open_store"]


@dataclass(frozen=True, slots=True)
class Store:
    """The tables, by what they are about."""

    database: Database
    prekeys: Prekeys
    answers: Answers
    contributions: Contributions
    adapters: Adapters
    served: Served
    records: Records
    traffic: Traffic


@contextmanager
def open_store(home: Home) -> Iterator[Store]:
    """Open the store of a home directory, creating both where absent.

    Raises:
        ResourceError: the disk is full, read-only or failing.
        IncompatibleError: a newer program wrote it.
    """
    home.prepare()
    database = Database.open(home.store_file, now_unix_s=now_unix_s(), expected=home.membership_file.exists())
    try:
        yield Store(
            database=database,
            prekeys=Prekeys(database),
            answers=Answers(database),
            contributions=Contributions(database),
            adapters=Adapters(database),
            served=Served(database),
            records=Records(database),
            traffic=Traffic(database),
        )
    finally:
        database.close()
