"""SIGTERM: no new calls, those under way go on for a while, and the process ends with 0."""

from __future__ import annotations

import os
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
import pytest

from coordinator.home import Home
from coordinator.rounds.plans import open_round
from coordinator.storage.rows import Contribution, ContributionState, Task
from nightshift.host.clock import now_unix_s
from nightshift.host.rpc import CHUNK_BYTES
from nightshift.protocol.errors import UnreachableError
from nightshift.v1 import device_pb2
from tests.support.coordinators import TASK, ServeProcess, free_port, make_task, make_token, open_home
from tests.support.fleets import wait_until
from tests.support.scripted_device import Prepared, ScriptedDevice


@dataclass
class PausedUpload:
    """A stream that stops before its last piece until it is told to go on."""

    device: ScriptedDevice
    prepared: Prepared
    paused: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)
    reply: list[device_pb2.UploadResponse] = field(default_factory=list)
    failures: list[grpc.RpcError] = field(default_factory=list)

    def begin(self, metrics_port: int) -> threading.Thread:
        """Send; returns once the service has the call in hand, as its own metrics say."""
        self.device.open_upload(self.prepared)
        thread = threading.Thread(target=self._send)
        thread.start()
        assert self.paused.wait(30)
        wait_until(lambda: 'nightshift_calls_under_way{listener="device"} 1.0' in metrics(metrics_port))
        return thread

    def _send(self) -> None:
        try:
            self.reply.append(self.device.stub.Upload(self._messages(), timeout=60))
        except grpc.RpcError as error:
            self.failures.append(error)

    def _messages(self) -> Iterator[device_pb2.UploadRequest]:
        body = self.prepared.body
        half = min(len(body) // 2, CHUNK_BYTES)
        yield device_pb2.UploadRequest(cohort_id=self.prepared.plan.document.cohort_id, offset=0)
        yield device_pb2.UploadRequest(data=body[:half])
        self.paused.set()
        self.go_on.wait(60)
        for start in range(half, len(body), CHUNK_BYTES):
            yield device_pb2.UploadRequest(data=body[start : start + CHUNK_BYTES])


def metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as reply:
        text: str = reply.read().decode()
    return text


def served(home: Home, *, drain_s: int) -> tuple[ServeProcess, int]:
    """The service, and the port of its metrics."""
    port = free_port()
    serve = ServeProcess(
        home,
        NIGHTSHIFT_COORDINATOR_LISTEN_DRAIN_S=str(drain_s),
        NIGHTSHIFT_COORDINATOR_METRICS_PORT=str(port),
    )
    serve.wait_until_ready()
    return serve, port


@pytest.fixture
def devices(home: Home, package: Path) -> Iterator[list[ScriptedDevice]]:
    """Three that may join the coordinator, which is not running."""
    with open_home(home) as deployment:
        token = make_token(deployment)
        make_task(deployment, package)
    made = [ScriptedDevice(token) for _ in range(3)]
    yield made
    for device in made:
        device.close()


def begun(home: Home, devices: list[ScriptedDevice]) -> PausedUpload:
    """A round is open, and the first device is in the middle of its upload."""
    for device in devices:
        device.join()
        device.check_in(new_prekeys=1)
    with open_home(home) as deployment, deployment.database.transaction() as session:
        open_round(session, deployment, session.get_one(Task, TASK), now_unix_s())
    plan = devices[0].check_in().plan
    assert plan is not None
    delta = np.zeros(plan.document.vector.delta_length, dtype=np.float32)
    return PausedUpload(devices[0], devices[0].prepare(plan, delta))


def test_an_upload_that_is_under_way_is_finished_and_counted(home: Home, devices: list[ScriptedDevice]) -> None:
    serve, port = served(home, drain_s=30)
    upload = begun(home, devices)
    sending = upload.begin(port)
    os.kill(serve.pid, signal.SIGTERM)
    deadline = time.monotonic() + 25
    refused = False
    while not refused and time.monotonic() < deadline:
        try:
            devices[1].close()  # a new connection each time
            devices[1].check_in()
        except UnreachableError:
            refused = True
    assert refused, "a service that ends takes no new calls"
    assert serve.running
    upload.go_on.set()
    assert serve.wait_for_death() == 0
    sending.join(30)
    assert upload.failures == []
    assert [reply.complete for reply in upload.reply] == [True]
    with open_home(home) as deployment, deployment.database.reading() as session:
        row = session.get_one(Contribution, (upload.prepared.plan.document.cohort_id, devices[0].device_id))
        assert row.state is ContributionState.COUNTED
    assert "event=stopping" in serve.errors
    assert "event=stopped" in serve.errors


def test_an_upload_that_does_not_end_is_cut_and_resumed_later(home: Home, devices: list[ScriptedDevice]) -> None:
    serve, port = served(home, drain_s=1)
    upload = begun(home, devices)
    sending = upload.begin(port)
    begun_s = time.monotonic()
    assert serve.terminate() == 0
    assert 0.5 < time.monotonic() - begun_s < 15
    upload.go_on.set()
    sending.join(30)
    assert upload.reply == []
    again = ServeProcess(home)
    again.wait_until_ready()
    devices[0].close()
    opened = devices[0].open_upload(upload.prepared)
    assert opened.offset > 0, "what came before the cut was kept"
    assert devices[0].send(upload.prepared, offset=opened.offset).complete
    assert again.terminate() == 0


def test_a_second_signal_ends_it_at_once(home: Home, devices: list[ScriptedDevice]) -> None:
    serve, port = served(home, drain_s=60)
    upload = begun(home, devices)
    sending = upload.begin(port)
    os.kill(serve.pid, signal.SIGTERM)
    time.sleep(1)
    assert serve.running
    assert serve.terminate() == -signal.SIGTERM
    upload.go_on.set()
    sending.join(30)
