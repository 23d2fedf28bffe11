"""Errors across a real gRPC connection on the loopback device, with hostile ends on either side."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from nightshift.host.rpc import (
    CHANNEL_OPTIONS,
    MAX_MESSAGE_BYTES,
    MAX_RETRY_AFTER_S,
    MAX_TEXT_BYTES,
    RETRY_AFTER_S,
    SERVER_OPTIONS,
    abort,
    from_rpc_error,
    guarded,
    to_status,
)
from nightshift.protocol.errors import (
    DeclinedError,
    MalformedError,
    NightshiftError,
    NotFoundError,
    OverloadedError,
    RequestError,
    RevokedError,
    UnreachableError,
    UsageError,
    VerificationError,
    WrongServerError,
    by_reason,
)
from nightshift.protocol.secagg.errors import ShareRefusedError
from nightshift.v1 import device_pb2, device_pb2_grpc
from tests.support.authority import DAY_S, Authority, new_key

Behaviour = Callable[[grpc.ServicerContext], Any]


@dataclass
class Scripted(device_pb2_grpc.DeviceServiceServicer):
    """A servicer whose methods do what the test says, and keep what was reported as unexpected."""

    behaviour: Behaviour = lambda context: device_pb2.CheckInResponse()
    unexpected: list[tuple[str, BaseException]] = field(default_factory=list)
    received: list[bytes] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)


SCRIPT = Scripted()


def report(method: str, error: BaseException) -> None:
    SCRIPT.unexpected.append((method, error))


class Servicer(device_pb2_grpc.DeviceServiceServicer):
    """Three kinds of call, each guarded as the coordinator's are."""

    @guarded(report)
    def CheckIn(self, request: device_pb2.CheckInRequest, context: grpc.ServicerContext) -> Any:
        return SCRIPT.behaviour(context)

    @guarded(report)
    def GetBundle(self, request: device_pb2.GetBundleRequest, context: grpc.ServicerContext) -> Iterator[Any]:
        yield device_pb2.GetBundleResponse()
        SCRIPT.behaviour(context)
        yield device_pb2.GetBundleResponse()

    @guarded(report)
    def Upload(self, request: Iterator[device_pb2.UploadRequest], context: grpc.ServicerContext) -> Any:
        try:
            for part in request:
                SCRIPT.received.append(part.data)
            return SCRIPT.behaviour(context)
        finally:
            SCRIPT.ended.set()


@contextmanager
def serving(add_port: Callable[[grpc.Server], int]) -> Iterator[int]:
    server = grpc.server(futures.ThreadPoolExecutor(4), options=SERVER_OPTIONS)
    device_pb2_grpc.add_DeviceServiceServicer_to_server(Servicer(), server)  # type: ignore[no-untyped-call]  # generated
    port = add_port(server)
    server.start()
    try:
        yield port
    finally:
        server.stop(0).wait()


def stub_of(channel: grpc.Channel) -> device_pb2_grpc.DeviceServiceStub:
    return device_pb2_grpc.DeviceServiceStub(channel)  # type: ignore[no-untyped-call]  # generated


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving(lambda server: server.add_insecure_port("127.0.0.1:0")) as port:
        yield f"127.0.0.1:{port}"


@pytest.fixture
def stub(address: str) -> Iterator[device_pb2_grpc.DeviceServiceStub]:
    SCRIPT.__init__()  # type: ignore[misc]  # a fresh script, in the place that the running server knows
    with grpc.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        yield stub_of(channel)


def unary(stub: device_pb2_grpc.DeviceServiceStub) -> None:
    stub.CheckIn(device_pb2.CheckInRequest(), timeout=20)


def streamed(stub: device_pb2_grpc.DeviceServiceStub) -> None:
    for _ in stub.GetBundle(device_pb2.GetBundleRequest(), timeout=20):
        pass


def uploaded(stub: device_pb2_grpc.DeviceServiceStub) -> None:
    stub.Upload(iter([device_pb2.UploadRequest(data=b"x")]), timeout=20)


CALLS = pytest.mark.parametrize("call", [unary, streamed, uploaded])
Call = Callable[[device_pb2_grpc.DeviceServiceStub], None]


