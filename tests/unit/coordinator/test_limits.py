"""How often and how much at once one caller may ask, with real gRPC; and what nobody may send."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import cast

import grpc
import pytest
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from coordinator.deployment import Deployment
from coordinator.home import Home
from coordinator.service import limits, listeners
from coordinator.service.interceptors import network_of
from coordinator.service.limits import CallsUnderWay, TokenBuckets
from coordinator.service.server import serving
from coordinator.storage import artefacts
from nightshift.host import rpc
from nightshift.protocol.errors import ExitCode, MalformedError, OverloadedError, TokenError, UnreachableError
from nightshift.v1 import device_pb2, device_pb2_grpc, join_pb2
from tests.support.coordinators import make_token, open_home
from tests.support.fleets import wait_until
from tests.support.renewals import join_stub
from tests.support.scripted_device import ScriptedDevice


class Seconds:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    clock = Seconds()
    buckets = TokenBuckets(per_minute=30, burst=3, monotonic=clock)
    assert [buckets.take("a") for _ in range(4)] == [0.0, 0.0, 0.0, 2.0]
    assert buckets.take("b") == 0.0
    clock.now += 1
    assert buckets.take("a") == pytest.approx(1.0)
    clock.now += 1
    assert buckets.take("a") == 0.0
    assert buckets.take("a") == pytest.approx(2.0)
    clock.now += 3600
    assert [buckets.take("a") > 0 for _ in range(4)] == [False, False, False, True]


def test_refused_calls_do_not_lengthen_the_wait() -> None:
    clock = Seconds()
    buckets = TokenBuckets(per_minute=60, burst=1, monotonic=clock)
    buckets.take("a")
    for _ in range(1000):
        assert buckets.take("a") == pytest.approx(1.0)


def test_a_flood_of_keys_takes_no_more_room_and_does_not_push_out_who_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_KEYS", 10)
    buckets = TokenBuckets(per_minute=60, burst=1, monotonic=Seconds())
    buckets.take("mine")
    for number in range(1000):
        buckets.take(number)
        assert buckets.take("mine") > 0
    assert len(buckets._buckets) == 10


def test_calls_under_way_are_counted_in_and_out() -> None:
    under_way = CallsUnderWay(2)
    assert [under_way.enter("a"), under_way.enter("a"), under_way.enter("a"), under_way.enter("b")] == [1, 1, 0, 1]
    under_way.leave("a")
    assert under_way.enter("a")
    for key in ("a", "a", "b"):
        under_way.leave(key)
    assert not under_way._counts


@pytest.mark.parametrize(
    ("peer", "network"),
    [
        ("ipv4:192.0.2.7:4711", "192.0.2.7"),
        ("ipv6:%5B2001:db8:1:2:3:4:5:6%5D:4711", "2001:db8:1:2::/64"),
        ("ipv6:[2001:db8:1:2::1]:4711", "2001:db8:1:2::/64"),
        ("ipv6:[fe80::1%25eth0]:4711", "fe80::/64"),
        ("ipv6:[::ffff:192.0.2.7]:4711", "192.0.2.7"),
        ("unix:", "unix"),
    ],
)
def test_whom_an_address_stands_for(peer: str, network: str) -> None:
    class Context:
        def peer(self) -> str:
            return peer

    assert str(network_of(Context())) == network  # type: ignore[arg-type]  # all that is asked of it


@contextmanager
def limited(home: Home, monkeypatch: pytest.MonkeyPatch, **values: int) -> Iterator[Deployment]:
    """The coordinator of a home, serving under these limits."""
    for name, value in values.items():
        monkeypatch.setenv(f"NIGHTSHIFT_COORDINATOR_LIMITS_{name.upper()}", str(value))
    with open_home(home) as deployment, serving(deployment):
        yield deployment


def test_a_device_that_calls_too_often_is_told_when_to_come_back(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Seconds()
    monkeypatch.setattr(listeners, "TokenBuckets", partial(TokenBuckets, monotonic=clock))
    with limited(home, monkeypatch, calls_burst=3, calls_per_minute=30) as served:
        token = make_token(served)
        eager, patient = ScriptedDevice(token), ScriptedDevice(token)
        eager.join()
        patient.join()
        for _ in range(3):
            eager.check_in()
        with pytest.raises(grpc.RpcError) as caught:
            eager.stub.CheckIn(device_pb2.CheckInRequest(), timeout=10)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert retry_after_s(caught.value) == 2
        with pytest.raises(OverloadedError, match="too many calls from this device; try again in 2 s") as told:
            eager.check_in()
        assert told.value.exit_code is ExitCode.UNREACHABLE
        patient.check_in()
        clock.now += 2
        eager.check_in()
        eager.close()
        patient.close()


def retry_after_s(error: grpc.RpcError) -> int:
    status = rpc_status.from_call(cast("grpc.Call", error))
    assert status is not None
    (found,) = [detail for detail in status.details if detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR)]
    info = error_details_pb2.RetryInfo()
    found.Unpack(info)
    delay: duration_pb2.Duration = info.retry_delay
    return delay.seconds


def test_an_address_that_joins_too_often_is_slowed_down(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with limited(home, monkeypatch, joins_burst=2, joins_per_minute=1) as served:
        token = make_token(served)
        for _ in range(2):
            ScriptedDevice(token).join()
        with pytest.raises(OverloadedError, match="from this address"):
            ScriptedDevice(token).join()


def test_guessing_at_tokens_is_slowed_down_too(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with limited(home, monkeypatch, joins_burst=3, joins_per_minute=1) as served:
        token = make_token(served)
        for _ in range(3):
            with pytest.raises(TokenError):
                ScriptedDevice(replace(token, secret=os.urandom(32))).join()
        with pytest.raises(OverloadedError):
            ScriptedDevice(token).join()


def test_one_device_holds_only_some_of_the_threads(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """It opens upload streams and says nothing; another device is served meanwhile."""
    with limited(home, monkeypatch, calls_at_once=2, upload_stream_s=60, calls_burst=10_000) as served:
        token = make_token(served)
        greedy, other = ScriptedDevice(token), ScriptedDevice(token)
        greedy.join()
        other.join()
        done = threading.Event()

        def silent() -> Iterator[device_pb2.UploadRequest]:
            done.wait(30)
            yield from ()

        held: list[grpc.Future] = []

        def turned_away() -> bool:
            # A check-in may be faster than a stream and take its place: that stream is the one turned away, and opened
            # again.
            held[:] = [call for call in held if not call.done()]
            held.extend(greedy.stub.Upload.future(silent(), timeout=30) for _ in range(2 - len(held)))
            try:
                greedy.check_in()
            except OverloadedError as error:
                return "at once" in str(error)
            return False

        wait_until(turned_away, limit_s=10)
        other.check_in()
        done.set()
        for call in held:
            call.exception(timeout=10)
        greedy.check_in()
        greedy.close()
        other.close()


def test_a_download_that_nobody_reads_is_cut(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow reader must not hold a thread for ever; the device goes on from its offset."""
    size_bytes = 64 * rpc.CHUNK_BYTES
    with limited(home, monkeypatch, download_stream_s=1) as served:
        sha256 = artefacts.put_bytes(served.objects, os.urandom(size_bytes))
        with served.database.transaction() as session:
            artefacts.record(session, sha256=sha256, size_bytes=size_bytes, kind="adapter")
        device = ScriptedDevice(make_token(served))
        device.join()
        replies = device.stub.FetchArtefact(device_pb2.FetchArtefactRequest(sha256=sha256), timeout=20)
        next(replies)
        time.sleep(1.5)
        with pytest.raises(grpc.RpcError) as caught:
            list(replies)
        assert caught.value.code() is grpc.StatusCode.CANCELLED
        device.close()


