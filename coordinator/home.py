"""The coordinator's directory: where everything it owns lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nightshift.host.files import exclusive_lock
from nightshift.protocol.errors import BusyError


@dataclass(frozen=True, slots=True)
class Home:
    """Paths below the data directory.

    ::

        coordinator.toml      configuration
        coordinator.sqlite3   rows
        objects/              uploads, sums, model files, adapters
        keys/                 private keys, mode 0600, and certificates in PEM
        admin.toml            credentials of the first operator, to be moved to another machine
        serve.lock            held by the running service
    """

    directory: Path

    @property
    def configuration_file(self) -> Path:
        """`coordinator.toml`."""
        return self.directory / "coordinator.toml"

    @property
    def database_file(self) -> Path:
        """`coordinator.sqlite3`."""
        return self.directory / "coordinator.sqlite3"

    @property
    def objects_directory(self) -> Path:
        """`objects/`."""
        return self.directory / "objects"

    @property
    def keys_directory(self) -> Path:
        """`keys/`."""
        return self.directory / "keys"

    @property
    def first_credentials_file(self) -> Path:
        """`admin.toml`."""
        return self.directory / "admin.toml"

    @property
    def lock_file(self) -> Path:
        """`serve.lock`."""
        return self.directory / "serve.lock"


def is_serving(home: Home) -> bool:
    """Whether a process serves this directory."""
    try:
        with exclusive_lock(home.lock_file):
            return False
    except BusyError:
        return True
