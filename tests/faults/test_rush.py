"""Ten times as many devices as threads call at once, after an outage: few wait, the others hear when to return."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from sqlalchemy import select

from coordinator.deployment import Deployment
from coordinator.service.server import serving
from coordinator.service.shedding import RETRY_AFTER_LEAST_S, RETRY_AFTER_MOST_S, WAITING_PER_THREAD
from coordinator.storage.rows import Device
from nightshift.v1 import device_pb2
from tests.support.coordinators import make_home, make_token, open_home
from tests.support.scripted_device import ScriptedDevice

pytestmark = pytest.mark.slow

THREADS = 4
DEVICES = 10 * THREADS


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Deployment]:
    home = make_home(tmp_path / "coordinator")
    text = home.configuration_file.read_text("utf-8")
    home.configuration_file.write_text(text + f"threads = {THREADS}\n", "utf-8")
    with open_home(home) as deployment, serving(deployment):
        yield deployment


def retry_after_s(error: grpc.RpcError) -> int:
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, error
    for detail in rpc_status.from_call(error).details:
        info = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            seconds: int = info.retry_delay.seconds
            return seconds
    raise AssertionError("turned away without a word on when to return")


def test_a_rush_after_an_outage(served: Deployment) -> None:
    """Tries: the database answers nobody for a moment, and forty devices check in meanwhile.

    What keeps the queue short: coordinator/service/shedding.py. What keeps those who were turned away from coming
    back together: each is told another time. Nobody is lost: everyone who comes back is answered.
    """
    token = make_token(served, uses=DEVICES)
    devices = [ScriptedDevice(token, name=str(number)) for number in range(DEVICES)]
    for device in devices:
        device.join()
        # A connection of its own, as after an outage; what a stranger may ask costs no thread.
        grpc.channel_ready_future(device.channel).result(timeout=20)
    answered: list[float] = []
    shed: dict[int, tuple[float, int]] = {}

    def check_in(number: int) -> None:
        began = time.monotonic()
        request = device_pb2.CheckInRequest(
            protocol_version_min=1, protocol_version_max=1, epoch=1, next_nonce=devices[number].next_nonce
        )
        try:
            devices[number].stub.CheckIn(request, timeout=30)
            answered.append(time.monotonic() - began)
        except grpc.RpcError as error:
            shed[number] = (time.monotonic() - began, retry_after_s(error))

    with ThreadPoolExecutor(DEVICES) as callers:
        with served.database.transaction() as session:
            session.scalars(select(Device)).all()  # has the writers' turn from here on: no check-in gets on
            calls = [callers.submit(check_in, number) for number in range(DEVICES)]
            deadline = time.monotonic() + 20
            while len(shed) < DEVICES - THREADS * (1 + WAITING_PER_THREAD):
                assert time.monotonic() < deadline, (len(shed), len(answered))
                time.sleep(0.05)
            assert answered == []
        for call in calls:
            call.result(timeout=30)

    assert len(answered) == THREADS * (1 + WAITING_PER_THREAD), "those who had a thread or a place in the queue"
    waits = [wait for _, wait in shed.values()]
    assert all(RETRY_AFTER_LEAST_S <= wait <= RETRY_AFTER_MOST_S for wait in waits)
    assert max(Counter(waits).values()) < len(waits) / 2, "spread"
    for number in shed:
        devices[number].check_in()
    assert threading.active_count() < 3 * DEVICES
    for device in devices:
        device.close()
