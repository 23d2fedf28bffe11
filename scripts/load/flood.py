"""Devices that call as fast as they can, in a process of their own, while somebody measures what others feel of it.

    python -m scripts.load.flood TOKEN

Each joins with the token and calls check-in from many threads without end, with a request that is cheap to make
and is refused: what it costs is the admission, and for the few that are let in the look at their row. It ends when its
standard input does, and prints how many calls were let in and how many turned away.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from nightshift.host.tokens import JoinToken

FLOODERS = 2
THREADS_EACH = 8


@dataclass
class Flood:
    """What became of the flood's calls, once it has ended.

    Attributes:
        let_in_per_s: calls that reached the servicer.
        turned_away_per_s: calls that a limit turned away.
    """

    let_in_per_s: float = 0.0
    turned_away_per_s: float = 0.0


@contextmanager
def flooding(token: JoinToken) -> Iterator[Flood]:
    """A flood for the length of a block.

    Args:
        token: with `FLOODERS` uses left.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "scripts.load.flood", token.encode()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    flood = Flood()
    try:
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("the flood did not begin; its error is above")
        yield flood
    finally:
        process.stdin.close()
        counted = json.loads(process.stdout.readline() or "{}")
        process.wait(timeout=60)
    flood.let_in_per_s, flood.turned_away_per_s = counted["let_in_per_s"], counted["turned_away_per_s"]


def main() -> None:
    """Flood until standard input ends."""
    from nightshift.host.tls import prepare_grpc

    prepare_grpc()
    import grpc

    from nightshift.v1 import device_pb2
    from tests.support.scripted_device import ScriptedDevice

    devices = [ScriptedDevice(JoinToken.decode(sys.argv[1]), name=f"flooder-{number}") for number in range(FLOODERS)]
    for device in devices:
        device.join()
    stop, guard = threading.Event(), threading.Lock()
    counts = {"let_in": 0, "turned_away": 0}

    def call_without_end(device: ScriptedDevice) -> None:
        while not stop.is_set():
            try:
                device.stub.CheckIn(device_pb2.CheckInRequest(), timeout=30)
            except grpc.RpcError as error:
                overloaded = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                with guard:
                    counts["turned_away" if overloaded else "let_in"] += 1

    threads = [
        threading.Thread(target=call_without_end, args=(device,)) for device in devices for _ in range(THREADS_EACH)
    ]
    for thread in threads:
        thread.start()
    print("ready", flush=True)
    began = time.monotonic()
    sys.stdin.read()
    seconds = time.monotonic() - began
    stop.set()
    for thread in threads:
        thread.join()
    print(json.dumps({f"{name}_per_s": count / seconds for name, count in counts.items()}))
    for device in devices:
        device.close()


if __name__ == "__main__":
    main()
