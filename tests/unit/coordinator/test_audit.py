"""Every command that changes something leaves a row that says who did what; without the row there is no change."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from sqlalchemy import select

from coordinator import audit
from coordinator.admin.operator import Operator
from coordinator.admin.verbs import VERBS
from coordinator.cli.main import whole
from coordinator.deployment import Deployment
from coordinator.home import Home
from coordinator.models import catalogue
from coordinator.releases.decisions import start_again
from coordinator.releases.publication import newest_release
from coordinator.rounds import advance
from coordinator.rounds.plans import open_round
from coordinator.storage.rows import AuditRow, Base, Device, Task, Token
from nightshift.admin.v1 import admin_pb2 as pb
from nightshift.host.clock import now_unix_s
from nightshift.packages.package import MANIFEST_NAME
from tests.support.coordinators import TASK, make_task, make_token, open_home
from tests.support.operator_commands import Operate
from tests.support.scripted_device import ScriptedDevice

Join = Callable[[], ScriptedDevice]
Made = Callable[[], Any]


class RecordFailedError(Exception):
    """The row could not be written."""


class Coordinator:
    """A served coordinator with a task, three devices in the pool, and for each verb a request that has an effect."""

    def __init__(self, deployment: Deployment, devices: list[ScriptedDevice], package: Path) -> None:
        self.deployment = deployment
        self.package = package
        self.device_id = devices[0].device_id.hex()
        self._devices = devices
        self.requests: dict[str, tuple[str, Made]] = {
            "CreateToken": ("token create", lambda: pb.CreateTokenRequest(uses=1, ttl_s=60)),
            "RevokeToken": ("token revoke", self._token),
            "RevokeDevice": ("device revoke", lambda: pb.RevokeDeviceRequest(device_id=self.device_id, reason="lost")),
            "ClearDevice": ("device clear", self._held),
            "AcquitDevice": ("device acquit", lambda: pb.AcquitDeviceRequest(device_id=self.device_id)),
            "AddModel": ("model add", self._model),
            "CreateTask": ("task create", self._task),
            "PauseTask": ("task pause", lambda: pb.PauseTaskRequest(name=TASK, paused=True)),
            "OpenRound": ("round open", lambda: pb.OpenRoundRequest(task=TASK)),
            "AbortRound": ("round abort", self._round),
            "PromoteRelease": ("release promote", self._candidate),
            "RollBackRelease": ("release rollback", self._promoted),
            "IssueAdmin": ("admin issue", self._admin),
            "RevokeAdmin": ("admin revoke", self._issued),
        }

    def call(self, verb: str, request: Any) -> None:
        VERBS[verb].function(Operator(self.deployment), request)

    def audited(self) -> list[AuditRow]:
        with self.deployment.database.reading() as session:
            return list(session.scalars(select(AuditRow).order_by(AuditRow.audit_id)))

    def everything(self) -> dict[str, list[tuple[Any, ...]]]:
        """All rows of all tables; of the lease, which renews itself, nothing."""
        with self.deployment.database.reading() as session:
            return {
                table.name: sorted(tuple(row) for row in session.execute(select(table)))
                for table in Base.metadata.sorted_tables
                if table.name != "leases"
            }

    def _token(self) -> pb.RevokeTokenRequest:
        make_token(self.deployment)
        with self.deployment.database.reading() as session:
            token = session.scalars(select(Token)).first()
        assert token is not None
        return pb.RevokeTokenRequest(token_id=token.token_id)

    def _held(self) -> pb.ClearDeviceRequest:
        with self.deployment.database.transaction() as session:
            session.get_one(Device, bytes.fromhex(self.device_id)).held_unix_s = now_unix_s()
        return pb.ClearDeviceRequest(device_id=self.device_id)

    def _model(self) -> pb.AddModelRequest:
        catalogue.store_package(self.deployment.objects, self.package)
        return pb.AddModelRequest(manifest=(self.package / MANIFEST_NAME).read_bytes(), alias="again")

    def _task(self) -> pb.CreateTaskRequest:
        return pb.CreateTaskRequest(settings=json.dumps({"name": "another", "model": "tiny"}))

    def _round(self) -> pb.AbortRoundRequest:
        for device in self._devices:
            device.check_in(new_prekeys=1)
        with self.deployment.database.transaction() as session:
            opened = open_round(session, self.deployment, session.get_one(Task, TASK), now_unix_s())
        return pb.AbortRoundRequest(name=f"{TASK}/{opened.number}", reason="seen enough")

    def _candidate(self) -> pb.PromoteReleaseRequest:
        with self.deployment.database.transaction() as session:
            parent = newest_release(session, TASK)
            start_again(session, self.deployment, parent, reason="a test", now_unix_s=now_unix_s())
        return pb.PromoteReleaseRequest(name=f"{TASK}/{parent.number + 1}", reason="good")

    def _promoted(self) -> pb.RollBackReleaseRequest:
        self.call("PromoteRelease", self._candidate())
        return pb.RollBackReleaseRequest(name=f"{TASK}/0", reason="bad")

    def _admin(self) -> pb.IssueAdminRequest:
        key = self._devices[0].certificate_request()
        return pb.IssueAdminRequest(name="dave", role="operator", days=30, certificate_request=key)

    def _issued(self) -> pb.RevokeAdminRequest:
        self.call("IssueAdmin", self._admin())
        return pb.RevokeAdminRequest(name="dave")


CHANGING = sorted(name for name, verb in VERBS.items() if verb.changes)
WITHOUT_A_ROW = {"StoreArtefact"}
"""Bytes below their own hash, which mean nothing until AddModel names them; unnamed they are gone in a day."""


@pytest.fixture
def unticked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing happens by itself: a moment after it started, a coordinator signs its release metadata again."""
    monkeypatch.setattr(advance, "TICK_S", 3600)