def failing(error: BaseException) -> Behaviour:
    def behaviour(context: grpc.ServicerContext) -> None:
        raise error

    return behaviour


def caught(call: Call, stub: device_pb2_grpc.DeviceServiceStub) -> tuple[NightshiftError, Any]:
    with pytest.raises(grpc.RpcError) as raised:
        call(stub)
    return from_rpc_error(raised.value, "home.example:7443"), raised.value


def everything_said(error: Any) -> str:
    """All text that came over the wire with a failed call."""
    return repr((error.details(), error.trailing_metadata(), error.initial_metadata(), str(error)))


PLAIN = sorted(
    (kind for kind in by_reason().values() if kind.__init__ is Exception.__init__), key=lambda kind: kind.__name__
)


@CALLS
@pytest.mark.parametrize("kind", PLAIN)
def test_each_error_comes_back_as_itself(
    stub: device_pb2_grpc.DeviceServiceStub, kind: type[NightshiftError], call: Call
) -> None:
    SCRIPT.behaviour = failing(kind("ask for a new token, then join again"))
    error, raw = caught(call, stub)
    assert type(error) is kind
    assert str(error) == "ask for a new token, then join again"
    assert raw.code().name == kind.grpc_status
    assert SCRIPT.unexpected == []


def test_an_error_that_carries_more_comes_back_as_the_nearest_that_does_not(
    stub: device_pb2_grpc.DeviceServiceStub,
) -> None:
    """A server may name any reason; one whose class needs more than a message must not crash the client."""
    assert by_reason()["SHARE_REFUSED"] is ShareRefusedError
    with pytest.raises(TypeError):
        by_reason()["SHARE_REFUSED"]("no contributor given")

    def behaviour(context: grpc.ServicerContext) -> None:
        status = to_status(NightshiftError("the share is refused"))
        info = any_pb2.Any()
        info.Pack(error_details_pb2.ErrorInfo(reason="SHARE_REFUSED", domain="nightshift"))
        status.details[0].CopyFrom(info)
        context.abort_with_status(rpc_status.to_status(status))

    SCRIPT.behaviour = behaviour
    assert type(caught(unary, stub)[0]) is VerificationError


@CALLS
def test_an_honest_call_is_left_alone(stub: device_pb2_grpc.DeviceServiceStub, call: Call) -> None:
    SCRIPT.behaviour = lambda context: device_pb2.CheckInResponse() if call is unary else device_pb2.UploadResponse()
    call(stub)
    assert SCRIPT.unexpected == []


@CALLS
def test_not_a_word_of_an_unexpected_error_reaches_the_client(
    stub: device_pb2_grpc.DeviceServiceStub, call: Call
) -> None:
    inside = KeyError("SELECT secret FROM tokens -- /srv/keys/root.key")
    SCRIPT.behaviour = failing(inside)
    error, raw = caught(call, stub)
    assert type(error) is NightshiftError
    assert raw.code() is grpc.StatusCode.INTERNAL
    said = everything_said(raw)
    for word in ("SELECT", "secret", "root.key", "KeyError", "Traceback", "Exception calling"):
        assert word not in said
    assert [reported for _, reported in SCRIPT.unexpected] == [inside]
    assert SCRIPT.unexpected[0][0] in ("CheckIn", "GetBundle", "Upload")


@CALLS
def test_nor_where_the_servicer_had_set_a_status_before(stub: device_pb2_grpc.DeviceServiceStub, call: Call) -> None:
    def behaviour(context: grpc.ServicerContext) -> None:
        context.set_code(grpc.StatusCode.NOT_FOUND)
        context.set_details("looking")
        raise ValueError("/srv/keys/root.key")

    SCRIPT.behaviour = behaviour
    error, raw = caught(call, stub)
    assert "root.key" not in everything_said(raw)
    assert type(error) is NightshiftError
    assert len(SCRIPT.unexpected) == 1


