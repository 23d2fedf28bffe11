"""Errors and limits at the gRPC boundary, mapped once for both sides.

A NightshiftError leaves a servicer as google.rpc.Status with an ErrorInfo that
carries its reason (and RetryInfo where a wait helps), and comes back as the
same class in the client. Anything else becomes INTERNAL without a word of the
inside: a stack trace is for the log, not for the other side.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, NoReturn, TypeVar, cast

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from nightshift.host.console import printable
from nightshift.protocol.errors import (
    DeclinedError,
    MalformedError,
    NightshiftError,
    OverloadedError,
    RequestError,
    RevokedError,
    UnreachableError,
    WrongServerError,
    by_reason,
)

CHUNK_BYTES = 256 * 1024
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
MAX_JOIN_MESSAGE_BYTES = 16 * 1024
WINDOW_BYTES = 256 * 1024
"""Of a stream to the server: at a round trip of 100 ms 2 MB/s, more than a home's line sends."""
IDLE_CONNECTION_S = 10
"""A connection keeps 50 kB of the server, 0.2 MB after an upload; a new one costs it 2 ms of processor time."""
ERROR_DOMAIN = "nightshift"
DEFAULT_DEADLINE_S = 30.0
RETRY_AFTER_S = 60
MAX_RETRY_AFTER_S = 24 * 3600
# A message travels twice in the trailers, once percent-encoded; gRPC drops trailers past 8 KiB.
MAX_TEXT_BYTES = 1024

_LIMITS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
]
CHANNEL_OPTIONS: list[tuple[str, int]] = [
    *_LIMITS,
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.enable_retries", 0),
]
SERVER_OPTIONS: list[tuple[str, int]] = [
    *_LIMITS,
    # Of one connection; what one certificate may have under way is counted above gRPC.
    ("grpc.max_concurrent_streams", 16),
    # A peer that connects and says nothing is let go.
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 30_000),
    # Who comes back later connects again without noticing.
    ("grpc.max_connection_idle_ms", IDLE_CONNECTION_S * 1000),
    # Left alone, gRPC lets windows grow with the line's speed, and a connection keeps for as long as it lasts what it
    # once took to fill them: over a megabyte after an upload on a fast line (docs/benchmarks/coordinator.md).
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
    ("grpc.so_reuseport", 0),
]
# What a stranger may send: a token, a signing request and a few words.
JOIN_SERVER_OPTIONS: list[tuple[str, int]] = [
    *(option for option in SERVER_OPTIONS if option[0] != "grpc.max_receive_message_length"),
    ("grpc.max_receive_message_length", MAX_JOIN_MESSAGE_BYTES),
]

F = TypeVar("F", bound=Callable[..., Any])


def to_status(error: NightshiftError) -> status_pb2.Status:
    """The error as it travels."""
    details = [_packed(error_details_pb2.ErrorInfo(reason=error.reason, domain=ERROR_DOMAIN))]
    if isinstance(error, OverloadedError | UnreachableError):
        seconds = error.retry_after_s if isinstance(error, OverloadedError) else RETRY_AFTER_S
        delay = duration_pb2.Duration(seconds=seconds)
        details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    text = str(error).encode("utf-8", "backslashreplace")[:MAX_TEXT_BYTES].decode("utf-8", "ignore")
    return status_pb2.Status(code=code_pb2.Code.Value(error.grpc_status), message=text, details=details)


def _packed(message: Any) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def abort(context: grpc.ServicerContext, error: NightshiftError) -> NoReturn:
    """End the call with the error's status and reason."""
    context.abort_with_status(rpc_status.to_status(to_status(error)))
    raise AssertionError("abort_with_status raises")


