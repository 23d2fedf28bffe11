"""Objects in a bucket of S3, or of a store that speaks its protocol, shared by any number of coordinators.

A put is one request, or one multipart upload that is completed at its end, so a
half-written object is never seen; the signature covers the SHA-256 of what is
sent, so an altered one is refused by the store. What fails for the moment
(5xx, a dropped connection, a timeout) is repeated for half a minute; then the
caller is told that the store does not answer, and no row is committed.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import obstore
from obstore.store import S3Store

from coordinator.storage.objects import ObstoreObjects, require_key
from nightshift.host.failpoints import failpoint
from nightshift.protocol.errors import NotFoundError, UnavailableError, UsageError

if TYPE_CHECKING:
    from obstore.store import S3Config  # has no existence at run time

REQUEST_TIMEOUT = timedelta(seconds=20)
CONNECT_TIMEOUT = timedelta(seconds=5)
RETRIES = 6
RETRY_FOR = timedelta(seconds=30)


class BucketObjects(ObstoreObjects):
    """Objects below a prefix of a bucket, through obstore's S3Store.

    The access key comes from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or from the machine's
    role; it has no place in a configuration file.

    Args:
        url: `s3://bucket/prefix`; the prefix may be absent.
        endpoint: of a store other than Amazon's, `https://host:port`; `http://` is for tests on one machine.
        region: of the bucket.

    Raises:
        UsageError: not such a URL.
    """

    def __init__(self, url: str, *, endpoint: str = "", region: str = "us-east-1") -> None:
        parts = urlsplit(url)
        if parts.scheme != "s3" or not parts.netloc or parts.query or parts.fragment:
            raise UsageError(f"storage.objects is {url!r}; write s3://bucket or s3://bucket/prefix")
        config: S3Config = {"region": region}
        if endpoint:
            config["endpoint"] = endpoint
        store = S3Store(
            parts.netloc,
            prefix=parts.path.strip("/") or None,
            config=config,
            client_options={
                "allow_http": endpoint.startswith("http://"),
                "timeout": REQUEST_TIMEOUT,
                "connect_timeout": CONNECT_TIMEOUT,
            },
            retry_config={
                "max_retries": RETRIES,
                "retry_timeout": RETRY_FOR,
                "backoff": {
                    "init_backoff": timedelta(milliseconds=100),
                    "max_backoff": timedelta(seconds=5),
                    "base": 2,
                },
            },
        )
        super().__init__(store, url)

    def put(self, key: str, data: bytes | Path) -> None:
        """See `Objects.put`."""
        require_key(key)
        try:
            with self._readable_errors(key):
                obstore.put(self._store, key, data, use_multipart=isinstance(data, Path))
        except NotFoundError as error:
            raise UnavailableError(
                f"{self._place} is no bucket of this store; make it, or correct storage.objects"
            ) from error
        failpoint("coordinator.object.put")
