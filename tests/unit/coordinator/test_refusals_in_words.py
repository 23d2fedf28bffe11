"""What a device is told when it may not take part: each case by its own words and exit code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.deployment import Deployment
from coordinator.enrolment.devices import find_device, revoke
from coordinator.enrolment.tokens import find_token, revoke_token
from coordinator.storage.rows import Device, DeviceState
from nightshift.host.clock import now_unix_s
from nightshift.protocol.errors import NightshiftError
from tests.support.coordinators import make_home, make_token, open_home
from tests.support.renewals import begin, end
from tests.support.scripted_device import ScriptedDevice

Join = Callable[[], ScriptedDevice]
Clock = Callable[[float], None]
DAY_S = 86_400


class Case:
    """What the cases need: a served coordinator, its clock, a second one, devices."""

    def __init__(self, served: Deployment, join: Join, clock: Clock, directory: Path) -> None:
        self.served, self.join, self.clock, self.directory = served, join, clock, directory

    def token_of_another_coordinator(self) -> None:
        ScriptedDevice(replace(make_token(self.served), secret=bytes(32))).join()

    def token_used_up(self) -> None:
        token = make_token(self.served, uses=1)
        ScriptedDevice(token).join()
        ScriptedDevice(token).join()

    def token_expired(self) -> None:
        token = make_token(self.served, ttl_s=60)
        self.clock(61)
        ScriptedDevice(token).join()

    def token_revoked(self) -> None:
        token = make_token(self.served)
        with self.served.database.transaction() as session:
            revoke_token(session, find_token(session, token.secret).token_id, now_unix_s())
        ScriptedDevice(token).join()

    def another_server(self) -> None:
        with open_home(make_home(self.directory / "other")) as other:
            theirs = make_token(other)
        ScriptedDevice(replace(make_token(self.served), root_der=theirs.root_der)).join()

    def certificate_expired_long_ago(self) -> None:
        device = self.join()
        self.clock((30 + 91) * DAY_S)
        end(device, begin(device))

    def device_revoked(self) -> None:
        device = self.join()
        with self.served.database.transaction() as session:
            row = find_device(session, device.device_id.hex())
            revoke(session, self.served.log, row, reason="", now_unix_s=now_unix_s())
        device.check_in()

    def device_in_use_twice(self) -> None:
        device = self.join()
        with self.served.database.transaction() as session:
            session.get_one(Device, device.device_id).state = DeviceState.HELD
        device.check_in()

    def device_unknown_here(self) -> None:
        """Certified by this authority, but its database was set back to before it joined."""
        stranger = ScriptedDevice(make_token(self.served))
        key = stranger.key.public_key()
        stranger.certificate = self.served.authority.issue_device_certificate(key, now_unix_s())
        try:
            stranger.check_in()
        finally:
            stranger.close()


CASES: dict[str, tuple[Callable[[Case], None], int, str, str]] = {
    "token of another coordinator": (Case.token_of_another_coordinator, 2, "does not know the join token", "new one"),
    "token used up": (Case.token_used_up, 2, "the join token is used up", "ask the operator for a new one"),
    "token expired": (Case.token_expired, 2, "the join token has expired", "ask the operator for a new one"),
    "token revoked": (Case.token_revoked, 2, "the join token was revoked", "ask for a new one"),
    "another server at the address": (Case.another_server, 14, "expected root", "token"),
    "certificate expired long ago": (
        Case.certificate_expired_long_ago,
        12,
        "this device's certificate expired on",
        "ask the operator for a new token",
    ),
    "device revoked": (Case.device_revoked, 12, "the device was revoked by the operator", "edge-client leave"),
    "device in use twice": (Case.device_in_use_twice, 12, "this device's key is in use twice", "edge-client leave"),
    "device unknown here": (Case.device_unknown_here, 12, "does not know the device", "join it with a new token"),
}


def test_each_refusal_is_distinct_and_says_what_to_do(
    served: Deployment, join: Join, clock: Clock, tmp_path: Path
) -> None:
    said = {}
    for name, (attempt, code, why, what_to_do) in CASES.items():
        clock(0)
        with pytest.raises(NightshiftError) as caught:
            attempt(Case(served, join, clock, tmp_path))
        said[name] = str(caught.value)
        assert int(caught.value.exit_code) == code, name
        assert why in said[name], name
        assert what_to_do in said[name], name
    for name, (_, _, why, _) in CASES.items():
        assert [other for other, text in said.items() if why in text] == [name], "these words mean one thing only"


def test_the_operators_page_lists_them() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "operations.md").read_text("utf-8")
    listed = [
        tuple(cell.strip() for cell in line.strip("|").split("|")[:3])
        for line in page.partition("## What a device is told")[2].partition("\n## ")[0].splitlines()
        if line.startswith("| ") and not line.startswith("| case")
    ]
    assert listed == [(name, str(code), f"“{why}”") for name, (_, code, why, _) in CASES.items()]
