"""kill -9 of a device at every failpoint: the next run goes on, nothing counts twice, a retry sends the same bytes.

Each test lets a real `edge-client` die at the failpoint as in a power cut, runs
it again, and looks at what the coordinator counted. What stops a second
contribution or answer is the order "persist, then send" of
`edge_client.agent.{contribution,uploads,duties}` and the rows of
`edge_client.store`.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from nightshift.host import failpoints
from nightshift.v1 import device_pb2
from scripts.night.fleet import Device
from tests.support import certificate_failpoints
from tests.support.fleets import (
    SIGKILLED,
    TASK,
    Fleet,
    Snapshots,
    device_id,
    kill_while_training,
    query,
    status,
    task_toml,
)
from tests.support.garbling_device import contribute_garbage

pytestmark = pytest.mark.slow

FleetFrom = Callable[[Path], Fleet]
SOURCES = Path(__file__).parents[2] / "edge_client"

JOINING = {"device.join.key", "device.join.answered", "device.join.saved"}
DOWNLOADING = {"device.artefact.partial", "device.artefact.checked"}
BEFORE_THE_JOURNAL = {
    "device.check-in.prepared",
    "device.check-in.sent",
    "device.training.done",
    "device.encrypted.unjournaled",
}
JOURNALED = {"device.encrypted", "device.upload.partial", "device.upload.sent"}
ANSWERING = {"device.answer.durable", "device.answer.sent"}
REFUSING = {"device.refusal.durable"}
LAYING_TO_REST = {"device.erasure.durable"}
ADOPTING = {"device.release.adopted"}
MIGRATING = {"device.store.migrated"}
"""Killed at in tests/unit/edge_client/test_store_migrations.py: it needs an old store, and no fleet."""


def die_at(device: Device, failpoint: str, *command: str) -> None:
    """Run a command until the failpoint kills it."""
    device.command(*command, expect=SIGKILLED, **{failpoints.ENVIRONMENT_VARIABLE: failpoint})


def waiting_body(device: Device) -> bytes:
    """Signature, the last 64 bytes, of the one encrypted contribution that waits on the device's disk."""
    (path,) = (device.home / "uploads").glob("*.contribution")
    return path.read_bytes()[-64:]


def see_an_exact_sum(fleet: Fleet) -> None:
    """Answer with every device; each contribution is in the sum exactly once."""
    for device in fleet.devices:
        device.run()
    assert fleet.cohort()["counted"] == 3
    assert fleet.releases() == [0, 1]
    assert fleet.sum_is_exact(fleet.devices)


@pytest.mark.parametrize("failpoint", sorted(JOINING))
def test_while_joining(failpoint: str, snapshots: Snapshots, fleet_from: FleetFrom) -> None:
    """Tries: kill -9 after the key was made, after the reply, after the membership was saved; one token, one use.

    What stops a second identity: the key is a file before anything is sent, and the
    next `join` uses it again (edge_client/agent/joining.py).
    """
    fleet = fleet_from(snapshots.joined(3))
    token = fleet.coordinator.command("token", "create", "--json").json["token"]
    device = Device(fleet.directory / "device4", fleet.devices[0].environment)
    with fleet.serving() as coordinator:
        die_at(device, failpoint, "join", token)
        key = (device.home / "identity.pem").read_bytes()
        device.command("join", token)
        devices = coordinator.command("device", "list", "--json").json["devices"]
    assert (device.home / "identity.pem").read_bytes() == key
    assert len(devices) == 4
    assert device_id(device) in {each["device_id"] for each in devices}


@pytest.mark.parametrize("failpoint", sorted(DOWNLOADING))
def test_while_downloading(failpoint: str, snapshots: Snapshots, fleet_from: FleetFrom) -> None:
    """Tries: kill -9 in the middle of the model package's download, with an empty cache.

    What stops a half package: a file has its name only when its hash is right, and
    what came before is continued (edge_client/artefacts.py).
    """
    fleet = fleet_from(snapshots.opened(3))
    device = fleet.devices[0]
    shutil.rmtree(device.home / "cache")
    with fleet.serving():
        die_at(device, f"{failpoint}:4", "run", "--now")
        kept = {path.name: path.stat().st_ino for path in (device.home / "cache").rglob("*") if path.is_file()}
        assert kept, "nothing of the download was kept"
        assert not (device.home / "cache" / "packages").exists()
        assert device.run().json["sent"] == [f"{TASK}/1"]
    now = {path.name: path.stat().st_ino for path in (device.home / "cache" / "files").iterdir()}
    again = [name for name, inode in kept.items() if name in now and now[name] != inode]
    assert not again, "a file that was here was fetched again from its beginning"
    assert len(fleet.counted()) == 1