@CALLS
def test_an_abort_by_the_servicer_itself_passes(stub: device_pb2_grpc.DeviceServiceStub, call: Call) -> None:
    SCRIPT.behaviour = lambda context: abort(context, NotFoundError("no such cohort"))
    assert type(caught(call, stub)[0]) is NotFoundError
    SCRIPT.behaviour = lambda context: context.abort(grpc.StatusCode.PERMISSION_DENIED, "by hand")
    error, raw = caught(call, stub)
    assert (type(error), raw.details()) == (RevokedError, "by hand")
    assert SCRIPT.unexpected == []


def test_a_caller_that_leaves_in_the_middle_is_no_unexpected_error(stub: device_pb2_grpc.DeviceServiceStub) -> None:
    leave = threading.Event()

    def parts() -> Iterator[device_pb2.UploadRequest]:
        yield device_pb2.UploadRequest(data=b"first")
        leave.wait(20)

    call = stub.Upload.future(parts(), timeout=20)
    deadline = time.monotonic() + 20
    while not SCRIPT.received and time.monotonic() < deadline:
        time.sleep(0.01)
    assert SCRIPT.received == [b"first"]
    call.cancel()
    leave.set()
    assert SCRIPT.ended.wait(20), "the servicer still waits for a caller that has gone"
    time.sleep(0.05)
    assert SCRIPT.unexpected == []


@pytest.mark.parametrize("kind", [OverloadedError, UnreachableError])
def test_where_waiting_helps_the_status_says_how_long(
    stub: device_pb2_grpc.DeviceServiceStub, kind: type[NightshiftError]
) -> None:
    SCRIPT.behaviour = failing(kind("later"))
    _, raw = caught(unary, stub)
    status = rpc_status.from_call(raw)
    assert isinstance(status, status_pb2.Status)
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Is(retry.DESCRIPTOR) and detail.Unpack(retry) for detail in status.details)
    assert retry.retry_delay.seconds == RETRY_AFTER_S


@pytest.mark.parametrize(("said_s", "heard_s"), [(7, 7), (90_000_000, MAX_RETRY_AFTER_S)])
def test_how_long_a_busy_coordinator_asks_for_is_heard(
    stub: device_pb2_grpc.DeviceServiceStub, said_s: int, heard_s: int
) -> None:
    error = OverloadedError("busy")
    error.retry_after_s = said_s
    SCRIPT.behaviour = failing(error)
    heard, _ = caught(unary, stub)
    assert isinstance(heard, OverloadedError)
    assert heard.retry_after_s == heard_s


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("x" * 100_000, id="100 kB"),
        pytest.param("ж" * 50_000, id="100 kB of Cyrillic"),
        pytest.param("🌙" * 50_000, id="200 kB of moons"),
        pytest.param("\x00\r\n" * 5_000, id="control characters"),
        pytest.param("half a letter \udcc3", id="a lone surrogate"),
        pytest.param("", id="nothing"),
    ],
)
def test_a_message_of_any_length_and_letters_arrives_with_its_class(
    stub: device_pb2_grpc.DeviceServiceStub, text: str
) -> None:
    """gRPC drops trailers past 8 KiB, and with them would go the reason."""
    SCRIPT.behaviour = failing(DeclinedError(text))
    for _ in range(5):
        error, _ = caught(unary, stub)
        assert type(error) is DeclinedError
        assert len(str(error).encode()) <= 4 * MAX_TEXT_BYTES
        assert str(error)[:13] == text[:13] or not text.isprintable()


def test_what_a_server_says_cannot_steer_a_terminal(stub: device_pb2_grpc.DeviceServiceStub) -> None:
    SCRIPT.behaviour = failing(UsageError("\x1b[2Jall is well\r\u202e"))
    assert str(caught(unary, stub)[0]) == "\\x1b[2Jall is well\\r\\u202e"
    SCRIPT.behaviour = lambda context: context.abort(grpc.StatusCode.ABORTED, "\x1b[2Jall is well")
    assert "\x1b" not in str(caught(unary, stub)[0])


def hostile_status(details: bytes, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> Behaviour:
    def behaviour(context: grpc.ServicerContext) -> None:
        context.set_trailing_metadata((("grpc-status-details-bin", details),))
        context.abort(code, "said by the status")

    return behaviour


def packed(reason: str, domain: str) -> list[any_pb2.Any]:
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=reason, domain=domain))
    return [detail]


