"""A device between two calls, with training in between: its connection is let go, and the next call makes another."""

from __future__ import annotations

import threading

import grpc
import pytest

from coordinator.service import listeners
from nightshift.host.rpc import IDLE_CONNECTION_S, SERVER_OPTIONS
from tests.support.coordinators import make_token
from tests.support.scripted_device import ScriptedDevice

IDLE = "grpc.max_connection_idle_ms"
SHORT_MS = 400


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service's own options, but for a time that a test can wait."""
    assert (IDLE, 1000 * IDLE_CONNECTION_S) in SERVER_OPTIONS
    options = [(name, SHORT_MS if name == IDLE else value) for name, value in SERVER_OPTIONS]
    monkeypatch.setattr(listeners, "SERVER_OPTIONS", options)


@pytest.mark.usefixtures("short")
def test_an_idle_connection_is_let_go_and_the_next_call_makes_another(
    request: pytest.FixtureRequest,
) -> None:
    device = ScriptedDevice(make_token(request.getfixturevalue("served")))
    device.join()
    states: list[grpc.ChannelConnectivity] = []
    let_go = threading.Event()

    def see(state: grpc.ChannelConnectivity) -> None:
        if state is grpc.ChannelConnectivity.IDLE and grpc.ChannelConnectivity.READY in states:
            let_go.set()
        states.append(state)

    try:
        device.channel.subscribe(see)
        device.check_in()
        assert let_go.wait(20), f"the connection stayed: {states}"
        device.check_in()
    finally:
        device.close()
