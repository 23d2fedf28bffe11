"""The failpoints behind every change of a coordinator's stores (`coordinator.storage`), in whatever code it happens."""

ROWS_COMMITTED = "coordinator.rows.committed"
OBJECT_PUT = "coordinator.object.put"
OBJECT_DELETED = "coordinator.object.deleted"
ALL = frozenset({ROWS_COMMITTED, OBJECT_PUT, OBJECT_DELETED})
"""Killed at, one by one, by tests/faults/test_killed_at_every_persist.py."""
