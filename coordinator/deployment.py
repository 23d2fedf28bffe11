"""One coordinator, opened from its directory: the parts that every command and servicer needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy.orm import Session

from coordinator.configuration import Configuration, Listen, configuration_text, read_configuration
from coordinator.enrolment.authority import Authority
from coordinator.home import Home
from coordinator.locks import KeyedLocks
from coordinator.log import TransparencyLog
from coordinator.storage.database import Database
from coordinator.storage.objects import DirectoryObjects, Objects
from coordinator.storage.rows import Setting
from nightshift.host.clock import now_unix_s
from nightshift.host.files import make_private_directory, write_atomic
from nightshift.protocol.errors import UsageError
from nightshift.protocol.identity import device_id
from nightshift.protocol.trust import Trust

LOG_ORIGIN = "log_origin"


@dataclass(frozen=True, slots=True)
class Deployment:
    """The opened parts; every operation of the core takes what it needs from here."""

    home: Home
    configuration: Configuration
    database: Database
    objects: Objects
    authority: Authority
    log: TransparencyLog
    locks: KeyedLocks = field(default_factory=KeyedLocks)

    @property
    def trust(self) -> Trust:
        """What a device of this coordinator believes."""
        return Trust(self.authority.root, self.authority.signing_public_key, self.log.origin)


def initialise(home: Home, listen: Listen) -> None:
    """Make keys, certificates, the database and, last of all, the configuration file.

    Raises:
        UsageError: the directory already holds a coordinator, or an address is none.
    """
    if home.configuration_file.exists():
        raise UsageError(
            f"{home.directory} already holds a coordinator; nothing was changed. "
            "Choose another directory with --data, or move this one away"
        )
    make_private_directory(home.directory)
    make_private_directory(home.keys_directory)
    now = now_unix_s()
    authority = Authority.create(home.keys_directory, now)
    authority.server_credentials(listen.addresses, now)
    database = Database(f"sqlite:///{home.database_file}")
    database.migrate()
    root_id = device_id(authority.signing_public_key).hex()[:16]
    with database.transaction() as session:
        # An init that was cut short is simply done again: nothing was served yet.
        session.merge(Setting(key=LOG_ORIGIN, value=f"nightshift/{root_id}"))
    database.close()
    DirectoryObjects(home.objects_directory)
    write_atomic(home.configuration_file, configuration_text(listen).encode(), mode=0o644)


@contextmanager
def opened(directory: Path) -> Iterator[Deployment]:
    """Open an initialised coordinator for the length of a block.

    Raises:
        UsageError: not initialised, or its configuration or keys cannot be used.
    """
    home = Home(directory)
    configuration = read_configuration(home)
    authority = Authority.load(home.keys_directory)
    database = Database(configuration.storage.database or f"sqlite:///{home.database_file}")
    try:
        database.migrate()
        with database.reading() as session:
            origin = _setting(session, LOG_ORIGIN)
        yield Deployment(
            home=home,
            configuration=configuration,
            database=database,
            objects=DirectoryObjects(home.objects_directory),
            authority=authority,
            log=TransparencyLog(origin, authority.sign),
        )
    finally:
        database.close()


def _setting(session: Session, key: str) -> str:
    row = session.get(Setting, key)
    if row is None:
        raise UsageError(f"the database lacks the setting {key!r}; restore it from a backup")
    return row.value
