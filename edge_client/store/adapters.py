"""Releases that were seen, adapters on this disk, and which one answers for each task."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from edge_client.store.database import Database


@dataclass(frozen=True, slots=True)
class StoredAdapter:
    """An adapter on this disk; its file is named by its hash.

    Attributes:
        name: `task/number` for a released one, `task/personal-TIME` for one trained only here.
        task: what it is for.
        sha256: 32 bytes, of the safetensors file.
        base_model: 32 bytes, id of the package it belongs to.
        layout: the serialised nightshift.v1.AdapterLayout.
        release_id: 32 bytes, None for a personal one.
        adopted_at_unix_s: when it was verified and kept.
    """

    name: str
    task: str
    sha256: bytes
    base_model: bytes
    layout: bytes
    release_id: bytes | None
    adopted_at_unix_s: int


@dataclass(frozen=True, slots=True)
class InUse:
    """Names of the adapter that answers for a task and of the one before; None is the bare base model.

    Attributes:
        pinned: the owner chose the current one; no release replaces it.
    """

    current: str | None
    previous: str | None
    pinned: bool = False


class Adapters:
    """The tables of releases, adapters and what is in use."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def newest_release(self, task: str) -> int | None:
        """Number of the newest release of a task that was ever verified."""
        row = self._database.row("SELECT MAX(number) AS number FROM releases WHERE task = ?", (task,))
        return None if row is None or row["number"] is None else int(row["number"])

    def find_release(self, release_id: bytes) -> tuple[str, int] | None:
        """Task and number of a release that was verified."""
        row = self._database.row("SELECT task, number FROM releases WHERE release_id = ?", (release_id,))
        return None if row is None else (row["task"], int(row["number"]))

    def release_id_of(self, task: str, number: int) -> bytes | None:
        """Id of one release, if it was seen."""
        row = self._database.row("SELECT release_id FROM releases WHERE task = ? AND number = ?", (task, number))
        return None if row is None else bytes(row["release_id"])

    def see_release(self, task: str, number: int, release_id: bytes, now_unix_s: int) -> None:
        """Note a verified release."""
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO releases (task, number, release_id, seen_at) VALUES (?, ?, ?, ?)",
                (task, number, release_id, now_unix_s),
            )

    def adopt(self, adapter: StoredAdapter) -> None:
        """Keep an adapter and put it in use; the one before stays for a rollback."""
        with self._database.transaction() as connection:
            self.keep(adapter)
            _switch(connection, adapter.task, adapter.name)

    def keep(self, adapter: StoredAdapter) -> None:
        """Keep an adapter beside the one in use."""
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO adapters (name, task, sha256, base_model, layout, release_id, adopted_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET sha256 = excluded.sha256,"
                " base_model = excluded.base_model, layout = excluded.layout, release_id = excluded.release_id",
                (
                    adapter.name,
                    adapter.task,
                    adapter.sha256,
                    adapter.base_model,
                    adapter.layout,
                    adapter.release_id,
                    adapter.adopted_at_unix_s,
                ),
            )

    def use(self, task: str, name: str | None) -> None:
        """Switch a task to an adapter, or to the bare base model."""
        with self._database.transaction() as connection:
            _switch(connection, task, name)

    def pin(self, task: str, *, pinned: bool) -> None:
        """Say whether the owner chose what a task uses, so that no release replaces it."""
        with self._database.transaction() as connection:
            connection.execute("UPDATE in_use SET pinned = ? WHERE task = ?", (pinned, task))

    def in_use(self, task: str) -> InUse | None:
        """What answers for a task; None if nothing was ever adopted for it."""
        row = self._database.row("SELECT current, previous, pinned FROM in_use WHERE task = ?", (task,))
        return None if row is None else InUse(row["current"], row["previous"], bool(row["pinned"]))

    def tasks(self) -> list[str]:
        """Tasks that have an adapter in use."""
        return [row["task"] for row in self._database.rows("SELECT task FROM in_use ORDER BY task")]

    def find(self, name: str) -> StoredAdapter | None:
        """An adapter by its name."""
        row = self._database.row("SELECT * FROM adapters WHERE name = ?", (name,))
        return None if row is None else _adapter(dict(row))

    def all(self) -> list[StoredAdapter]:
        """Every adapter on this disk, oldest first."""
        return [_adapter(dict(row)) for row in self._database.rows("SELECT * FROM adapters ORDER BY adopted_at, name")]


def _switch(connection: sqlite3.Connection, task: str, name: str | None) -> None:
    # In SQL, so that the old name is read and replaced in one step; the same name again changes nothing.
    connection.execute("INSERT OR IGNORE INTO in_use (task, current, previous) VALUES (?, NULL, NULL)", (task,))
    connection.execute(
        "UPDATE in_use SET previous = current, current = ?1 WHERE task = ?2 AND current IS NOT ?1", (name, task)
    )


def _adapter(row: dict[str, object]) -> StoredAdapter:
    release_id = row["release_id"]
    return StoredAdapter(
        name=str(row["name"]),
        task=str(row["task"]),
        sha256=_bytes(row["sha256"]),
        base_model=_bytes(row["base_model"]),
        layout=_bytes(row["layout"]),
        release_id=None if release_id is None else _bytes(release_id),
        adopted_at_unix_s=int(str(row["adopted_at"])),
    )


def _bytes(value: object) -> bytes:
    assert isinstance(value, bytes)
    return value
