"""The `coordinator` command: what it prints, the exit codes, and the audit row of every change."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select

from coordinator.deployment import Deployment
from coordinator.home import Home
from coordinator.releases.publication import newest_release, publish_again
from coordinator.rounds.plans import open_round
from coordinator.storage.rows import AuditRow, LogEntryRow, Task
from nightshift.host.clock import now_unix_s
from nightshift.host.tokens import JoinToken
from nightshift.protocol.errors import StateConflictError
from tests.support.coordinators import TASK, ServeProcess, free_port, make_home, make_task, open_home
from tests.support.operator_commands import Operate
from tests.support.scripted_device import ScriptedDevice

OK, INTERNAL, USAGE, NOT_NOW, LOCKED, UNVERIFIED = 0, 1, 2, 4, 11, 14


def audited(home: Home) -> list[str]:
    with open_home(home) as deployment, deployment.database.reading() as session:
        return list(session.scalars(select(AuditRow.verb).order_by(AuditRow.audit_id)))


def test_init_writes_once_and_refuses_to_overwrite(operate: Operate, tmp_path: Path) -> None:
    data = tmp_path / "new"
    made = operate("init", "--address", "coordinator.example", "--address", "192.0.2.7", "--json", data=data)
    assert made.code == OK
    assert made.json["device_address"] == "coordinator.example:7443"
    assert made.json["join_address"] == "coordinator.example:7444"
    key = (data / "keys" / "root.key").read_bytes()
    again = operate("init", data=data)
    assert again.code == USAGE
    assert "already holds a coordinator" in again.err
    assert (data / "keys" / "root.key").read_bytes() == key
    assert audited(Home(data)) == ["init", "admin issue"]
    assert (data / "admin.toml").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("init", "--port", "7443", "--join-port", "7443"), "must differ"),
        (("init", "--port", "0"), "port"),
        (("init", "--address", "not a name"), "neither a host name nor an IP address"),
        (("status",), "holds no coordinator"),
        (("frobnicate",), "No such command"),
        (("token", "create", "--uses", "0"), "--uses"),
    ],
)
def test_what_cannot_work_is_said_and_nothing_is_made(
    operate: Operate, tmp_path: Path, words: tuple[str, ...], expected: str
) -> None:
    ran = operate(*words, data=tmp_path / "none")
    assert ran.code == USAGE
    assert expected in ran.err
    assert not (tmp_path / "none" / "coordinator.toml").exists()


def test_a_misspelt_key_in_the_configuration_is_an_error(operate: Operate, home: Home) -> None:
    home.configuration_file.write_text('[listen]\naddresses = ["localhost"]\njoin_prot = 1\n', "utf-8")
    ran = operate("status")
    assert ran.code == USAGE
    assert "did you mean 'listen.join_port'" in ran.err


def test_a_key_that_others_can_read_is_refused(operate: Operate, home: Home) -> None:
    (home.keys_directory / "signing.key").chmod(0o644)
    ran = operate("status")
    assert ran.code == USAGE
    assert "chmod 600" in ran.err


def test_tokens_are_made_listed_and_revoked(operate: Operate, home: Home) -> None:
    word = operate("token", "create").out.strip()
    secret = JoinToken.decode(word).secret
    made = operate("token", "create", "--uses", "3", "--ttl", "7d", "--json").json
    (row, _) = sorted(operate("token", "list", "--json").json["tokens"], key=lambda token: -token["uses_allowed"])
    assert (row["token_id"], row["state"], row["uses_allowed"]) == (made["token_id"], "valid", 3)
    assert operate("token", "revoke", made["token_id"]).code == OK
    shown = operate("token", "list")
    assert "revoked" in shown.out
    assert word not in shown.out
    assert operate("token", "revoke", "none").code == USAGE
    assert operate("token", "create", "--ttl", "soon").code == USAGE
    assert audited(home) == ["token create", "token create", "token revoke"]
    with open_home(home) as deployment, deployment.database.reading() as session:
        for audit_row in session.scalars(select(AuditRow)):
            assert secret.hex() not in audit_row.detail
            assert audit_row.actor.startswith("local user")


def test_a_model_and_a_task_are_added(operate: Operate, home: Home, package: Path, tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[3]
    built = operate("model", "add", str(root / "data" / "stories260K" / "stories260K-f32.gguf"), "--json")
    assert built.code == OK
    taken = operate("model", "add", str(package), "--json")
    assert taken.json["package_id"] == built.json["package_id"], "the same bytes are the same package"
    assert [model["alias"] for model in operate("model", "list", "--json").json["models"]] == ["stories260K-f32"]
    assert operate("model", "show", built.json["package_id"][:8], "--json").json["alias"] == "stories260K-f32"
    assert operate("model", "add", str(tmp_path / "absent")).code == USAGE

    file = tmp_path / "task.toml"
    file.write_text('name = "commands"\nmodel = "stories260K-f32"\n', "utf-8")
    assert operate("task", "create", "-f", str(file), "--json").json["releases"] == 0
    assert "exists" in operate("task", "create", "-f", str(file)).err
    (release,) = operate("release", "list", "--json").json["releases"]
    assert (release["task"], release["number"], release["contributors"]) == ("commands", 0, 0)
    assert operate("release", "show", "commands/0", "--json").json == release
    assert operate("task", "pause", "commands", "--json").json["state"] == "paused"
    assert operate("task", "resume", "commands", "--json").json["state"] == "active"
    opened = operate("round", "open", "commands")
    assert opened.code == NOT_NOW
    assert "0 devices were seen" in opened.err
    assert operate("round", "open", "none").code == USAGE
    verbs = ["model add", "model add", "task create", "task pause", "task resume"]
    assert audited(home) == verbs
    assert operate("status").out.startswith("not serving")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('name = "a"', "model: is missing"),
        ('name = "a"\nmodel = "none"', "no single model is called 'none'"),
        ('name = "a"\nmodel = "none"\n[cohort]\nn_minn = 3', "did you mean 'cohort.n_min'"),
        ('name = "a"\nmodel = ', "could not be read as TOML"),
    ],
)
def test_a_task_file_that_cannot_work_is_refused(operate: Operate, tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "task.toml"
    file.write_text(text, "utf-8")
    ran = operate("task", "create", "-f", str(file))
    assert ran.code == USAGE
    assert expected in ran.err


def test_rounds_and_devices_from_the_command_line_while_it_serves(
    operate: Operate, home: Home, served: Deployment, join: Callable[[], ScriptedDevice], package: Path
) -> None:
    make_task(served, package)
    devices = [join() for _ in range(3)]
    for device in devices:
        device.check_in(new_prekeys=1)
    with served.database.transaction() as session:
        open_round(session, served, session.get_one(Task, TASK), now_unix_s())
    status = operate("status", "--json").json
    assert (status["serving"], status["devices_enrolled"], len(status["rounds"])) == (True, 3, 1)
    shown = operate("round", "show", f"{TASK}/1", "--json").json
    (cohort,) = shown["cohorts"]
    assert (shown["state"], cohort["state"], len(cohort["committee"]), cohort["threshold"]) == ("running", "open", 3, 3)
    assert cohort["trained_rank"] == 2
    assert [(task["rank"], task["ranks"]) for task in operate("task", "list", "--json").json["tasks"]] == [(2, [2])]
    assert operate("round", "show", f"{TASK}/1/1", "--json").json == shown
    assert operate("round", "show", cohort["cohort_id"][:9], "--json").json == shown
    for absent in (f"{TASK}/2", f"{TASK}/1/2", f"{TASK}/1/1/1", f"{TASK}/x", "none", "ffffffffffff"):
        assert operate("round", "show", absent).code == USAGE, absent
    assert operate("round", "abort", f"{TASK}/1", "--yes", "--reason", "a test").code == OK
    # The service learned of it from the rows.
    greeting = devices[0].check_in()
    assert greeting.plan is None
    (listed,) = operate("round", "list", "--json").json["rounds"]
    assert (listed["state"], listed["reason"], listed["cohorts"][0]["reason"]) == ("void", "a test", "a test")
    assert "1 void" in operate("round", "list").out
    assert "cohort 1 is void: a test" in operate("round", "show", f"{TASK}/1").out
    # A round that has ended has nothing more to watch.
    watched = operate("round", "watch", f"{TASK}/1")
    assert watched.code == OK
    assert "is void; 1: void 0/3..8 contributions 0/3 answers" in watched.out
    assert watched.out.count("\n") == 1
    assert operate("round", "watch", f"{TASK}/1", "--json").json == listed
    assert operate("round", "abort", f"{TASK}/1", "--yes").code != OK

    prefix = devices[1].device_id.hex()[:12]
    assert operate("device", "revoke", prefix, "--yes", "--reason", "lost", "--json").json["state"] == "revoked"
    assert list(devices[0].check_in().reply.revocation.device_ids) == [devices[1].device_id]
    assert operate("device", "show", "ffff" * 16).code == USAGE
    assert len(operate("device", "list", "--json").json["devices"]) == 3
    assert audited(home) == ["round abort", "device revoke"]


def test_an_altered_log_entry_is_found(operate: Operate, home: Home, deployment: Deployment, package: Path) -> None:
    make_task(deployment, package)
    assert operate("log", "verify", "--json").json["size"] == 2, "release 0, and that it is served"
    with deployment.database.transaction() as session:
        row = session.get_one(LogEntryRow, 0)
        row.entry = row.entry[:-1] + bytes([row.entry[-1] ^ 1])
    ran = operate("log", "verify")
    assert ran.code == UNVERIFIED
    assert "entry 0 is missing or altered" in ran.err


def test_serve_says_when_it_is_ready_and_ends_when_asked(home: Home) -> None:
    serve = ServeProcess(home)
    line = serve.wait_until_ready()
    assert line.count("127.0.0.1:") == 2
    second = ServeProcess(home)
    assert second.wait_for_death() == LOCKED
    assert "another run holds" in second.errors
    assert serve.terminate() == OK
    third = ServeProcess(home)
    third.wait_until_ready()
    assert third.terminate() == OK


@pytest.mark.parametrize("which", ["port", "join_port"])
def test_a_port_in_use_is_named(tmp_path: Path, which: str) -> None:
    home = make_home(tmp_path / "coordinator")
    with open_home(home) as deployment:
        port = getattr(deployment.configuration.listen, which)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        serve = ServeProcess(home)
        assert serve.wait_for_death() == USAGE
    assert f"port {port} on 127.0.0.1 cannot be used" in serve.errors
    assert f"change {which} in coordinator.toml" in serve.errors
    assert free_port() > 0


def test_an_operator_decides_what_is_served(
    operate: Operate, home: Home, deployment: Deployment, package: Path
) -> None:
    task = make_task(deployment, package)
    with deployment.database.transaction() as session:
        first = newest_release(session, task.name)
        publish_again(session, deployment, first, parent=first, now_unix_s=now_unix_s())
    shown = operate("release", "list")
    assert [line.split()[-1] for line in shown.out.splitlines()[1:]] == ["served", "restored"]
    assert "--reason" in operate("release", "promote", f"{task.name}/1", "--yes").err

    made = operate("release", "promote", f"{task.name}/1", "--reason", "to see it", "--yes", "--json")
    assert (made.code, made.json["kind"], made.json["served"]) == (OK, "promoted by operator", 1)
    again = operate("release", "promote", f"{task.name}/1", "--reason", "to see it", "--yes")
    assert again.code == StateConflictError.exit_code
    assert "is served already" in again.err
    back = operate("release", "rollback", f"{task.name}/0", "--reason", "seen enough", "--yes")
    assert back.code == OK
    assert f"release {task.name}/0 is served from now on" in back.out

    listed = operate("release", "decisions", task.name, "--json").json["decisions"]
    assert [(row["number"], row["kind"], row["served"]) for row in listed] == [
        (1, "first", 0),
        (2, "promoted by operator", 1),
        (3, "rolled back", 0),
    ]
    assert [row["reason"] for row in listed[1:]] == ["to see it", "seen enough"]
    assert audited(home)[-2:] == ["release promote", "release rollback"]
    assert operate("release", "show", f"{task.name}/0", "--json").json["served"] is True
