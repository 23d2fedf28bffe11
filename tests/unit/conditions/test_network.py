"""Metered networks, and the owner's bytes of a night."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from edge_client.conditions import Verdict
from edge_client.conditions.network import Metered, NightlyBytes
from edge_client.conditions.system_bus import SystemBus


def manager(code: int) -> str:
    return json.dumps({"type": "a{sv}", "data": [{"Metered": {"type": "u", "data": code}}]})


# NMMetered: 0 unknown, 1 yes, 2 no, 3 guess yes, 4 guess no.
@pytest.mark.parametrize(
    ("code", "verdict"),
    [(0, Verdict.UNKNOWN), (1, Verdict.NO), (2, Verdict.OK), (3, Verdict.NO), (4, Verdict.OK), (77, Verdict.UNKNOWN)],
)
def test_what_network_manager_says(bus: Callable[[str], SystemBus], code: int, verdict: Verdict) -> None:
    assert Metered(bus(manager(code)), allowed=False).read().verdict is verdict


def test_an_owner_who_pays_gladly(bus: Callable[[str], SystemBus]) -> None:
    reading = Metered(bus(manager(1)), allowed=True).read()
    assert (reading.verdict, reading.value) == (Verdict.OK, "metered")


def test_a_machine_without_network_manager(no_bus: SystemBus) -> None:
    assert Metered(no_bus, allowed=False).read().verdict is Verdict.UNKNOWN
    assert Metered(no_bus, allowed=False, stated="yes").read().verdict is Verdict.NO
    assert Metered(no_bus, allowed=False, stated="no").read().verdict is Verdict.OK


def test_a_night_that_has_used_its_bytes() -> None:
    assert NightlyBytes(5 * 2**20, 0).read().verdict is Verdict.OK
    assert NightlyBytes(5 * 2**20, 6 * 2**20).read().verdict is Verdict.OK
    full = NightlyBytes(6 * 2**20, 6 * 2**20).read()
    assert full.verdict is Verdict.NO
    assert "conditions.nightly_limit_mb" in full.reason
