"""How python-tuf gets metadata files: by calls to the coordinator, over the channel of the pass.

Importing this module imports `tuf` (docs/adr/0012 has what that costs); a pass with nothing to update does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import unquote

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface

from edge_client.connection import CALL_DEADLINE_S, Connection
from nightshift.protocol.errors import NotFoundError
from nightshift.protocol.targets import Role
from nightshift.v1 import device_pb2

BASE_URL = "release-metadata/"
"""python-tuf builds names of files behind it, `BASE_URL/3.root.json`; nothing resolves it."""


class MetadataFetcher(FetcherInterface):
    """Fetches metadata files; each is one message, so gRPC's limit bounds what is held of it.

    Attributes:
        role: whose metadata was asked for last, for messages.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.role = Role.ROOT

    def _fetch(self, url: str) -> Iterator[bytes]:
        """The file's bytes.

        Raises:
            DownloadHTTPError: status 404, the coordinator has no such file.
            NightshiftError: what else the coordinator said, or why it could not be reached.
        """
        self.role, version = _asked(url)
        request = device_pb2.GetReleaseMetadataRequest(role=self.role, version=version)
        connection = self._connection
        try:
            reply = connection.call(lambda: connection.stub.GetReleaseMetadata(request, timeout=CALL_DEADLINE_S))
        except NotFoundError as error:
            raise DownloadHTTPError(str(error), 404) from error
        yield reply.document


def _asked(url: str) -> tuple[Role, int]:
    """Role and version of `BASE_URL/VERSION.ROLE.json`, or of `BASE_URL/ROLE.json` with version 0."""
    *version, role, _ = unquote(url.removeprefix(BASE_URL)).split(".")
    return Role(role), int(version[0]) if version else 0
