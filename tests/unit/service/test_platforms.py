"""Where this program does not run it says so, with the way on."""

from __future__ import annotations

import pytest

from edge_client.service.platforms import require_supported
from nightshift.protocol.errors import IncompatibleError


@pytest.mark.parametrize(
    ("system", "machine", "pointer_bytes", "message"),
    [
        ("Windows", "AMD64", 8, "WSL 2"),
        ("Linux", "armv7l", 4, "64-bit Raspberry Pi OS"),
        ("Linux", "armv6l", 4, "no wheels"),
        ("Linux", "aarch64", 4, "a 64-bit kernel alone is not enough"),
        ("Linux", "i686", 4, "32-bit"),
    ],
)
def test_unsupported(system: str, machine: str, pointer_bytes: int, message: str) -> None:
    with pytest.raises(IncompatibleError, match=message):
        require_supported(system=system, machine=machine, pointer_bytes=pointer_bytes)


@pytest.mark.parametrize(
    ("system", "machine"), [("Linux", "x86_64"), ("Linux", "aarch64"), ("Darwin", "arm64"), ("Darwin", "x86_64")]
)
def test_supported(system: str, machine: str) -> None:
    require_supported(system=system, machine=machine, pointer_bytes=8)
