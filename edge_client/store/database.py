"""The SQLite file: opened, or set aside when malformed, one transaction at a time.

Every commit is durable before it returns (`synchronous = EXTRA`, which also
syncs the directory after the rollback journal is gone), because the protocol's
promises rest on "persist, then send". Deleted content is overwritten
(`secure_delete`), because prekeys are erased here.

The schema has versions: `schema.sql` is the first, `migrations/NNNN-what.sql` lead from
one to the next. A new file takes the same way as an old one, so there is one schema, not two.

A file that SQLite calls malformed is renamed to `*.corrupt-TIME` and a new one
begins, in a new epoch. What the lost one knew cannot be known again, so the new
store notes when it was lost: this device then contributes to no parent that was
released before, and has no prekey with which to answer for an earlier cohort.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from edge_client.store.migrations import SCHEMA_VERSION, migrate, version_of
from nightshift.host.files import sync_directory
from nightshift.protocol.errors import IncompatibleError, NightshiftError, ResourceError

BUSY_TIMEOUT_S = 10.0
_MALFORMED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_NO_ROOM = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}


class Database:
    """One connection, and the few values that stand alone."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._depth = 0
        self.path = path

    @classmethod
    def open(cls, path: Path, *, now_unix_s: int, expected: bool) -> Database:
        """Open the file, making a new one where there is none or a malformed one.

        Args:
            path: of the file; its directory exists.
            now_unix_s: becomes the epoch of a new file.
            expected: the device has joined, so a missing file is a lost one.

        Raises:
            ResourceError: the disk is full, read-only or failing.
            IncompatibleError: a newer program wrote the file.
        """
        missing = not path.exists() or path.stat().st_size == 0
        try:
            if not missing:
                try:
                    return cls(_connect_checked(path), path)
                except sqlite3.DatabaseError as error:
                    if _primary_code(error) not in _MALFORMED:
                        raise
                    _set_aside(path, now_unix_s)
            lost = expected or not missing
            return cls(_create(path, now_unix_s, lost_at=now_unix_s if lost else None), path)
        except sqlite3.Error as error:
            raise _translated(error, path) from error

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of the block, durable when it ends, or nothing of it. A nested block joins the outer one.

        Raises:
            ResourceError: the disk is full, read-only or failing; nothing changed.
        """
        if self._depth:
            yield self._connection
            return
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield self._connection
            except BaseException:
                # A full disk, among others, has made SQLite roll back by itself.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            finally:
                self._depth -= 1
            try:
                self._connection.execute("COMMIT")
            except sqlite3.Error:
                # A commit that failed (busy, full) may leave the transaction open.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        except sqlite3.OperationalError as error:
            raise _translated(error, self.path) from error
        except sqlite3.DatabaseError as error:
            if _primary_code(error) in _MALFORMED:
                raise _translated(error, self.path) from error
            raise

    def rows(self, query: str, parameters: tuple[object, ...] = ()) -> list[sqlite3.Row]:
        """Read, outside any transaction."""
        try:
            return self._connection.execute(query, parameters).fetchall()
        except sqlite3.DatabaseError as error:
            raise _translated(error, self.path) from error

    def row(self, query: str, parameters: tuple[object, ...] = ()) -> sqlite3.Row | None:
        """Read the first row."""
        rows = self.rows(query, parameters)
        return rows[0] if rows else None

    def number(self, name: str) -> int | None:
        """A whole number from the table of single values."""
        row = self.row("SELECT value FROM meta WHERE name = ?", (name,))
        return None if row is None else int(row["value"])

    def blob(self, name: str) -> bytes | None:
        """Bytes from the table of single values."""
        row = self.row("SELECT value FROM meta WHERE name = ?", (name,))
        return None if row is None else bytes(row["value"])

    def put(self, **values: int | bytes) -> None:
        """Set single values, together."""
        with self.transaction() as connection:
            connection.executemany("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", values.items())

    def forget_everything(self, now_unix_s: int) -> None:
        """Erase every row, and note that a memory was lost, in one durable step.

        The note is what remains: without it a device that joins again could contribute a second time to a parent, and
        two sums of which one holds it would differ by what it gave.
        """
        epoch = max(now_unix_s, self.epoch + 1)
        tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_stat%'"
        with self.transaction() as connection:
            connection.execute("PRAGMA defer_foreign_keys = ON")
            for (name,) in connection.execute(tables).fetchall():
                connection.execute(f'DELETE FROM "{name}"')  # noqa: S608 - a name of this file's own schema
            self.put(epoch=epoch, lost_at=now_unix_s)

    @property
    def epoch(self) -> int:
        """Of this device's prekeys: the Unix second in which this file began."""
        epoch = self.number("epoch")
        assert epoch is not None
        return epoch

    @property
    def lost_at_unix_s(self) -> int | None:
        """When an earlier file was lost, None if none was."""
        return self.number("lost_at")


def _connect(path: Path) -> sqlite3.Connection:
    # Created by hand first: SQLite would make it readable by the group.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    connection.row_factory = sqlite3.Row
    try:
        for pragma in ("journal_mode = DELETE", "synchronous = EXTRA", "secure_delete = ON", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def _connect_checked(path: Path) -> sqlite3.Connection:
    connection = _connect(path)
    try:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        version = version_of(connection)
        if verdict != "ok" or version == 0:
            error = sqlite3.DatabaseError(f"quick_check says: {verdict}, version {version}")
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error
        if version > SCHEMA_VERSION:
            raise IncompatibleError(
                f"{path} was written by a newer edge-client (schema {version}, this one reads {SCHEMA_VERSION}); "
                "upgrade edge-client"
            )
        migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _create(path: Path, now_unix_s: int, *, lost_at: int | None) -> sqlite3.Connection:
    # Built beside its place and renamed: a half-made file would look like a lost one.
    fresh = path.with_name(f".{path.name}.new")
    for leftover in (fresh, fresh.with_name(fresh.name + "-journal")):
        leftover.unlink(missing_ok=True)
    connection = _connect(fresh)
    try:
        migrate(connection)
        values = {"epoch": now_unix_s, **({} if lost_at is None else {"lost_at": lost_at})}
        connection.executemany("INSERT INTO meta (name, value) VALUES (?, ?)", values.items())
    finally:
        connection.close()
    os.replace(fresh, path)
    sync_directory(path.parent)
    return _connect(path)


def _set_aside(path: Path, now_unix_s: int) -> None:
    stamp = datetime.fromtimestamp(now_unix_s, UTC).strftime("%Y%m%dT%H%M%SZ")
    for suffix in ("", "-journal", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            os.replace(part, path.with_name(f"{path.name}.corrupt-{stamp}{suffix}"))
    sync_directory(path.parent)


def _primary_code(error: sqlite3.Error) -> int:
    # Extended codes carry the primary one in the low byte.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _translated(error: sqlite3.Error, path: Path) -> NightshiftError:
    code = _primary_code(error)
    if code in _MALFORMED:
        return ResourceError(f"{path} is malformed ({error}); run again: it will be set aside and rebuilt")
    if code in _NO_ROOM:
        return ResourceError(f"{path} cannot be written ({error}); free space or mend the disk, then run again")
    return NightshiftError(f"{path}: {error}")
