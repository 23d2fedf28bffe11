"""From one version of the store's schema to the next, each step whole or not at all.

SQLite's `user_version` counts the steps done. Step 1 is `schema.sql`; the others are
`NNNN-what.sql` in this folder. A step that was shipped never changes: the next one
corrects it. A killed step leaves the version before, and is done at the next start.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from importlib import resources

from nightshift.host.failpoints import failpoint

_ROOM = resources.files("edge_client.store")
_STEPS = [
    _ROOM.joinpath("schema.sql"),
    *sorted(
        (entry for entry in _ROOM.joinpath("migrations").iterdir() if entry.name.endswith(".sql")),
        key=lambda entry: entry.name,
    ),
]
assert [int(step.name[:4]) for step in _STEPS[1:]] == list(range(2, len(_STEPS) + 1)), "a number is missing or twice"

SCHEMA_VERSION = len(_STEPS)
"""Of this build."""


def version_of(connection: sqlite3.Connection) -> int:
    """The steps that a database has done; 0 for an empty one."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring a database to `SCHEMA_VERSION`; one that is there already is left alone.

    Raises:
        sqlite3.Error: a step failed; the database is at the version before it.
    """
    while version_of(connection) < SCHEMA_VERSION:
        # SQLite's schema changes are transactional.
        connection.execute("BEGIN IMMEDIATE")
        try:
            # Asked again: another process may have done this step while this one waited for the lock.
            version = version_of(connection)
            if version < SCHEMA_VERSION:
                for statement in _statements(_STEPS[version].read_text("utf-8")):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {version + 1}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        failpoint("device.store.migrated")


def _statements(script: str) -> Iterator[str]:
    """Each statement of a script: `executescript` would end the transaction around it."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
    assert not pending.strip() or pending.lstrip().startswith("--"), f"a statement is not ended: {pending!r}"
