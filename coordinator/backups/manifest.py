"""What a backup says of itself: `backup.json`, written last, so that a backup that was cut is not taken for one.

::

    backup.json           this
    coordinator.toml      the configuration, for a look; it may name passwords
    rows.sqlite3          all rows, whichever database they came from
    objects/              every object that the rows name
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nightshift.host.files import write_atomic
from nightshift.protocol.errors import UsageError

MANIFEST, ROWS, OBJECTS, CONFIGURATION = "backup.json", "rows.sqlite3", "objects", "coordinator.toml"


class Manifest(BaseModel):
    """Of one backup.

    Attributes:
        format: of these files.
        made_unix_s: when the rows were read.
        schema_version: of the rows.
        root_sha256: of the root certificate, in hex: whose backup it is.
        log_size: entries of the transparency log.
        log_root: of the log, in hex.
        rows: how many.
        objects: how many.
        objects_bytes: of all objects.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = Field(default=1, ge=1, le=1)
    made_unix_s: int
    schema_version: str
    root_sha256: str
    log_size: int
    log_root: str
    rows: int
    objects: int
    objects_bytes: int

    def write(self, directory: Path) -> None:
        """Make the backup in a directory complete."""
        write_atomic(directory / MANIFEST, self.model_dump_json(indent=2).encode() + b"\n", mode=0o600)

    @classmethod
    def read(cls, directory: Path) -> Manifest:
        """Read that of a backup.

        Raises:
            UsageError: there is no complete backup of this format.
        """
        try:
            return cls.model_validate_json((directory / MANIFEST).read_bytes())
        except OSError as error:
            raise UsageError(
                f"{directory} holds no complete backup: {MANIFEST} cannot be read; name another directory"
            ) from error
        except ValidationError as error:
            raise UsageError(f"{directory / MANIFEST} is not that of a backup this build can read") from error
