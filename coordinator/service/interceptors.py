"""What every call passes before its servicer sees it: rate, number at once, length of a download."""

from __future__ import annotations

import ipaddress
import math
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import grpc

from coordinator.service.limits import CallsUnderWay, TokenBuckets
from coordinator.service.peers import caller
from nightshift.host.rpc import abort
from nightshift.protocol.errors import NightshiftError, OverloadedError


class Around(grpc.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Does something before and after each call, whichever of gRPC's four kinds it is."""

    def around(self, method: str, context: grpc.ServicerContext, *, streams: bool) -> AbstractContextManager[None]:
        """What encloses a call.

        Args:
            method: its full name, "/nightshift.v1.DeviceService/CheckIn".
            context: of the call; aborting it ends the call.
            streams: whether the reply is a stream.
        """
        raise NotImplementedError

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Wrap the method's handler."""
        handler = continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        if handler.response_streaming:
            make = grpc.stream_stream_rpc_method_handler if handler.request_streaming else _unary_stream
            return make(self._streaming(method, handler), handler.request_deserializer, handler.response_serializer)
        make = grpc.stream_unary_rpc_method_handler if handler.request_streaming else _unary_unary
        return make(self._single(method, handler), handler.request_deserializer, handler.response_serializer)

    def _single(self, method: str, handler: Any) -> Callable[[Any, grpc.ServicerContext], Any]:
        inner = handler.stream_unary if handler.request_streaming else handler.unary_unary

        def call(request: Any, context: grpc.ServicerContext) -> Any:
            with self.around(method, context, streams=False):
                return inner(request, context)

        return call

    def _streaming(self, method: str, handler: Any) -> Callable[[Any, grpc.ServicerContext], Iterator[Any]]:
        inner = handler.stream_stream if handler.request_streaming else handler.unary_stream

        def call(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            with self.around(method, context, streams=True):
                yield from inner(request, context)

        return call


@dataclass(frozen=True)
class Gate(Around):
    """Lets a caller in, or tells it when to come back (RESOURCE_EXHAUSTED with RetryInfo).

    Attributes:
        key_of: who is calling, by what cannot be forged: the certificate, or the network address.
        who: names that in the message.
        buckets: calls in a time.
        under_way: calls at once.
        download_s: longest reply stream; a reader slower than that goes on from its offset in another call.
    """

    key_of: Callable[[grpc.ServicerContext], Hashable]
    who: str
    buckets: TokenBuckets
    under_way: CallsUnderWay
    download_s: float

    @contextmanager
    def around(self, method: str, context: grpc.ServicerContext, *, streams: bool) -> Iterator[None]:  # noqa: ARG002 - all methods alike
        """Admit the call; end a reply stream in time."""
        self._admit(context)
        if streams:
            timer = threading.Timer(self.download_s, context.cancel)
            timer.daemon = True
            timer.start()
            if not context.add_callback(timer.cancel):
                timer.cancel()
        yield

    def _admit(self, context: grpc.ServicerContext) -> None:
        """Return if the call may go on; end it otherwise."""
        try:
            key = self.key_of(context)
            wait_s = self.buckets.take(key)
            if wait_s > 0:
                raise _overloaded(f"too many calls from this {self.who}", wait_s)
            if not self.under_way.enter(key):
                raise _overloaded(f"too many calls at once from this {self.who}", 1.0)
        except NightshiftError as error:
            abort(context, error)
        # Called whichever way the call ends; False says that it has ended already.
        if not context.add_callback(lambda: self.under_way.leave(key)):
            self.under_way.leave(key)


def certificate_of(context: grpc.ServicerContext) -> Hashable:
    """The device id of the peer's certificate.

    Raises:
        RevokedError: there is none.
    """
    return caller(context)


def network_of(context: grpc.ServicerContext) -> Hashable:
    """The peer's IPv4 address, or the /64 of its IPv6 address: one customer has all of that."""
    kind, _, rest = unquote(context.peer()).partition(":")
    host = rest.rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return kind
    if isinstance(address, ipaddress.IPv6Address):
        mapped = address.ipv4_mapped
        return mapped if mapped is not None else ipaddress.ip_network((address, 64), strict=False)
    return address


def _overloaded(what: str, wait_s: float) -> OverloadedError:
    seconds = max(1, math.ceil(wait_s))
    error = OverloadedError(f"{what}; try again in {seconds} s")
    error.retry_after_s = seconds
    return error


_unary_unary = grpc.unary_unary_rpc_method_handler
_unary_stream = grpc.unary_stream_rpc_method_handler
