"""Who may ask: the holder of the key, and programs rather than pages of a browser.

A server on loopback is within reach of every page that the person visits. A page
can send requests to 127.0.0.1 (they carry its `Origin`), or point a name of
its own at that address (then `Host` is that name); both are refused. With a
key, neither can do anything anyway.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from edge_client.serving.errors import AccessError
from nightshift.protocol.errors import UsageError

MINIMUM_KEY_CHARACTERS = 8


def is_loopback(host: str) -> bool:
    """Whether a listening address is reachable from this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_listening(host: str, api_key: str | None) -> None:
    """Refuses to open the model to a network without a key.

    Raises:
        UsageError: no key and not loopback, or a key that cannot be sent or is easily guessed.
    """
    if api_key is not None and (
        len(api_key) < MINIMUM_KEY_CHARACTERS or not (api_key.isascii() and api_key.isprintable())
    ):
        raise UsageError(
            f"the API key must have at least {MINIMUM_KEY_CHARACTERS} characters, printable ASCII; "
            "make one with: openssl rand -hex 24"
        )
    if api_key is None and not is_loopback(host):
        raise UsageError(
            f"--host {host} opens the model to the network, which needs an API key: set serving.api_key in "
            "config.toml or EDGE_CLIENT_SERVING_API_KEY, or stay on 127.0.0.1"
        )


@dataclass(frozen=True, slots=True)
class Gate:
    """The rules for one server.

    Attributes:
        api_key: that requests must carry; None asks for none.
        host: that the server listens on.
    """

    api_key: str | None
    host: str

    def check(self, headers: Mapping[str, str]) -> None:
        """Lets a request through.

        Args:
            headers: by lower-case name.

        Raises:
            AccessError: 401 without the right key, 403 for a page of a browser.
        """
        if self.api_key is None:
            self._refuse_pages(headers)
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not given:
            raise AccessError(
                "no API key was sent; expected the header Authorization: Bearer KEY",
                code="missing_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        if not hmac.compare_digest(_digest(given.strip()), _digest(self.api_key)):
            raise AccessError("wrong API key", code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})

    def _refuse_pages(self, headers: Mapping[str, str]) -> None:
        named = _host_of("//" + headers.get("host", ""))
        if not (is_loopback(named) or named == self.host.lower()):
            raise AccessError(
                "this server answers only requests to this machine by its loopback address", status=403, code="host"
            )
        origin = headers.get("origin")
        if origin is not None and not is_loopback(_host_of(origin)):
            raise AccessError("pages of other sites may not use this server", status=403, code="origin")


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _digest(key: str) -> bytes:
    # Equal lengths, so that the comparison takes the same time for every key.
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
