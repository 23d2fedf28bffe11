"""`policy check`: every task and plan on offer is judged, with every reason; a declined plan is not the end."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_client.agent.check_in import peek
from edge_client.agent.next_task import next_offer, order_of_tasks
from edge_client.agent.policy_review import Verdict, review
from edge_client.configuration import Configuration
from nightshift.host import clock
from nightshift.packages.build import build_package
from nightshift.protocol.errors import EquivocationError, MalformedError
from nightshift.v1 import device_pb2, plan_pb2, release_pb2
from tests.support.authority import NOW_UNIX_S
from tests.support.plans import Cohort, Publication, World
from tests.support.scripted_coordinator import ScriptedCoordinator, agent_of

ROOT = Path(__file__).resolve().parents[3]
TASKS = ("notes", "mail", "recipes")


@pytest.fixture(autouse=True)
def _clock_of_the_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clock").write_text(str(NOW_UNIX_S - time.time()), "ascii")
    monkeypatch.setenv(clock.ENVIRONMENT_VARIABLE, str(tmp_path / "clock"))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Of the real model, which says of itself that it is MIT."""
    folder = tmp_path_factory.mktemp("package") / "stories"
    build_package(ROOT / "data" / "stories260K" / "stories260K-f32.gguf", folder)
    return (folder / "manifest.json").read_bytes()


class SeveralTasks(ScriptedCoordinator):
    """Three tasks on one model; the plans of the first two wait, and are offered in that order."""

    def __init__(self, world: World, manifest: bytes) -> None:
        super().__init__(check_in=self.reply, artefact=self.send_manifest)
        self.world, self.manifest = world, manifest
        self.without: list[list[str]] = []
        self.parents = {task: self.publish(task) for task in TASKS}
        self.cohorts = {task: self.open(task) for task in TASKS[:2]}

    def publish(self, task: str) -> Publication:
        def build_on_the_model(release: release_pb2.Release) -> None:
            release.base_model = hashlib.sha256(self.manifest).digest()
            release.adapter_sha256 = os.urandom(32)

        return self.world.publish(task=task, edit=build_on_the_model)

    def open(self, task: str) -> Cohort:
        def of_the_task(plan: plan_pb2.Plan) -> None:
            plan.task = task
            plan.base_model = hashlib.sha256(self.manifest).digest()

        return self.world.open_cohort(parent=self.parents[task], edit=of_the_task)

    def reply(self, request: device_pb2.CheckInRequest) -> device_pb2.CheckInResponse:
        self.without.append(list(request.without_tasks))
        tree = self.world.tree
        response = device_pb2.CheckInResponse(
            protocol_version=1,
            time_unix_s=NOW_UNIX_S,
            checkpoint=self.world.checkpoint(),
            consistency_path=tree.consistency_path(request.log_size) if request.log_size else [],
            revocation=self.world.revocation(0, []),
            releases=[parent.offer() for parent in self.parents.values()],
            turns=[
                device_pb2.TaskTurn(task=task, served_unix_s=place * 100, plan_waits=task in self.cohorts)
                for place, task in enumerate(TASKS)
            ],
        )
        wanted = next((task for task in self.cohorts if task not in request.without_tasks), None)
        if wanted is not None:
            response.plan.CopyFrom(self.cohorts[wanted].offer())
        return response

    def send_manifest(self, request: device_pb2.FetchArtefactRequest) -> Iterator[device_pb2.FetchArtefactResponse]:
        assert request.sha256 == hashlib.sha256(self.manifest).digest()
        yield device_pb2.FetchArtefactResponse(size_bytes=len(self.manifest), data=self.manifest)


def reviewed(world: World, manifest: bytes, directory: Path, **policy: object) -> tuple[list[Verdict], SeveralTasks]:
    coordinator = SeveralTasks(world, manifest)
    owner = Configuration.model_validate({"policy": {"minimum_cohort": 3, **policy}})
    with agent_of(world, world.devices[0], directory, coordinator, owner) as session:
        return review(session), coordinator


@pytest.fixture
def world() -> World:
    return World.make(devices=3)


def test_every_plan_is_asked_for_and_nothing_stands_against_it(world: World, manifest: bytes, tmp_path: Path) -> None:
    verdicts, coordinator = reviewed(world, manifest, tmp_path)
    assert [(v.task, v.served_unix_s, v.round_number, v.reasons) for v in verdicts] == [
        ("notes", None, 1, ()),
        ("mail", 100, 1, ()),
        ("recipes", 200, None, ()),
    ]
    assert [v.plan_hash for v in verdicts] == [*(each.plan_hash for each in coordinator.cohorts.values()), None]
    assert coordinator.without == [[], ["notes"]]


def test_every_reason_of_every_task_is_told(world: World, manifest: bytes, tmp_path: Path) -> None:
    verdicts, _ = reviewed(
        world, manifest, tmp_path, tasks=["notes"], minimum_cohort=4, minimum_committee=3, licences=["Apache-2.0"]
    )
    shown = [
        [reason.rpartition("(")[2].removesuffix(")").split("; ")[-1] for reason in verdict.reasons]
        for verdict in verdicts
    ]
    assert shown == [
        ["policy.minimum_cohort", "policy.licences"],
        ["policy.tasks", "policy.minimum_cohort", "policy.licences"],
        # No plan of it waits, so nothing is known of cohorts; its model is.
        ["policy.tasks", "policy.licences"],
    ]


def test_the_next_task_is_asked_for_only_where_its_plan_waits(world: World, manifest: bytes, tmp_path: Path) -> None:
    coordinator = SeveralTasks(world, manifest)
    with agent_of(world, world.devices[0], tmp_path, coordinator) as session:
        checked = peek(session)
        following = next_offer(session, checked, ["notes"])
        assert following is not None
        assert following.response.plan.plan == coordinator.cohorts["mail"].plan
        assert next_offer(session, following, ["notes", "mail"]) is None
    assert len(coordinator.without) == 2


def test_a_coordinator_that_insists_on_what_was_declined(world: World, manifest: bytes, tmp_path: Path) -> None:
    coordinator = SeveralTasks(world, manifest)
    with agent_of(world, world.devices[0], tmp_path, coordinator) as session:
        checked = peek(session)
        coordinator.cohorts["mail"] = coordinator.cohorts["notes"]
        with pytest.raises(EquivocationError, match="'notes' again, which was declined"):
            next_offer(session, checked, ["notes"])


@pytest.mark.parametrize("names", [["x"] * 65, [""], ["a" * 65], ["bell\x07"]])
def test_an_order_that_no_coordinator_means(world: World, manifest: bytes, tmp_path: Path, names: list[str]) -> None:
    with agent_of(world, world.devices[0], tmp_path, SeveralTasks(world, manifest)) as session:
        checked = peek(session)
        del checked.response.turns[:]
        checked.response.turns.extend(device_pb2.TaskTurn(task=name) for name in names)
        with pytest.raises(MalformedError, match="the check-in"):
            order_of_tasks(checked)
