"""What python-tuf refuses, in this project's errors: each kind of lie has a class and words of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

from nightshift.host.console import printable
from nightshift.host.files import resource_error
from nightshift.protocol.errors import (
    FrozenError,
    MalformedError,
    MixedError,
    NightshiftError,
    RolledBackError,
    SignatureInvalidError,
)
from nightshift.protocol.targets import Role

STAYS: Final = "the adapter in use stays"
_LONGEST_REASON: Final = 200


class Asked(Protocol):
    """Whoever fetches metadata."""

    @property
    def role(self) -> Role:
        """Whose was asked for last."""
        ...


@contextmanager
def refusals(asked: Asked) -> Iterator[None]:
    """What python-tuf raises, as errors of this project.

    Args:
        asked: knows whose metadata was asked for last.
    """
    from tuf.api import exceptions

    try:
        yield
    except (exceptions.RepositoryError, exceptions.DownloadError) as error:
        raise _refusal(error, asked.role) from error
    except OSError as error:
        raise resource_error(error, Path(str(error.filename))) or error from error


def _refusal(error: Exception, role: Role) -> NightshiftError:
    from tuf.api import exceptions
    from tuf.api.serialization import DeserializationError, SerializationError

    # python-tuf repeats names and numbers of the file in its words.
    why = printable(str(error))[:_LONGEST_REASON]
    match error:
        case exceptions.ExpiredMetadataError():
            return FrozenError(
                f"the release metadata has ended ({why}), so newer releases may be withheld; {STAYS}. "
                "Ask the operator whether the coordinator still signs it: coordinator keys show"
            )
        case exceptions.UnsignedMetadataError():
            return SignatureInvalidError(
                f"the {role} metadata of releases is not signed by enough of the keys that count ({why}); {STAYS}"
            )
        case exceptions.BadVersionNumberError() if role in (Role.TIMESTAMP, Role.SNAPSHOT):
            return RolledBackError(
                f"the {role} metadata of releases is older than some that was seen, or than what names it ({why}); "
                f"{STAYS}"
            )
        case exceptions.BadVersionNumberError() if role is Role.ROOT:
            return RolledBackError(f"the roots of the release metadata do not follow one another ({why}); {STAYS}")
        case exceptions.DownloadLengthMismatchError() if role not in (Role.ROOT, Role.TIMESTAMP):
            # Their length is named by other metadata; that of these two only by what this device reads at most.
            return MixedError(f"the {role} metadata of releases is longer than other metadata says; {STAYS}")
        case exceptions.DownloadLengthMismatchError() | DeserializationError() | SerializationError():
            return MalformedError(f"the {role} metadata of releases is larger than allowed or unreadable; {STAYS}")
        case exceptions.DownloadHTTPError():
            return MixedError(f"the coordinator does not give the {role} metadata that other metadata names; {STAYS}")
        case _:
            return MixedError(
                f"the {role} metadata of releases does not belong to the state that its timestamp names ({why}); "
                f"{STAYS}"
            )