@pytest.mark.parametrize("failpoint", sorted(BEFORE_THE_JOURNAL))
def test_before_the_journal(failpoint: str, snapshots: Snapshots, fleet_from: FleetFrom) -> None:
    """Tries: kill -9 around the check-in, after training, and with encrypted bytes that no row names yet.

    What stops a leak: no byte leaves before the journal's row is durable; the next
    run starts over and removes the orphan (edge_client/agent/uploads.py, `forget_finished_files`).
    """
    fleet = fleet_from(snapshots.uploaded(3, 2))
    device = fleet.devices[2]
    with fleet.serving():
        die_at(device, failpoint, "run", "--now")
        assert device_id(device) not in fleet.contributions()
        orphans = list((device.home / "uploads").iterdir())
        assert device.run().json["sent"] == [f"{TASK}/1"]
        assert not any(path.exists() for path in orphans)
        see_an_exact_sum(fleet)


def test_in_the_middle_of_training(snapshots: Snapshots, fleet_from: FleetFrom) -> None:
    """Tries: kill -9 of the device, twice, while its training process is at work; the next run starts at once.

    What stops a second training beside the first: the process notices that it is an
    orphan (edge_client/training/child.py). What is done stays done: a checkpoint
    (edge_client/training/checkpoint.py) is continued, never begun again.
    """
    fleet = fleet_from(snapshots.joined(3))
    task = fleet.directory / "longer.toml"
    text = task_toml(3, 3).replace(f'name = "{TASK}"', 'name = "longer"')
    task.write_text(text.replace("steps = 2\n", "steps = 200\n"), "utf-8")
    fleet.coordinator.command("task", "create", "-f", str(task))
    fleet.coordinator.command("round", "open", "longer")
    device = fleet.devices[0]
    with fleet.serving():
        kill_while_training(device, beyond_step=25)
        assert kill_while_training(device, beyond_step=100)[0] > 20, "training began again"
        done = device.run().json
        assert done["sent"] == ["longer/1"]
    assert not list((device.home / "training").iterdir())
    assert len(fleet.counted()) == 1


@pytest.mark.parametrize("failpoint", sorted(JOURNALED))
def test_with_a_journaled_contribution(failpoint: str, snapshots: Snapshots, fleet_from: FleetFrom) -> None:
    """Tries: kill -9 before the first byte, in the middle of the upload, and before the acknowledgement is noted.

    What stops a second encryption (two ciphertexts under one parent): the next run
    sends the journaled file (edge_client/agent/uploads.py), and the coordinator
    takes one hash for each device (coordinator/aggregation/uploads.py, `announce`).
    """
    fleet = fleet_from(snapshots.uploaded(3, 2))
    device = fleet.devices[2]
    with fleet.serving():
        die_at(device, failpoint, "run", "--now")
        body = waiting_body(device)
        assert device.run().json["sent"] == [f"{TASK}/1"]
        assert fleet.counted()[device_id(device)] == body
        assert not list((device.home / "uploads").iterdir())
        see_an_exact_sum(fleet)


def test_in_the_middle_of_the_upload_the_coordinator_keeps_what_came(
    snapshots: Snapshots, fleet_from: FleetFrom
) -> None:
    """Tries: kill -9 between two pieces of the upload; then the coordinator must not count a part.

    What stops it: a contribution counts when its size and hash are right
    (coordinator/aggregation/uploads.py, `finish`); the part waits as "receiving".
    """
    fleet = fleet_from(snapshots.uploaded(3, 2))
    device = fleet.devices[2]
    with fleet.serving():
        die_at(device, "device.upload.partial", "run", "--now")
        assert fleet.contributions()[device_id(device)] == "receiving"
        assert fleet.cohort()["counted"] == 2
        assert fleet.cohort()["state"] == "open"


@pytest.mark.parametrize("failpoint", sorted(ANSWERING))
def test_while_answering(failpoint: str, snapshots: Snapshots, fleet_from: FleetFrom) -> None:
    """Tries: kill -9 after the answer is durable and before it was sent, and after it was sent.

    What stops a second answer: the stored message is sent again byte for byte, and the
    prekey is gone (edge_client/store/answers.py, `record`).
    """
    fleet = fleet_from(snapshots.uploaded(3, 3))
    device = fleet.devices[0]
    with fleet.serving():
        die_at(device, failpoint, "run", "--now")
        (row,) = query(device.home / "store.sqlite3", "SELECT message FROM answers")
        stored = device_pb2.AnswerRequest.FromString(row["message"])
        device.run()
        (kept,) = query(fleet.database, "SELECT member_index, vector, signature FROM answers")
        assert (kept["member_index"], kept["vector"], kept["signature"]) == (
            stored.index,
            stored.vector,
            stored.signature,
        )
        assert query(device.home / "store.sqlite3", "SELECT message FROM answers")[0]["message"] == row["message"]
        see_an_exact_sum(fleet)


