"""However often a device dies or a reply is lost, it is one device; however two copies take turns, they are two."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.enrolment.clones import recognise
from coordinator.storage.rows import Device, DeviceState

MISHAPS = ("fine", "killed before it sent", "coordinator killed before it kept", "reply lost", "store lost")


def row() -> Device:
    return Device(
        device_id=bytes(32),
        state=DeviceState.ENROLLED,
        name="",
        certificate=b"",
        certificate_not_after_unix_s=0,
        enrolled_unix_s=0,
    )


@dataclass
class Copy:
    """What a device keeps, as edge_client/agent/nonces.py does: the proposal is durable before it is sent."""

    answered: bytes = b""
    proposed: bytes | None = None
    epoch: int = 1
    spoke: list[bytes] = field(default_factory=list)

    def check_in(self, device: Device, mishap: str) -> bool:
        """One attempt; whether the coordinator recognised the device, as far as it was asked."""
        if mishap == "store lost":
            self.answered, self.proposed, self.epoch = b"", None, self.epoch + 1
        if self.proposed is None:
            self.proposed = os.urandom(32)
        if mishap == "killed before it sent":
            return True
        kept = device if mishap != "coordinator killed before it kept" else copy.copy(device)
        known = recognise(kept, presented=self.answered, proposed=self.proposed, epoch=self.epoch, now_unix_s=1)
        if known:
            kept.prekey_epoch = self.epoch
        if known and mishap in ("fine", "store lost"):
            self.spoke.append(self.proposed)
            self.answered, self.proposed = self.proposed, None
        return known


@settings(max_examples=300)
@given(st.lists(st.sampled_from(MISHAPS), max_size=40))
def test_one_device_is_one_device(mishaps: list[str]) -> None:
    device, only = row(), Copy()
    for mishap in mishaps:
        assert only.check_in(device, mishap)
    assert device.state is DeviceState.ENROLLED


@settings(max_examples=300)
@given(
    st.lists(st.sampled_from(MISHAPS[:4]), max_size=6),
    st.lists(st.tuples(st.booleans(), st.sampled_from(MISHAPS[:4])), max_size=20),
)
def test_two_copies_are_noticed_once_both_have_spoken(before: list[str], turns: list[tuple[bool, str]]) -> None:
    """Speaking means that a check-in with a nonce of its own was answered."""
    device, original = row(), Copy()
    for mishap in before:
        original.check_in(device, mishap)
    original.check_in(device, "fine")
    other = copy.deepcopy(original)
    original.spoke.clear()
    other.spoke.clear()
    for first, mishap in turns:
        (original if first else other).check_in(device, mishap)
        if device.state is DeviceState.HELD:
            return
    assert not (original.spoke and other.spoke)
