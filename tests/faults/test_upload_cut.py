"""The wire breaks in the middle of an upload: it goes on from what the coordinator acknowledged, and counts once.

Fault 25 (docs/faults.md), with both real programs and a wire that breaks below TLS.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nightshift.host.rpc import CHUNK_BYTES
from scripts.night.fleet import free_port
from tests.support.broken_wire import BrokenWire
from tests.support.fleets import WINDOW_S, Fleet, Snapshots, copy_fleet, query

pytestmark = pytest.mark.slow

FleetFrom = Callable[[Path], Fleet]
PARTIAL = 3
ALL_CONNECTIONS = 40
OVERHEAD_BYTES = 40_000
"""TLS, and the calls that a device makes beside its upload."""

LARGE = "large"

LARGE_TASK = f"""name = "{LARGE}"
model = "stories260K"
[adapter]
rank = 32
ranks = [32]
alpha = 16.0
method = "alternate"
[training]
steps = 1
batch_size = 2
learning_rate = 1e-2
max_tokens = 48
[encoding]
value_bits = 16
value_clip = 1.0
clip_norm = 0.0
[cohort]
n_min = 3
n_max = 512
pool_min = 3
[gate]
enabled = false
[rounds]
open = "operator"
upload_window_s = {WINDOW_S}
answer_window_s = {WINDOW_S}
"""
"""Its contributions are several pieces on the wire: a large n_max leaves room for two values in a coefficient."""


@pytest.fixture(scope="module")
def two_sent(snapshots: Snapshots, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A round of the large task, to which two of three devices have contributed."""
    directory = tmp_path_factory.mktemp("large") / "fleet"
    fleet = copy_fleet(snapshots.joined(3), directory)
    settings = directory / "large.toml"
    settings.write_text(LARGE_TASK, "utf-8")
    fleet.coordinator.command("task", "create", "-f", str(settings))
    fleet.coordinator.command("round", "open", LARGE)
    with fleet.serving():
        for device in fleet.devices[:2]:
            assert device.run().json["sent"] == [f"{LARGE}/1"]
    return directory


@contextmanager
def served_over(fleet: Fleet, breaks_after: list[int]) -> Iterator[BrokenWire]:
    """Serve on another port than the devices know, with the breaking wire between."""
    known, _ = fleet.coordinator.ports
    moved = free_port()
    configuration = fleet.coordinator.directory / "coordinator.toml"
    text = configuration.read_text("utf-8")
    assert f"\nport = {known}\n" in text
    # What devices are told stays as it is: they would else follow the coordinator past the wire.
    here = f'port = {moved}\npublic_device_address = "127.0.0.1:{known}"\n'
    configuration.write_text(text.replace(f"\nport = {known}\n", f"\n{here}"), "utf-8")
    try:
        with fleet.serving(), BrokenWire(known, moved, breaks_after).serving() as wire:
            yield wire
    finally:
        configuration.write_text(text, "utf-8")


def contribution_size_bytes(fleet: Fleet) -> int:
    """The one size of a contribution to round 1."""
    (row,) = query(fleet.database, "SELECT DISTINCT size_bytes FROM contributions")
    size_bytes: int = row["size_bytes"]
    return size_bytes


def finish(fleet: Fleet) -> None:
    """End the uploads and let everybody answer; the sum must be exactly that of the three contributions."""
    fleet.move_clock(WINDOW_S + 1)
    for device in fleet.devices:
        if fleet.cohort()["state"] != "opened":
            device.run()
    assert fleet.cohort()["counted"] == 3
    assert fleet.sum_is_exact(fleet.devices)


@pytest.mark.parametrize("after_bytes", [300_000, 340_000])
def test_one_break_costs_no_more_than_the_piece_in_flight(
    after_bytes: int, two_sent: Path, fleet_from: FleetFrom
) -> None:
    """Tries: one break after so many bytes of the connection.

    What stops a second count and a wasted night: the coordinator keeps what came and says how much that is
    (coordinator/aggregation/uploads.py, `announce`); the device sends the rest of the same bytes in the same pass.
    """
    fleet = fleet_from(two_sent)
    with served_over(fleet, [after_bytes]) as wire:
        assert fleet.devices[2].run().json["sent"] == [f"{LARGE}/1"]
        first, *rest = wire.sent_bytes
        size_bytes = contribution_size_bytes(fleet)
        assert first <= after_bytes < size_bytes, "the wire broke inside the upload"
        # One piece of 256 KiB at the least had come and is not sent again.
        assert sum(rest) < size_bytes - CHUNK_BYTES + OVERHEAD_BYTES
        finish(fleet)


def test_a_wire_that_always_breaks_leaves_the_rest_to_the_next_night(two_sent: Path, fleet_from: FleetFrom) -> None:
    """Tries: every connection breaks. The pass ends as partial and nothing is counted.

    What stops another contribution: the bytes that were encrypted wait in the journal (edge_client/agent/uploads.py),
    and the next pass sends exactly those.
    """
    fleet = fleet_from(two_sent)
    device = fleet.devices[2]
    with served_over(fleet, [60_000] * ALL_CONNECTIONS) as wire:
        device.run(expect=PARTIAL)
        assert len(wire.sent_bytes) < ALL_CONNECTIONS, "a device gives a night up before it becomes a nuisance"
    (waiting,) = (path for path in (device.home / "uploads").iterdir())
    body_sha256 = hashlib.sha256(waiting.read_bytes()).digest()
    assert fleet.cohort()["counted"] == 2
    (row,) = query(device.home / "store.sqlite3", "SELECT body_sha256 FROM contributions")
    assert row["body_sha256"] == body_sha256
    with fleet.serving():
        assert device.run().json["sent"] == [f"{LARGE}/1"]
        (row,) = query(device.home / "store.sqlite3", "SELECT body_sha256 FROM contributions")
        assert row["body_sha256"] == body_sha256
        finish(fleet)