@pytest.mark.parametrize("failpoint", sorted(REFUSING))
def test_while_refusing_a_share(failpoint: str, snapshots: Snapshots, fleet_from: FleetFrom) -> None:
    """Tries: kill -9 of a member after its refusal is durable and before it was sent.

    What stops an answer in its place: the prekey went in the same transaction (edge_client/store/answers.py,
    `record`); the next run sends the stored refusal.
    """
    fleet = fleet_from(snapshots.uploaded(3, 2))
    with fleet.serving():
        contribute_garbage(fleet.devices[2], [1, 2, 3])
        device = fleet.devices[0]
        die_at(device, failpoint, "run", "--now")
        assert not query(fleet.database, "SELECT 1 FROM refusals")
        (kept,) = query(device.home / "store.sqlite3", "SELECT kind, message FROM answers")
        assert kept["kind"] == "refusal"
        assert device.run().json["refused"] == [fleet.cohort()["cohort_id"].hex()]
        (row,) = query(fleet.database, "SELECT contributor, signature FROM refusals")
        assert row["contributor"].hex() == device_id(fleet.devices[2])
        assert row["signature"] == device_pb2.RefuseRequest.FromString(kept["message"]).signature
    # Three answers are needed of three members, so one refusal ends the cohort.
    assert fleet.cohort()["state"] == "void"


@pytest.mark.parametrize("failpoint", sorted(LAYING_TO_REST))
def test_while_laying_a_void_cohort_to_rest(failpoint: str, snapshots: Snapshots, fleet_from: FleetFrom) -> None:
    """Tries: kill -9 of a member between erasing its key for a void cohort and saying so.

    What stops a lost or second statement: it is stored in the transaction that erases the
    key (edge_client/store/answers.py, `record`) and sent again byte for byte.
    """
    fleet = fleet_from(snapshots.uploaded(3, 3))
    device = fleet.devices[0]
    store = device.home / "store.sqlite3"
    keys = len(query(store, "SELECT 1 FROM prekeys"))
    with fleet.serving() as coordinator:
        coordinator.command("round", "abort", f"{TASK}/1", "--yes")
        die_at(device, failpoint, "run", "--now")
        assert not query(fleet.database, "SELECT 1 FROM erasures")
        assert len(query(store, "SELECT 1 FROM prekeys")) == keys - 1
        (kept,) = query(store, "SELECT kind, message FROM answers")
        assert kept["kind"] == "erasure"
        assert device.run().json["laid_to_rest"] == [fleet.cohort()["cohort_id"].hex()]
        (row,) = query(fleet.database, "SELECT signature FROM erasures")
        stated = device_pb2.StateErasureRequest.FromString(kept["message"])
        assert row["signature"] == stated.signature
        assert device.run().json["laid_to_rest"] == []


@pytest.mark.parametrize("failpoint", sorted(ADOPTING))
def test_while_adopting(failpoint: str, snapshots: Snapshots, fleet_from: FleetFrom) -> None:
    """Tries: kill -9 right after a release came in use.

    What stops a half-loaded adapter: file first, then one transaction that names it
    (edge_client/agent/releases.py, `adopt`).
    """
    fleet = fleet_from(snapshots.answered(3, 3))
    device = fleet.devices[0]
    with fleet.serving():
        die_at(device, failpoint, "run", "--now")
        assert device.run().json["adopted"] == []
    assert status(device)["adapters_in_use"] == [f"{TASK}/1"]


def test_every_failpoint_of_the_device_is_here() -> None:
    """A failpoint that somebody adds must be killed at by one of the tests above."""
    texts = [path.read_text("utf-8") for path in SOURCES.rglob("*.py")]
    named = {name for text in texts for name in re.findall(r'failpoint\("([^"]+)"\)', text)}
    assert (
        named
        == JOINING
        | DOWNLOADING
        | BEFORE_THE_JOURNAL
        | JOURNALED
        | ANSWERING
        | REFUSING
        | LAYING_TO_REST
        | ADOPTING
        | MIGRATING
        | certificate_failpoints.DEVICE
    )
