"""A device that seals garbage: the real edge-client, in which one function of the protocol is another one.

`python -m tests.support.garbling_device --home DIR run --now` contributes like
`edge-client`, but the shares for the committee members whose indexes
`NIGHTSHIFT_GARBLE` lists ("1,2") are random bytes. They are sealed and
signed as they must be, so that only these members can see it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from nightshift.protocol.secagg import device
from nightshift.protocol.secagg.sealing import seal
from scripts.night.fleet import Device

VARIABLE = "NIGHTSHIFT_GARBLE"
ROOT = Path(__file__).parents[2]


def contribute_garbage(culprit: Device, members: list[int]) -> None:
    """A pass of a device of a fleet in which its shares for these members are garbage."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.garbling_device", "--home", str(culprit.home), "run", "--now"],
        env={
            **os.environ,
            **culprit.environment,
            VARIABLE: ",".join(map(str, members)),
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def garble(members: set[int]) -> None:
    """From now on seal random bytes to these members; members are sealed to in the order of their indexes."""
    sealed = 0

    def seal_some(share: bytes, prekey: bytes, info: bytes) -> bytes:
        nonlocal sealed
        sealed += 1
        return seal(b"\xff" * len(share) if sealed in members else share, prekey, info)

    device.seal = seal_some


def main() -> None:
    """Run edge-client with it."""
    from edge_client.cli.main import main as edge_client

    garble({int(index) for index in os.environ[VARIABLE].split(",")})
    edge_client()


if __name__ == "__main__":
    main()
