"""The hub's client library: silent about this machine, and its errors as this project's.

`huggingface_hub` describes the machine in its User-Agent and fetches a list to recognise programs by, unless
HF_HUB_DISABLE_TELEMETRY is set. There is no telemetry here, so it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from nightshift.host.files import resource_error
from nightshift.protocol.errors import NotFoundError, OverloadedError, UnreachableError, UsageError


def load_client() -> ModuleType:
    """Import the library."""
    import huggingface_hub
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]  # re-exported silently

    constants.HF_HUB_DISABLE_TELEMETRY = True
    disable_progress_bars()
    return huggingface_hub


@contextmanager
def explained(repository: str, file: str = "") -> Iterator[None]:
    """Turn what `huggingface_hub` raises while the block runs into this project's errors.

    Args:
        repository: "organisation/name".
        file: the file that is fetched, if it is one.

    Raises:
        NotFoundError: no such repository, revision or file, or it is private.
        UsageError: its terms must be accepted first, or the account may not read it.
        OverloadedError: too many requests.
        UnreachableError: no network, offline mode, or the hub is broken.
        ResourceError: the disk is full or failing.
    """
    import huggingface_hub.errors as hub_errors

    elsewhere = "or fetch the file on another machine and import its path"
    try:
        yield
    except hub_errors.OfflineModeIsEnabled as error:
        raise UnreachableError(
            f"{repository}: HF_HUB_OFFLINE is set, so nothing is fetched from a model hub; unset it, {elsewhere}"
        ) from error
    except hub_errors.GatedRepoError as error:
        raise UsageError(
            f"{repository} asks everybody to accept its terms first: do so on its page, then set HF_TOKEN to a "
            "token of that account, or run: hf auth login"
        ) from error
    except hub_errors.RevisionNotFoundError as error:
        raise NotFoundError(f"{repository} has no such revision; leave out @REVISION for the newest") from error
    except hub_errors.RepositoryNotFoundError as error:
        raise NotFoundError(
            f"the hub has no repository {repository}, or it is private; check the spelling, or set HF_TOKEN"
        ) from error
    except hub_errors.EntryNotFoundError as error:
        raise NotFoundError(f"{repository} has no file {file}") from error
    except hub_errors.HfHubHTTPError as error:
        raise _refused(repository, error) from error
    except (hub_errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]  # re-exported silently
        raise _lack_of_room(error, Path(file or repository)) or UnreachableError(
            f"{repository}: the model hub does not answer ({type(error).__name__}); what came is kept. Run again "
            f"when there is a network, {elsewhere}"
        ) from error


def _lack_of_room(error: Exception, path: Path) -> Exception | None:
    """What a full disk is called here; None where the network is to blame."""
    return resource_error(error, path) if isinstance(error, OSError) else None


def _refused(repository: str, error: Any) -> UsageError | OverloadedError | UnreachableError:
    """An answer that is neither the file nor "not found"."""
    status = error.response.status_code if error.response is not None else 0
    if status in (401, 403):
        return UsageError(
            f"{repository}: the hub refuses this account ({status}); set HF_TOKEN to a token that may read it"
        )
    if status == 429:
        return OverloadedError(
            f"{repository}: the hub allows no more requests for now (429); what came is kept. Wait some minutes, and "
            "set HF_TOKEN: accounts may ask more often"
        )
    return UnreachableError(f"{repository}: the model hub answered {status}; what came is kept. Run again later")
