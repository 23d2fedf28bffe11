"""Which TLS the listeners of a real process speak: 1.3, and 1.2 with forward-secret authenticated suites."""

from __future__ import annotations

import socket
import ssl
import warnings
from collections.abc import Iterator

import pytest

from coordinator.home import Home
from tests.support.coordinators import ServeProcess, open_home

GOOD_SUITE, OLD_SUITE = "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA"


@pytest.fixture
def port(home: Home) -> Iterator[int]:
    """The join listener of `coordinator serve`."""
    with open_home(home) as deployment:
        listening = deployment.configuration.listen.join_port
    process = ServeProcess(home)
    process.wait_until_ready()
    yield listening
    assert process.terminate() == 0
    assert process.errors.count("\n") < 5, process.errors


def spoken(port: int, version: ssl.TLSVersion, suites: str) -> str | None:
    """The version that both sides agreed on, as a client that offers only this one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    context.set_ciphers(suites)
    with warnings.catch_warnings():
        # The deprecation of TLS 1.1 is the point.
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain) as channel,
    ):
        return channel.version()


def test_versions_and_suites(port: int) -> None:
    assert spoken(port, ssl.TLSVersion.TLSv1_3, GOOD_SUITE) == "TLSv1.3"
    assert spoken(port, ssl.TLSVersion.TLSv1_2, GOOD_SUITE) == "TLSv1.2"
    for version, suites in (
        (ssl.TLSVersion.TLSv1_2, OLD_SUITE),
        (ssl.TLSVersion.TLSv1_1, f"{OLD_SUITE}:@SECLEVEL=0"),
    ):
        with pytest.raises((ssl.SSLError, ConnectionError), match=r"(?i)alert|reset|closed|eof"):
            spoken(port, version, suites)