def broken_detail() -> bytes:
    detail = any_pb2.Any(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff\xff\xff")
    return bytes(status_pb2.Status(code=14, message="said by the status", details=[detail]).SerializeToString())


@pytest.mark.parametrize(
    "details",
    [
        pytest.param(b"garbage \xff\xff", id="garbage"),
        pytest.param(b"", id="empty"),
        pytest.param(status_pb2.Status(code=5, message="said by the status").SerializeToString(), id="another code"),
        pytest.param(status_pb2.Status(code=14, message="another text").SerializeToString(), id="another text"),
        pytest.param(broken_detail(), id="a broken detail"),
        pytest.param(
            status_pb2.Status(
                code=14, message="said by the status", details=packed("DECLINED", "elsewhere")
            ).SerializeToString(),
            id="another domain",
        ),
        pytest.param(
            status_pb2.Status(
                code=14, message="said by the status", details=packed("NEVER_HEARD", "nightshift")
            ).SerializeToString(),
            id="an unknown reason",
        ),
    ],
)
def test_status_details_that_say_nothing_leave_the_code_to_speak(
    stub: device_pb2_grpc.DeviceServiceStub, details: bytes
) -> None:
    SCRIPT.behaviour = hostile_status(details)
    error, _ = caught(unary, stub)
    assert type(error) is UnreachableError
    assert "home.example:7443" in str(error)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("UNAVAILABLE", UnreachableError),
        ("DEADLINE_EXCEEDED", UnreachableError),
        ("CANCELLED", UnreachableError),
        ("PERMISSION_DENIED", RevokedError),
        ("UNAUTHENTICATED", RevokedError),
        ("RESOURCE_EXHAUSTED", OverloadedError),
        ("INVALID_ARGUMENT", MalformedError),
        ("OUT_OF_RANGE", MalformedError),
        ("INTERNAL", RequestError),
        ("UNKNOWN", RequestError),
        ("UNIMPLEMENTED", RequestError),
        ("DATA_LOSS", RequestError),
    ],
)
def test_a_bare_code_has_a_meaning(
    stub: device_pb2_grpc.DeviceServiceStub, code: str, kind: type[NightshiftError]
) -> None:
    SCRIPT.behaviour = lambda context: context.abort(grpc.StatusCode[code], "from a proxy on the way")
    assert type(caught(unary, stub)[0]) is kind


def test_a_reply_beyond_the_limit_is_malformed_and_not_a_reason_to_wait(
    stub: device_pb2_grpc.DeviceServiceStub,
) -> None:
    SCRIPT.behaviour = lambda context: device_pb2.CheckInResponse(consistency_path=[bytes(MAX_MESSAGE_BYTES + 1)])
    assert type(caught(unary, stub)[0]) is MalformedError


def test_a_request_beyond_the_limit_is_malformed(stub: device_pb2_grpc.DeviceServiceStub) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        stub.CheckIn(device_pb2.CheckInRequest(client_version="x" * (MAX_MESSAGE_BYTES + 1)), timeout=20)
    assert type(from_rpc_error(raised.value, "x:1")) is MalformedError


def test_a_method_that_an_older_server_lacks(stub: device_pb2_grpc.DeviceServiceStub) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        stub.OpenUpload(device_pb2.OpenUploadRequest(), timeout=20)
    assert type(from_rpc_error(raised.value, "x:1")) is RequestError


def test_nobody_listens_or_nobody_answers(stub: device_pb2_grpc.DeviceServiceStub) -> None:
    with grpc.insecure_channel("127.0.0.1:1", options=CHANNEL_OPTIONS) as channel:
        assert type(caught(unary, stub_of(channel))[0]) is UnreachableError
    release = threading.Event()
    SCRIPT.behaviour = lambda context: release.wait(20) and device_pb2.CheckInResponse()
    with pytest.raises(grpc.RpcError) as raised:
        stub.CheckIn(device_pb2.CheckInRequest(), timeout=0.2)
    release.set()
    assert type(from_rpc_error(raised.value, "x:1")) is UnreachableError


