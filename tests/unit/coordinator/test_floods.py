"""Floods of calls, streams and pings, and what another device feels of them (fault 29)."""

from __future__ import annotations

import select
import socket
import ssl
import statistics
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from coordinator.deployment import Deployment
from coordinator.enrolment.key_files import key_pem
from nightshift.host import rpc
from nightshift.protocol.chains import load_chain
from nightshift.protocol.errors import OverloadedError, UnreachableError
from nightshift.v1 import device_pb2
from tests.support.scripted_device import ScriptedDevice

# HTTP/2 (RFC 9113): the preface, and the frames that are needed here.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING, GOAWAY, HEADERS = 0x4, 0x6, 0x7, 0x1
ENHANCE_YOUR_CALM = 0xB


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


@contextmanager
def as_device(device: ScriptedDevice, tmp_path: Path) -> Iterator[ssl.SSLSocket]:
    """A bare TLS connection to the device listener, with a device's certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    pair = tmp_path / "pair.pem"
    pair.write_bytes(key_pem(device.key) + load_chain(device.certificate).pem)
    context.load_cert_chain(pair)
    host, _, port = device.token.device_address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=10) as plain,
        context.wrap_socket(plain) as channel,
    ):
        channel.sendall(PREFACE + frame(SETTINGS))
        yield channel


class Frames:
    """The HTTP/2 frames in what came over a connection."""

    def __init__(self) -> None:
        self.data = bytearray()

    def take(self, more: bytes) -> list[tuple[int, bytes]]:
        """Kind and payload of the frames that `more` completes."""
        self.data += more
        found = []
        while len(self.data) >= 9 and len(self.data) >= 9 + (size := int.from_bytes(self.data[:3])):
            found.append((self.data[3], bytes(self.data[9 : 9 + size])))
            del self.data[: 9 + size]
        return found


def ping_until_let_go(channel: ssl.SSLSocket) -> list[tuple[int, bytes]]:
    """What the other side says while it is sent pings without end; one thread, as a TLS connection needs."""
    told, frames, number = [], Frames(), 0
    channel.settimeout(0)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            channel.sendall(frame(PING, struct.pack(">Q", number)))
            number += 1
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            select.select([channel], [], [], 0.1)
        except OSError:
            pass  # ended on its side; what it said before may still be read
        try:
            more = channel.recv(65536)
        except ssl.SSLWantReadError:
            continue
        except OSError:
            break
        told += frames.take(more)
        if not more:
            break
    return told


def test_who_pings_without_end_is_told_to_calm_down_and_let_go(
    join: Callable[[], ScriptedDevice], tmp_path: Path
) -> None:
    flooder, other = join(), join()
    with as_device(flooder, tmp_path) as channel:
        ends = [payload for kind, payload in ping_until_let_go(channel) if kind == GOAWAY]
    assert ends, "the connection was ended without a word"
    assert struct.unpack(">I", ends[-1][4:8])[0] == ENHANCE_YOUR_CALM
    other.check_in()
    flooder.check_in()  # a new connection, which behaves


def test_one_connection_has_only_so_many_streams(join: Callable[[], ScriptedDevice]) -> None:
    """More calls than streams of a connection wait on the client's side; what came through is bounded by the gate."""
    greedy, other = join(), join()
    done = threading.Event()

    def silent() -> Iterator[device_pb2.UploadRequest]:
        done.wait(60)
        yield from ()

    calls = [greedy.stub.Upload.future(silent(), timeout=60) for _ in range(200)]
    deadline = time.monotonic() + 30
    told: list[grpc.RpcError] = []
    while time.monotonic() < deadline and len(told) < 100:
        told = [error for call in calls if call.done() and (error := call.exception()) is not None]
        time.sleep(0.05)
    assert len(told) >= 100, "a certificate has four calls at once, the others are turned away"
    meant = [rpc.from_rpc_error(error, "here") for error in told]
    # The streams that came before the connection's limit was known are refused by gRPC itself (REFUSED_STREAM).
    assert {type(each) for each in meant} <= {OverloadedError, UnreachableError}
    shed = [each for each in meant if isinstance(each, OverloadedError)]
    assert shed
    assert all("try again in" in str(each) for each in shed), "with a time to come back"
    other.check_in()
    done.set()
    for call in calls:
        call.exception(timeout=30)


def latency_s(device: ScriptedDevice, calls: int) -> list[float]:
    found = []
    for _ in range(calls):
        begun = time.perf_counter()
        device.check_in(no_plan=True)
        found.append(time.perf_counter() - begun)
    return sorted(found)


@pytest.mark.slow
def test_others_are_served_during_a_flood_of_calls(served: Deployment, join: Callable[[], ScriptedDevice]) -> None:
    """Two devices call as fast as they can, from eight threads each; a third checks in as usual."""
    usual, *flooders = (join() for _ in range(3))
    quiet = latency_s(usual, 20)
    stop = threading.Event()
    turned_away, answered = [0], [0]
    guard = threading.Lock()

    def flood(device: ScriptedDevice) -> None:
        while not stop.is_set():
            try:
                device.stub.CheckIn(device_pb2.CheckInRequest(), timeout=30)
            except grpc.RpcError as error:
                overloaded = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]  # a call, too
                with guard:
                    (turned_away if overloaded else answered)[0] += 1

    with ThreadPoolExecutor(16) as threads:
        for device in flooders:
            for _ in range(8):
                threads.submit(flood, device)
        try:
            busy = latency_s(usual, 60)
        finally:
            stop.set()
    assert turned_away[0] > answered[0] > 0, "the flood was one, and most of it was turned away"
    print(  # noqa: T201 - shown when the test fails, and with -s
        f"quiet: median {statistics.median(quiet) * 1e3:.0f} ms, worst {quiet[-1] * 1e3:.0f} ms; "
        f"flooded: median {statistics.median(busy) * 1e3:.0f} ms, worst of 60 {busy[-1] * 1e3:.0f} ms; "
        f"{turned_away[0]} calls turned away, {answered[0]} not"
    )
    # The flooders, the service and the device share this process and its lock: a bound for "served", not for speed.
    assert busy[-1] < 5