def guarded(
    on_unexpected: Callable[[str, BaseException], None],
    *,
    as_told: Callable[[NightshiftError], NightshiftError] = lambda error: error,
) -> Callable[[F], F]:
    """Decorate a servicer's method (unary or streaming reply) so that errors leave it mapped.

    Args:
        on_unexpected: told the method's name and the exception that no rule maps, to log it.
        as_told: what the other side hears of an error that is not its own matter.
    """

    def decorate(method: F) -> F:
        def fail(context: grpc.ServicerContext, error: Exception) -> NoReturn:
            if isinstance(error, NightshiftError):
                abort(context, as_told(error))
            on_unexpected(method.__name__, error)
            abort(context, NightshiftError("the coordinator failed inside; its log says more"))

        @wraps(method)
        def unary(self: Any, request: Any, context: grpc.ServicerContext) -> Any:
            try:
                return method(self, request, context)
            except Exception as error:  # the boundary: nothing may leave unmapped
                if _said_already(error):
                    raise
                fail(context, error)

        @wraps(method)
        def streaming(self: Any, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            try:
                yield from method(self, request, context)
            except Exception as error:  # the boundary: nothing may leave unmapped
                if _said_already(error):
                    raise
                fail(context, error)

        return streaming if inspect.isgeneratorfunction(method) else unary  # type: ignore[return-value]  # same signature

    return decorate


def _said_already(error: Exception) -> bool:
    # The bare Exception is how `context.abort` leaves; an RpcError means that the caller has gone.
    return isinstance(error, grpc.RpcError) or (type(error) is Exception and not error.args)


def from_rpc_error(error: grpc.RpcError, address: str) -> NightshiftError:
    """The exception that a failed call means to the device.

    Args:
        error: what the stub raised.
        address: host:port that was called, for the message.
    """
    call = cast("grpc.Call", error)  # what a stub raises is both; the types know only one
    said = _said_by_coordinator(call)
    if said is not None:
        return said
    code = call.code()
    text = printable(call.details() or "no reason given")[:MAX_TEXT_BYTES]
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        return _unavailable(text, address)
    if code is grpc.StatusCode.CANCELLED:
        # Not by this side: a service that stops, or that cuts a call which lasts too long, says so.
        return UnreachableError(f"the coordinator at {address} broke off the call; it will be tried again")
    if code in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED):
        return RevokedError(f"the coordinator at {address} refuses this device: {text}")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in text:
        return MalformedError(f"a message to or from the coordinator at {address} is too large: {text}")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return OverloadedError(f"the coordinator at {address} is busy: {text}; it will be tried again later")
    if code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE):
        return MalformedError(f"the coordinator at {address} could not read the request: {text}")
    return RequestError(f"the coordinator at {address} failed: {text}")


def _said_by_coordinator(call: grpc.Call) -> NightshiftError | None:
    try:
        status = rpc_status.from_call(call)
        for detail in status.details if status is not None else ():
            info = error_details_pb2.ErrorInfo()
            if detail.Is(info.DESCRIPTOR) and detail.Unpack(info) and info.domain == ERROR_DOMAIN:
                kind = by_reason().get(info.reason)
                if kind is not None:
                    said = _plain(kind)(printable(status.message)[:MAX_TEXT_BYTES])
                    if isinstance(said, OverloadedError):
                        said.retry_after_s = _retry_after_s(status) or said.retry_after_s
                    return said
    except (ValueError, DecodeError):
        # Status details that are garbage, or contradict the status itself, say nothing.
        return None
    return None


def _retry_after_s(status: status_pb2.Status) -> int:
    """The delay of the status's RetryInfo, whole seconds; 0 where it names none that makes sense."""
    for detail in status.details:
        info = error_details_pb2.RetryInfo()
        if detail.Is(info.DESCRIPTOR) and detail.Unpack(info):
            return min(max(0, int(info.retry_delay.seconds)), MAX_RETRY_AFTER_S)
    return 0


def _plain(kind: type[NightshiftError]) -> type[NightshiftError]:
    """The class, or for one that carries more than its message the nearest above that does not."""
    return next(each for each in kind.__mro__ if each.__init__ is Exception.__init__)  # type: ignore[misc]  # compared


def _unavailable(text: str, address: str) -> NightshiftError:
    """What TCP, TLS and a proxy on the way say when no call could be made."""
    lowered = text.lower()
    if "certificate has expired" in lowered or "certificate is not yet valid" in lowered:
        return DeclinedError(
            f"not now: the certificate of the server at {address} is not valid at the time that this device's clock "
            "shows; set the clock, or wait until it is in step (if the clock is right, tell the operator)"
        )
    if "certificate_verify_failed" in lowered or "hostname verification" in lowered or "peer name" in lowered:
        return WrongServerError(
            f"the server at {address} does not hold a certificate of the expected root; nothing was sent to it. "
            "Behind a captive portal (hotel, train, guest network) log in there first; else check the address, or "
            "ask the operator for a new token"
        )
    if "wrong_version_number" in lowered or "http_request" in lowered:
        return UnreachableError(
            f"what answers at {address} does not speak TLS: a captive portal, a proxy, or another program on that "
            "port; it will be tried again"
        )
    proxy = re.search(r"http proxy returned response code ([0-9]{3})", lowered)
    if proxy is not None:
        advice = (
            "it wants a name and a password: https_proxy=http://NAME:PASSWORD@HOST:PORT"
            if proxy[1] == "407"
            else "see https_proxy and no_proxy in the environment"
        )
        return UnreachableError(
            f"the HTTP proxy on the way to {address} refused with status {proxy[1]}; {advice}. It will be tried again"
        )
    return UnreachableError(f"the coordinator at {address} cannot be reached: {text}; it will be tried again")
