"""Where the device keeps things.

One directory with `--home DIR` or `NIGHTSHIFT_HOME`; the system service's
(/etc, /var/lib, /var/cache) with the word `system` there; otherwise the user's directories
after the XDG Base Directory Specification.

    config.toml             the owner's settings
    identity.pem            private key, mode 0600
    membership.json         which coordinator, and the certificates
    store.sqlite3           journal, prekeys, answers, ledger, log head
    uploads/                encrypted contributions that are not yet acknowledged
    adapters/               adapters by hash
    training/               checkpoints of an interrupted training run
    release-metadata/       signed metadata of releases (TUF) as it was verified last
    cache/                  model packages by hash; may be deleted at any time
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from nightshift.host.files import make_private_directory

ENVIRONMENT_VARIABLE = "NIGHTSHIFT_HOME"
SYSTEM = "system"
"""In place of a directory: the directories of the system service. A folder of this name is ./system."""


@dataclass(frozen=True, slots=True)
class Home:
    """The device's directories and files.

    Attributes:
        config_file: the owner's settings, TOML.
        state: private state; losing it means joining again.
        cache: what can be fetched again.
    """

    config_file: Path
    state: Path
    cache: Path

    @classmethod
    def locate(cls, directory: Path | None) -> Home:
        """Find the directories: an explicit one, the environment's, or the user's."""
        if directory is None and os.environ.get(ENVIRONMENT_VARIABLE):
            directory = Path(os.environ[ENVIRONMENT_VARIABLE])
        if directory is None:
            return cls.users()
        if str(directory) == SYSTEM:
            return cls.system()
        directory = directory.expanduser().absolute()
        return cls(directory / "config.toml", directory, directory / "cache")

    @classmethod
    def users(cls) -> Home:
        """The user's own directories."""
        import platformdirs

        return cls(
            platformdirs.user_config_path("nightshift") / "config.toml",
            platformdirs.user_data_path("nightshift"),
            platformdirs.user_cache_path("nightshift"),
        )

    @classmethod
    def system(cls) -> Home:
        """The directories of the system service (Filesystem Hierarchy Standard)."""
        return cls(Path("/etc/nightshift/config.toml"), Path("/var/lib/nightshift"), Path("/var/cache/nightshift"))

    @property
    def key_file(self) -> Path:
        """P-256 private key, PEM."""
        return self.state / "identity.pem"

    @property
    def membership_file(self) -> Path:
        """What `join` brought back."""
        return self.state / "membership.json"

    @property
    def store_file(self) -> Path:
        """SQLite."""
        return self.state / "store.sqlite3"

    @property
    def lock_file(self) -> Path:
        """Held by a running pass."""
        return self.state / "lock"

    @property
    def uploads(self) -> Path:
        """Encrypted contributions, one file a cohort."""
        return self.state / "uploads"

    @property
    def adapters(self) -> Path:
        """Adapters by hash."""
        return self.state / "adapters"

    @property
    def training(self) -> Path:
        """Working directories of training runs."""
        return self.state / "training"

    @property
    def release_metadata(self) -> Path:
        """Signed metadata of releases as it was verified last; what the next is compared with."""
        return self.state / "release-metadata"

    @property
    def debug(self) -> Path:
        """Only used when the owner asks for it."""
        return self.state / "debug"

    def prepare(self) -> None:
        """Create the private directories.

        Raises:
            ResourceError: the disk is full or read-only.
            UsageError: a directory cannot be created.
        """
        for directory in (self.state, self.uploads, self.adapters, self.training):
            make_private_directory(directory)
