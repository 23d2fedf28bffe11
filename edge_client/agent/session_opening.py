"""A session for a command that talks to the coordinator outside of a nightly pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from edge_client.agent.session import Session
from edge_client.configuration import Configuration
from edge_client.connection import connect
from edge_client.home import Home
from edge_client.identity import require_joined
from edge_client.store import open_store
from nightshift.host.files import exclusive_lock


@contextmanager
def open_session(home: Home, configuration: Configuration) -> Iterator[Session]:
    """Lock the home, open store and channel.

    Raises:
        NotJoinedError: this device has not joined.
        BusyError: a pass is running.
    """
    identity, membership = require_joined(home)
    with (
        exclusive_lock(home.lock_file),
        open_store(home) as store,
        connect(identity, membership) as connection,
    ):
        yield Session(home, configuration, identity, membership, store, connection)