@pytest.fixture
def coordinator(unticked: None, served: Deployment, join: Join, package: Path) -> Coordinator:
    make_task(served, package)
    devices = [join() for _ in range(3)]
    for device in devices:
        device.check_in(new_prekeys=1)
    return Coordinator(served, devices, package)


def test_every_verb_that_changes_something_is_tried_here(coordinator: Coordinator) -> None:
    assert set(coordinator.requests) == set(CHANGING) - WITHOUT_A_ROW


@pytest.mark.parametrize("verb", [name for name in CHANGING if name not in WITHOUT_A_ROW])
def test_a_change_and_its_row_are_one(verb: str, coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the row cannot be written there is no change either; where it can, it is one more, by whom, and of what."""
    command, made = coordinator.requests[verb]
    request = made()
    before, rows = coordinator.everything(), coordinator.audited()

    def fails(*_: object, **__: object) -> None:
        raise RecordFailedError

    with monkeypatch.context() as patch:
        patch.setattr(audit, "record", fails)
        with pytest.raises(RecordFailedError):
            coordinator.call(verb, request)
    assert coordinator.everything() == before

    with audit.acting_as("admin carol"):
        coordinator.call(verb, request)
    (row,) = coordinator.audited()[len(rows) :]
    assert (row.actor, row.verb) == ("admin carol", command)
    assert row.subject
    assert coordinator.everything() != before


ASKING = {
    "status", "token list", "device list", "device show", "admin list", "ca show", "ca export", "keys show",
    "model list", "model show", "task list", "round list", "round show", "round watch", "release list", "release show",
    "release decisions", "release export", "log verify", "audit list", "doctor", "service print", "completion",
}  # fmt: skip
WHERE_THE_SAFE_IS = {"keys make", "keys sign-root", "ca sign-intermediate"}
"""They work on files, on a machine that need not have a coordinator's database."""
ON_THIS_MACHINE = {
    "init", "migrate", "backup", "restore", "ca offline", "ca renew-intermediate", "ca request", "ca install",
    "ca issue-server", "keys offline", "keys rotate", "keys install-root",
}  # fmt: skip


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[str]:
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from leaves(child, (*path, name))
    else:
        yield " ".join(path)


def test_every_command_asks_or_leaves_a_row(coordinator: Coordinator) -> None:
    """A command that somebody adds must be put into one of these sets, and if it changes something, be tried."""
    through_the_api = {command for command, _ in coordinator.requests.values()} | {"task resume"}
    sets = (ASKING, WHERE_THE_SAFE_IS, ON_THIS_MACHINE, through_the_api, {"serve"})
    assert set(leaves(whole())) == set().union(*sets)
    assert sum(map(len, sets)) == len(set().union(*sets)), "in one of them only"


def test_what_is_done_on_this_machine_leaves_a_row(home: Home, operate: Operate, tmp_path: Path) -> None:
    """`init`, `restore`, `keys install-root`: where these are tested. `migrate`: once there is a second schema."""
    request, root, certificate = (str(tmp_path / name) for name in ("next.csr", "root.pem", "next.crt"))
    (tmp_path / "safe").mkdir()
    for words in (
        ("backup", str(tmp_path / "backup")),
        ("ca", "issue-server"),
        ("ca", "renew-intermediate"),
        ("ca", "request", request),
        ("ca", "offline", root, "--yes"),
        ("ca", "install", certificate),
        ("keys", "rotate", "timestamp", "--yes"),
        ("keys", "offline", str(tmp_path / "safe"), "--yes"),
    ):
        if words[1] == "install":
            assert operate("ca", "sign-intermediate", "--root", root, request, certificate).code == 0
        ran = operate(*words)
        assert ran.code == 0, ran.err
        with open_home(home) as deployment, deployment.database.reading() as session:
            row = session.scalars(select(AuditRow).order_by(AuditRow.audit_id.desc())).first()
        assert row is not None
        assert row.verb == " ".join(words[: 1 if words[0] == "backup" else 2])
        assert row.actor.startswith("local user")