# TLS.


def pem_key(key: Any) -> bytes:
    data = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    assert isinstance(data, bytes)
    return data


def pem(der: bytes) -> bytes:
    return x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM)


def root_pem(authority: Authority) -> bytes:
    return authority.root.public_bytes(serialization.Encoding.PEM)


@contextmanager
def tls_server(
    authority: Authority, names: list[x509.GeneralName], valid_s: tuple[int, int] = (-DAY_S, DAY_S)
) -> Iterator[int]:
    """A server whose certificate is valid between these seconds from now, by the real clock, which TLS goes by."""
    key, now = new_key(), int(time.time())
    certificate = authority.issue(
        key.public_key(),
        usages=[ExtendedKeyUsageOID.SERVER_AUTH],
        not_before_unix_s=now + valid_s[0],
        not_after_unix_s=now + valid_s[1],
        extensions=[(x509.SubjectAlternativeName(names), False)],
    )
    credentials = grpc.ssl_server_credentials([(pem_key(key), pem(certificate))])
    with serving(lambda server: server.add_secure_port("127.0.0.1:0", credentials)) as port:
        yield port


LOOPBACK: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]


def call_over_tls(port: int, root: bytes) -> NightshiftError | None:
    SCRIPT.__init__()  # type: ignore[misc]  # a fresh script, in the place that the running server knows
    credentials = grpc.ssl_channel_credentials(root_certificates=root)
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials, options=CHANNEL_OPTIONS) as channel:
        try:
            unary(stub_of(channel))
        except grpc.RpcError as error:
            return from_rpc_error(error, f"127.0.0.1:{port}")
    return None


def test_the_right_root_and_name() -> None:
    authority = Authority.make()
    with tls_server(authority, LOOPBACK) as port:
        assert call_over_tls(port, root_pem(authority)) is None


def test_a_server_of_another_root_is_told_apart_from_one_that_is_away() -> None:
    authority = Authority.make()
    with tls_server(authority, LOOPBACK) as port:
        error = call_over_tls(port, root_pem(Authority.make(common_name="Other root")))
    assert type(error) is WrongServerError
    assert "expected root" in str(error)
    assert "captive portal" in str(error)


def test_a_server_of_another_name() -> None:
    authority = Authority.make()
    with tls_server(authority, [x509.DNSName("elsewhere.example")]) as port:
        assert type(call_over_tls(port, root_pem(authority))) is WrongServerError


@pytest.mark.parametrize("valid_s", [(-2 * DAY_S, -DAY_S), (DAY_S, 2 * DAY_S)])
def test_a_server_whose_certificate_is_of_another_time_means_a_clock_to_look_at(valid_s: tuple[int, int]) -> None:
    """A device that began in 1970, or years ahead, sees every certificate so."""
    authority = Authority.make()
    with tls_server(authority, LOOPBACK, valid_s) as port:
        error = call_over_tls(port, root_pem(authority))
    assert type(error) is DeclinedError
    assert "set the clock" in str(error)


def test_a_server_that_speaks_no_tls(address: str) -> None:
    port = int(address.rsplit(":", 1)[1])
    assert type(call_over_tls(port, root_pem(Authority.make()))) is UnreachableError


def test_a_captive_portal_that_answers_in_http() -> None:
    """It redirects every connection to its login page, and speaks plain HTTP on whatever port was called."""
    with socket.create_server(("127.0.0.1", 0)) as portal:
        answer = b"HTTP/1.1 302 Found\r\nLocation: http://login.example/\r\nContent-Length: 0\r\n\r\n"

        def redirect() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = portal.accept()
                    with connection:
                        connection.recv(4096)
                        connection.sendall(answer)

        thread = threading.Thread(target=redirect, daemon=True)
        thread.start()
        error = call_over_tls(portal.getsockname()[1], root_pem(Authority.make()))
        portal.shutdown(socket.SHUT_RDWR)
        thread.join(5)
    assert type(error) is UnreachableError
    assert "does not speak TLS: a captive portal" in str(error)
