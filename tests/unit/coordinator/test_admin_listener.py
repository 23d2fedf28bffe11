"""The admin listener: who is let in, that every verb asks, and that answers are the same from here and elsewhere."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from sqlalchemy import select

from coordinator.admin import admin_verbs, enrolment_verbs
from coordinator.admin.credentials import Credentials, new_request
from coordinator.admin.messages import to_message, to_record
from coordinator.admin.operator import Operator
from coordinator.admin.verbs import VERBS
from coordinator.cli.api import Elsewhere, _channel, pages
from coordinator.deployment import Deployment
from coordinator.enrolment.key_files import key_pem
from coordinator.home import Home
from coordinator.rounds.plans import open_round
from coordinator.service.admin import SERVICE
from coordinator.service.server import serving
from coordinator.storage.rows import AuditRow, Task
from nightshift.admin.v1 import admin_pb2, admin_pb2_grpc
from nightshift.host.clock import now_unix_s
from nightshift.host.tokens import JoinToken
from nightshift.protocol.chains import load_chain
from nightshift.protocol.errors import ExitCode, NightshiftError, RevokedError, UsageError
from scripts.night.fleet import run_command
from tests.support.coordinators import TASK, ServeProcess, free_port, make_home, make_task, make_token, open_home
from tests.support.operator_commands import Operate
from tests.support.scripted_device import ScriptedDevice

ROOT = Path(__file__).resolve().parents[3]
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_home(tmp_path / "coordinator", operators=True)


@pytest.fixture
def served(home: Home) -> Iterator[Deployment]:
    with open_home(home) as deployment, serving(deployment):
        yield deployment


def certified(deployment: Deployment, name: str, *, role: str = "operator") -> Credentials:
    key, request_der = new_request()
    request = admin_pb2.IssueAdminRequest(name=name, role=role, days=7, certificate_request=request_der)
    return Credentials.of(admin_verbs.issue_admin(Operator(deployment), request), key)


@contextmanager
def calling(credentials: Credentials) -> Iterator[Elsewhere]:
    with _channel(credentials, credentials.address) as channel:
        yield Elsewhere(channel, credentials.address)


@pytest.fixture
def command(home: Home, tmp_path: Path, operate: Operate) -> Command:
    """Runs `coordinator`, in the directory, or with `credentials` from elsewhere."""

    def run(*words: str, credentials: Path | None = None) -> tuple[int, str, str]:
        data = home.directory if credentials is None else tmp_path / "nothing"
        ran = operate(*words, data=data, credentials=credentials)
        return ran.code, ran.out, ran.err

    return run


def refusal(error: grpc.RpcError) -> str:
    return str(error.code())  # type: ignore[attr-defined]  # what a stub raises is a call, too


def test_every_call_of_the_proto_has_a_verb() -> None:
    assert sorted(VERBS) == sorted(method.name for method in SERVICE.methods)


def test_nobody_without_a_valid_certificate_is_answered(served: Deployment) -> None:
    """Every call of the listener, reflection and health included, as a stranger, a device, and a revoked operator."""
    carol = certified(served, "carol")
    with served.database.transaction() as session:
        session.execute(AuditRow.__table__.delete())
    token = make_token(served)
    device = ScriptedDevice(token)
    device.join()
    strangers = [
        grpc.ssl_channel_credentials(carol.root.encode()),
        grpc.ssl_channel_credentials(carol.root.encode(), key_pem(device.key), load_chain(device.certificate).pem),
    ]
    for tls in strangers:
        with grpc.secure_channel(carol.address, tls) as channel:
            for name in VERBS:
                assert "UNAVAILABLE" in answered(channel, name), name
    with calling(carol) as api:
        assert to_record(api.call(admin_verbs.list_admins, admin_pb2.ListAdminsRequest()))["admins"]
        admin_verbs.revoke_admin(Operator(served), admin_pb2.RevokeAdminRequest(name="carol"))
        # On the same connection: what counts is asked at each call, not at the handshake.
        for name in VERBS:
            assert "PERMISSION_DENIED" in answered(api.channel, name), name
        with pytest.raises(grpc.RpcError) as caught:
            health_pb2_grpc.HealthStub(api.channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert "PERMISSION_DENIED" in refusal(caught.value)
        with pytest.raises(grpc.RpcError) as caught:
            ProtoReflectionDescriptorDatabase(api.channel).get_services()
        assert "PERMISSION_DENIED" in refusal(caught.value)
    device.close()
    with served.database.reading() as session:
        assert session.scalars(select(AuditRow.verb)).all() == ["admin revoke"]


def answered(channel: grpc.Channel, name: str) -> str:
    """The status of a call with an empty request."""
    method = SERVICE.methods_by_name[name]
    stub: Any = admin_pb2_grpc.AdminServiceStub(channel)  # type: ignore[no-untyped-call]  # generated
    request = getattr(admin_pb2, method.input_type.name)()
    try:
        reply = getattr(stub, name)(iter([request]) if method.client_streaming else request, timeout=10)
        if method.server_streaming:
            list(reply)
    except grpc.RpcError as error:
        return refusal(error)
    return "OK"


def test_a_viewer_may_ask_and_change_nothing(served: Deployment) -> None:
    with calling(certified(served, "vera", role="viewer")) as api:
        for name, verb in VERBS.items():
            assert ("PERMISSION_DENIED" in answered(api.channel, name)) == verb.changes, name
        with pytest.raises(RevokedError, match="vera is for viewing"):
            api.call(enrolment_verbs.create_token, admin_pb2.CreateTokenRequest(uses=1, ttl_s=60))


def test_an_operators_certificate_is_none_of_a_device(served: Deployment) -> None:
    carol = certified(served, "carol")
    tls = grpc.ssl_channel_credentials(carol.root.encode(), carol.key.encode(), carol.certificate.encode())
    address = served.configuration.device_address()
    with pytest.raises(grpc.RpcError) as caught, grpc.secure_channel(address, tls) as channel:
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
    assert "UNAVAILABLE" in refusal(caught.value)


def test_health_is_told_on_both_listeners_and_reflection_on_one(
    served: Deployment,
) -> None:
    device = ScriptedDevice(make_token(served))
    device.join()
    tls = grpc.ssl_channel_credentials(
        served.authority.root_pem, key_pem(device.key), load_chain(device.certificate).pem
    )
    with grpc.secure_channel(served.configuration.device_address(), tls) as channel:
        check = health_pb2.HealthCheckRequest(service="nightshift.v1.DeviceService")
        reply = health_pb2_grpc.HealthStub(channel).Check(check, timeout=10)
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as caught:
            ProtoReflectionDescriptorDatabase(channel).get_services()
    assert "UNIMPLEMENTED" in refusal(caught.value)
    with calling(certified(served, "carol")) as api:
        reply = health_pb2_grpc.HealthStub(api.channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
        assert SERVICE.full_name in ProtoReflectionDescriptorDatabase(api.channel).get_services()


def test_an_expired_certificate_is_refused_on_an_open_connection(
    served: Deployment, clock: Callable[[float], None]
) -> None:
    with calling(certified(served, "carol")) as api:
        api.call(admin_verbs.list_admins, admin_pb2.ListAdminsRequest())
        clock(8 * 86_400)
        with pytest.raises(RevokedError, match="carol is expired"):
            api.call(admin_verbs.list_admins, admin_pb2.ListAdminsRequest())


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"name": "a b"}, "cannot name an operator"),
        ({"name": "../x"}, "cannot name an operator"),
        ({"role": "root"}, "is no role"),
        ({"days": 0}, "1 to 730 days"),
        ({"days": 731}, "1 to 730 days"),
        ({"certificate_request": b"junk"}, "could not be read"),
        ({"name": "carol"}, "has a valid certificate"),
    ],
)
def test_a_certificate_that_cannot_be_issued(served: Deployment, fields: dict[str, Any], expected: str) -> None:
    certified(served, "carol")
    whole = {"name": "dave", "role": "operator", "days": 7, "certificate_request": new_request()[1]} | fields
    with pytest.raises(NightshiftError, match=expected):
        admin_verbs.issue_admin(Operator(served), admin_pb2.IssueAdminRequest(**whole))


def test_the_same_answers_here_and_from_elsewhere(
    served: Deployment, home: Home, command: Command, package: Path, tmp_path: Path
) -> None:
    """A task, three devices and a round: what each command prints does not depend on where it runs."""
    make_task(served, package)
    devices = [ScriptedDevice(make_token(served), name=f"device {number}") for number in range(3)]
    for device in devices:
        device.join()
        device.check_in(new_prekeys=1)
        device.close()
    with served.database.transaction() as session:
        open_round(session, served, session.get_one(Task, TASK), now_unix_s())
    file = tmp_path / "carol.toml"
    certified(served, "carol").write(file)
    assert command("status", credentials=file)[0] == ExitCode.OK  # from here on it has been seen
    time.sleep(1.1)  # a certificate has 30 whole days left in its first second, and then 29
    for words in (
        ("status",),
        ("token", "list"),
        ("device", "list"),
        ("device", "show", devices[0].device_id.hex()[:9]),
        ("model", "list"),
        ("model", "show", "tiny"),
        ("task", "list"),
        ("round", "list"),
        ("round", "show", f"{TASK}/1"),
        ("release", "list"),
        ("release", "show", f"{TASK}/0"),
        ("log", "verify"),
        ("audit", "list"),
        ("admin", "list"),
    ):
        for flags in ((), ("--json",)):
            here, elsewhere = command(*words, *flags), command(*words, *flags, credentials=file)
            assert here[0] == ExitCode.OK, here
            assert here == elsewhere
    for words in (("device", "show", "ffffffff"), ("round", "show", "none/1"), ("round", "open", TASK)):
        here, elsewhere = command(*words), command(*words, credentials=file)
        assert here[0] != ExitCode.OK
        assert here == elsewhere


def test_what_an_operator_changes_bears_its_name(
    served: Deployment, command: Command, tmp_path: Path, package: Path
) -> None:
    file, task = tmp_path / "carol.toml", tmp_path / "task.toml"
    certified(served, "carol").write(file)
    task.write_text('name = "far"\nmodel = "sent"\n', "utf-8")
    with served.database.transaction() as session:
        session.execute(AuditRow.__table__.delete())
    token = json.loads(command("token", "create", "--json", credentials=file)[1])
    for words in (
        ("token", "revoke", token["token_id"]),
        ("model", "add", str(package), "--alias", "sent"),
        ("task", "create", "-f", str(task)),
        ("task", "pause", "far"),
        ("admin", "issue", "dave", "-o", str(tmp_path / "dave.toml"), "--read-only"),
        ("admin", "revoke", "dave", "--yes"),
    ):
        assert command(*words, credentials=file)[0] == ExitCode.OK, words
    entries = json.loads(command("audit", "list", "--json")[1])["entries"]
    assert {entry["actor"] for entry in entries} == {"admin carol"}
    assert {entry["verb"] for entry in entries} >= {
        "token create",
        "token revoke",
        "model add",
        "task create",
        "admin issue",
    }
    out = tmp_path / "adapter.safetensors"
    assert command("release", "export", "far/0", "-o", str(out), credentials=file)[0] == ExitCode.OK
    here = tmp_path / "here.safetensors"
    assert command("release", "export", "far/0", "-o", str(here))[0] == ExitCode.OK
    assert out.read_bytes() == here.read_bytes()
    assert json.loads(command("audit", "list", "--actor", "admin dave", "--json")[1])["entries"] == []


def test_a_round_is_watched_from_elsewhere_until_it_ends(
    served: Deployment, command: Command, tmp_path: Path, package: Path
) -> None:
    make_task(served, package)
    devices = [ScriptedDevice(make_token(served)) for _ in range(3)]
    for device in devices:
        device.join()
        device.check_in(new_prekeys=1)
        device.close()
    with served.database.transaction() as session:
        open_round(session, served, session.get_one(Task, TASK), now_unix_s())
    file = tmp_path / "carol.toml"
    certified(served, "carol").write(file)

    def end_it() -> None:
        from coordinator.admin import round_verbs

        request = admin_pb2.AbortRoundRequest(name=f"{TASK}/1", reason="seen enough")
        round_verbs.abort_round(Operator(served), request)

    timer = threading.Timer(1.5, end_it)
    timer.start()
    code, out, err = command("round", "watch", f"{TASK}/1", "--every", "0.1", "--json", credentials=file)
    timer.join()
    assert code == ExitCode.OK, err
    lines = out.splitlines()
    assert list(dict.fromkeys(json.loads(line)["state"] for line in lines)) == ["running", "void"]
    assert all(one != other for one, other in itertools.pairwise(lines)), "a line is a change"


def test_who_watches_does_not_hold_up_the_end(home: Home, package: Path) -> None:
    with open_home(home) as deployment:
        make_task(deployment, package)
        with serving(deployment):
            devices = [ScriptedDevice(make_token(deployment)) for _ in range(3)]
            for device in devices:
                device.join()
                device.check_in(new_prekeys=1)
                device.close()
            with deployment.database.transaction() as session:
                open_round(session, deployment, session.get_one(Task, TASK), now_unix_s())
            credentials = certified(deployment, "carol")
            channel = grpc.secure_channel(
                credentials.address,
                grpc.ssl_channel_credentials(
                    credentials.root.encode(), credentials.key.encode(), credentials.certificate.encode()
                ),
            )
            stub: Any = admin_pb2_grpc.AdminServiceStub(channel)  # type: ignore[no-untyped-call]  # generated
            replies = stub.WatchRound(admin_pb2.WatchRoundRequest(name=f"{TASK}/1", every_s=60), timeout=60)
            next(replies)
            begun_s = time.monotonic()
        assert time.monotonic() - begun_s < 5
        assert list(replies) == []
        channel.close()


def test_another_process_that_knows_the_credentials_only(home: Home, tmp_path: Path) -> None:
    """As from another machine: no data directory, the file named by the environment, the service in its own process."""
    file = tmp_path / "carol.toml"
    with open_home(home) as deployment:
        certified(deployment, "carol").write(file)
    serve = ServeProcess(home)
    serve.wait_until_ready()
    elsewhere = {"NIGHTSHIFT_COORDINATOR_ADMIN_CREDENTIALS": str(file)}
    status = run_command("coordinator", ["status"], elsewhere)
    assert (status.code, status.stdout.splitlines()[0]) == (ExitCode.OK, "serving")
    made = run_command("coordinator", ["token", "create", "--json"], elsewhere)
    device = ScriptedDevice(JoinToken.decode(made.json["token"]))
    device.join()
    device.close()
    (row,) = run_command("coordinator", ["device", "list", "--json"], elsewhere).json["devices"]
    assert row["device_id"] == device.device_id.hex()
    wrong = elsewhere | {"NIGHTSHIFT_COORDINATOR_ADMIN_ADDRESS": f"127.0.0.1:{free_port()}"}
    assert run_command("coordinator", ["status"], wrong).code == ExitCode.UNREACHABLE
    assert serve.terminate() == 0
    words = ["--data", str(home.directory), "audit", "list", "--json", "--limit", "1"]
    (entry,) = run_command("coordinator", words, {}).json["entries"]
    assert (entry["actor"], entry["verb"], entry["subject"]) == ("admin carol", "token create", made.json["token_id"])


def test_where_nobody_answers_it_is_said_what_to_do(home: Home, command: Command, tmp_path: Path) -> None:
    file = tmp_path / "carol.toml"
    with open_home(home) as deployment:
        certified(deployment, "carol").write(file)
    code, _, err = command("status", credentials=file)
    assert code == ExitCode.UNREACHABLE
    assert "no coordinator answers operators at 127.0.0.1:" in err
    assert "--data" in err


def test_a_credentials_file_that_is_none(command: Command, tmp_path: Path, home: Home) -> None:
    file = tmp_path / "file.toml"
    assert (
        "does not exist" in command("status", credentials=file)[2]
        or "missing" in command("status", credentials=file)[2]
    )
    file.touch(mode=0o600)
    for text in ("", "junk", "name = 1", "x" * 40_000):
        file.write_text(text)
        code, _, err = command("status", credentials=file)
        assert (code, "does not hold admin credentials" in err) == (ExitCode.USAGE, True)
    file.chmod(0o644)
    assert "chmod 600" in command("status", credentials=file)[2]


def test_another_server_is_not_believed(served: Deployment, tmp_path: Path) -> None:
    """The root of the file decides, not the address."""
    other = make_home(tmp_path / "other", operators=True)
    with open_home(other) as deployment:
        theirs = certified(deployment, "mallory")
    with pytest.raises(NightshiftError) as caught, _channel(theirs, served.configuration.admin_address()) as channel:
        Elsewhere(channel, "here").call(admin_verbs.list_admins, admin_pb2.ListAdminsRequest())
    assert not isinstance(caught.value, UsageError)


def test_commands_of_the_machine_itself_say_so(served: Deployment, command: Command, tmp_path: Path) -> None:
    file = tmp_path / "carol.toml"
    certified(served, "carol").write(file)
    code, _, err = command("ca", "show", credentials=file)
    assert code == ExitCode.USAGE
    assert "on the coordinator's own machine only" in err


def test_long_lists_come_in_pages(served: Deployment) -> None:
    for _ in range(7):
        enrolment_verbs.create_token(Operator(served), admin_pb2.CreateTokenRequest(uses=1, ttl_s=60))
    with calling(certified(served, "carol")) as api:
        request = admin_pb2.ListTokensRequest(page=admin_pb2.Page(size=3))
        assert len(pages(api, enrolment_verbs.list_tokens, request, "tokens")) == 7
        reply = api.call(enrolment_verbs.list_tokens, admin_pb2.ListTokensRequest(page=admin_pb2.Page(size=3)))
        assert (len(reply.tokens), reply.next_page) == (3, "3")
        for token in ("x", "-1", "9" * 40):
            with pytest.raises(UsageError, match="page token"):
                api.call(enrolment_verbs.list_tokens, admin_pb2.ListTokensRequest(page=admin_pb2.Page(token=token)))


def test_a_record_with_a_key_that_the_message_lacks_is_a_mistake() -> None:
    with pytest.raises(LookupError, match=r"Token has no field 'colour'; add it to protos"):
        to_message(admin_pb2.Token, {"token_id": "a", "colour": "red"})


def test_a_record_survives_the_message() -> None:
    record = {
        "audit_id": 2**40,
        "time": "2026-03-01T02:15:07Z",
        "actor": "admin carol",
        "verb": "token create",
        "subject": "x",
        "detail": "{}",
    }
    assert to_record(to_message(admin_pb2.AuditEntry, record)) == record
    nothing = to_record(
        to_message(admin_pb2.Cohort, {"ended": None, "sum_object": None, "metrics": {"b": 1.5, "a": 2.0}})
    )
    assert (nothing["ended"], nothing["sum_object"], nothing["metrics"]) == (None, None, {"a": 2.0, "b": 1.5})
    assert (nothing["committee"], nothing["members_outside"], nothing["cohort"]) == ([], [], 0)
