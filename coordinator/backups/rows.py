"""All rows of one database copied to another, whichever of the two kinds each is."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Table, func, insert, select, text
from sqlalchemy.orm import Session

from coordinator.storage.rows import Base, Lease, ReleaseRow

ROWS_AT_ONCE = 500
_IN_ORDER = {ReleaseRow.__tablename__: "log_position"}
"""A table whose rows refer to earlier rows of itself, and the column that tells which are earlier."""
_LEFT_OUT = {Lease.__tablename__}
"""Who leads there says nothing here."""


def copy_rows(source: Session, target: Connection) -> int:
    """Copy every row of the coordinator's tables into empty ones; returns how many.

    Args:
        source: reads, all of it from one snapshot.
        target: in a writing transaction.
    """
    copied = 0
    # In the order in which foreign keys want them.
    for table in Base.metadata.sorted_tables:
        if table.name in _LEFT_OUT:
            continue
        order = [table.c[_IN_ORDER[table.name]]] if table.name in _IN_ORDER else list(table.primary_key)
        rows = source.execute(select(table).order_by(*order).execution_options(yield_per=ROWS_AT_ONCE))
        for page in rows.mappings().partitions():
            target.execute(insert(table), [dict(row) for row in page])
            copied += len(page)
        _count_on(target, table)
    return copied


def _count_on(target: Connection, table: Table) -> None:
    """Let PostgreSQL number the next row after the copied ones; SQLite does so by itself."""
    column: Any = table.autoincrement_column
    if target.dialect.name != "postgresql" or column is None or column.foreign_keys:
        return
    sequence = target.scalar(select(func.pg_get_serial_sequence(table.name, column.name)))
    last = target.scalar(select(func.max(column)))
    if sequence is not None and last is not None:
        target.execute(text("SELECT setval(:sequence, :last)"), {"sequence": sequence, "last": last})
