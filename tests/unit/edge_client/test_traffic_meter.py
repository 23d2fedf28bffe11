"""Every byte of every message is counted, and the night's limit ends a download that goes on the next day."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from edge_client import traffic_meter
from edge_client.artefacts import Artefacts
from edge_client.connection import Connection
from edge_client.store.database import Database
from edge_client.store.traffic import NightTraffic, Traffic, night_of
from edge_client.traffic_meter import Meter, MeteredChannel
from nightshift.host import clock
from nightshift.protocol.errors import DeclinedError
from nightshift.v1 import device_pb2, device_pb2_grpc
from tests.support.scripted_coordinator import ScriptedCoordinator, connected
from tests.unit.edge_client.test_artefacts import CHUNK, CONTENT, SHA256, FileServer


@pytest.fixture
def traffic(tmp_path: Path) -> Iterator[Traffic]:
    database = Database.open(tmp_path / "store", now_unix_s=1, expected=False)
    yield Traffic(database)
    database.close()


def metered(address: str, channel: grpc.Channel, meter: Meter) -> Connection:
    return Connection(address, device_pb2_grpc.DeviceServiceStub(MeteredChannel(channel, meter)), meter)


def tonight(traffic: Traffic) -> NightTraffic:
    return traffic.of(night_of(clock.now()))


def test_what_calls_and_streams_carry_is_counted_to_the_byte(traffic: Traffic, tmp_path: Path) -> None:
    reply = device_pb2.CheckInResponse(protocol_version=7, prekeys_held=3)
    pieces: list[int] = []

    def take(requests: Iterator[device_pb2.UploadRequest]) -> device_pb2.UploadResponse:
        pieces.extend(request.ByteSize() for request in requests)
        return device_pb2.UploadResponse(complete=True)

    coordinator = ScriptedCoordinator(check_in=lambda _: reply, upload=take, artefact=FileServer())
    with connected(coordinator) as plain, grpc.insecure_channel(plain.address) as channel:
        connection = metered(plain.address, channel, Meter(traffic, 0))
        request = device_pb2.CheckInRequest(client_version="x" * 100)
        connection.call(lambda: connection.stub.CheckIn(request, timeout=10))
        assert tonight(traffic) == NightTraffic(request.ByteSize(), reply.ByteSize())
        parts = [device_pb2.UploadRequest(data=bytes(size)) for size in (10, 20, 30)]
        done = connection.call(lambda: connection.stub.Upload(iter(parts), timeout=10))
        assert tonight(traffic).sent_bytes == request.ByteSize() + sum(pieces)
        assert tonight(traffic).received_bytes == reply.ByteSize() + done.ByteSize()
        before = tonight(traffic).received_bytes
        Artefacts(tmp_path).fetch(connection, SHA256, size_bytes=len(CONTENT), size_limit_bytes=len(CONTENT))
        assert len(CONTENT) < tonight(traffic).received_bytes - before < len(CONTENT) + 200


def test_a_download_stops_at_the_limit_and_goes_on_another_night(
    traffic: Traffic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traffic_meter, "STEP_BYTES", CHUNK)
    server = FileServer()
    with connected(ScriptedCoordinator(artefact=server)) as plain, grpc.insecure_channel(plain.address) as channel:
        first = metered(plain.address, channel, Meter(traffic, len(CONTENT) // 2))
        with pytest.raises(DeclinedError, match=r"conditions\.nightly_limit_mb\); what came is kept"):
            Artefacts(tmp_path).fetch(first, SHA256, size_bytes=len(CONTENT), size_limit_bytes=len(CONTENT))
        kept = (tmp_path / "partial" / SHA256.hex()).stat().st_size
        assert 0 < kept < len(CONTENT)
        assert tonight(traffic).total_bytes >= len(CONTENT) // 2
        with pytest.raises(DeclinedError):
            first.call(lambda: pytest.fail("a call was made although nothing is left of the night"))
        now = clock.now()
        monkeypatch.setattr(clock, "now", lambda: now + 86_400)
        second = metered(plain.address, channel, Meter(traffic, len(CONTENT)))
        path = Artefacts(tmp_path).fetch(second, SHA256, size_bytes=len(CONTENT), size_limit_bytes=len(CONTENT))
    assert path.read_bytes() == CONTENT
    assert server.offsets == [0, kept]