def test_a_stranger_may_send_little(served: Deployment) -> None:
    token = make_token(served)
    device = ScriptedDevice(token, name="x" * (rpc.MAX_JOIN_MESSAGE_BYTES + 1))
    with pytest.raises(MalformedError, match="too large"):
        device.join()
    ScriptedDevice(token).join()


def test_an_enrolled_device_may_send_no_more_than_one_message_holds(served: Deployment) -> None:
    device = ScriptedDevice(make_token(served))
    device.join()
    with pytest.raises(grpc.RpcError) as caught:
        device.stub.CheckIn(device_pb2.CheckInRequest(client_version="x" * (rpc.MAX_MESSAGE_BYTES + 1)), timeout=10)
    assert isinstance(rpc.from_rpc_error(caught.value, "here"), MalformedError)
    device.check_in()
    device.close()


@pytest.mark.parametrize("port", ["port", "join_port"])
def test_who_connects_and_says_nothing_is_let_go(home: Home, monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    short = [(key, 500 if key == "grpc.server_handshake_timeout_ms" else value) for key, value in rpc.SERVER_OPTIONS]
    assert ("grpc.server_handshake_timeout_ms", 500) in short
    monkeypatch.setattr("coordinator.service.listeners.SERVER_OPTIONS", short)
    monkeypatch.setattr("coordinator.service.listeners.JOIN_SERVER_OPTIONS", short)
    with limited(home, monkeypatch) as served:
        listening = getattr(served.configuration.listen, port)
        with socket.create_connection(("127.0.0.1", listening), timeout=10) as silent:
            assert silent.recv(1) == b""


def test_random_bytes_on_both_ports_hurt_nobody(served: Deployment) -> None:
    token = make_token(served)
    for port in (served.configuration.listen.port, served.configuration.listen.join_port):
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as noisy:
                noisy.sendall(os.urandom(4096))
    device = ScriptedDevice(token)
    device.join()
    device.check_in()
    device.close()


def test_a_late_renewal_counts_as_a_join(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with limited(home, monkeypatch, joins_burst=1, joins_per_minute=1) as served, join_stub(make_token(served)) as stub:
        stub.BeginRenewal(join_pb2.BeginRenewalRequest(device_id=bytes(32)), timeout=10)
        with pytest.raises(grpc.RpcError) as caught:
            stub.BeginRenewal(join_pb2.BeginRenewalRequest(device_id=bytes(32)), timeout=10)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_nobody_answers_a_port_without_tls(served: Deployment) -> None:
    address = make_token(served).device_address
    with grpc.insecure_channel(address) as channel:
        stub = device_pb2_grpc.DeviceServiceStub(channel)  # type: ignore[no-untyped-call]  # generated code
        with pytest.raises(grpc.RpcError) as caught:
            stub.CheckIn(device_pb2.CheckInRequest(), timeout=5)
    assert isinstance(rpc.from_rpc_error(caught.value, address), UnreachableError)
