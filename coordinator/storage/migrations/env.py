"""Runs migrations on the connection that `Database.migrate` hands over."""

from __future__ import annotations

from alembic import context

from coordinator.storage.rows import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    # SQLite cannot alter most things in place; Alembic then copies the table.
    render_as_batch=True,
)
context.run_migrations()
