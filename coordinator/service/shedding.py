"""A bounded queue: a call that would wait behind too many others is told at once when to come back.

gRPC's own bound (`maximum_concurrent_rpcs`) says RESOURCE_EXHAUSTED without RetryInfo, and a device could not tell
that from a limit of its own. So calls are turned away here, by a thread that does nothing else.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NoReturn, ParamSpec, TypeVar

import grpc

from coordinator.metrics import CallMetrics
from nightshift.host.rpc import abort
from nightshift.protocol.errors import OverloadedError

P = ParamSpec("P")
T = TypeVar("T")

WAITING_PER_THREAD = 3
RETRY_AFTER_LEAST_S, RETRY_AFTER_MOST_S = 5, 15
"""Calls that are turned away together are told different times, so that they do not come back together."""


class CallThreads(ThreadPoolExecutor):
    """Threads for calls that know how many calls wait for one of them.

    Args:
        count: threads.
    """

    def __init__(self, count: int) -> None:
        super().__init__(count, thread_name_prefix="call")
        self.count = count
        self._guard = threading.Lock()
        self._waiting = 0

    @property
    def waiting(self) -> int:
        """Calls that no thread has taken yet."""
        return self._waiting

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """See `ThreadPoolExecutor.submit`."""
        with self._guard:
            self._waiting += 1

        def begun() -> T:
            with self._guard:
                self._waiting -= 1
            return fn(*args, **kwargs)

        return super().submit(begun)


class Shedding(grpc.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """The outermost interceptor of a listener.

    Args:
        threads: of the listener; a few calls for each may wait.
        metrics: count whom this one turns away.
        listener: "device", "join" or "admin".
    """

    def __init__(self, threads: CallThreads, *, metrics: CallMetrics, listener: str) -> None:
        self._threads = threads
        self._most_waiting = threads.count * WAITING_PER_THREAD
        self._metrics = metrics
        self._listener = listener
        self._spread = itertools.cycle(range(RETRY_AFTER_LEAST_S, RETRY_AFTER_MOST_S + 1))
        self._doorman = ThreadPoolExecutor(1, thread_name_prefix="doorman")

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """The method's handler, or one of its kind that turns the call away."""
        handler = continuation(handler_call_details)
        if handler is None or self._threads.waiting < self._most_waiting:
            return handler
        name = handler_call_details.method.rpartition("/")[2]

        def turn_away(_request: Any, context: grpc.ServicerContext) -> NoReturn:
            self._metrics.begin(self._listener)
            self._metrics.end(self._listener, name, "RESOURCE_EXHAUSTED", 0.0)
            abort(context, self._overloaded())

        # gRPC runs a behaviour with this attribute there, and not behind the calls that wait.
        turn_away.experimental_thread_pool = self._doorman  # type: ignore[attr-defined]  # read by gRPC
        make = _MAKERS[handler.request_streaming, handler.response_streaming]
        return make(turn_away, handler.request_deserializer, handler.response_serializer)

    def close(self) -> None:
        """End the thread, after the server has stopped."""
        self._doorman.shutdown(wait=True)

    def _overloaded(self) -> OverloadedError:
        seconds = next(self._spread)
        error = OverloadedError(f"the coordinator has more calls than it can answer; try again in {seconds} s")
        error.retry_after_s = seconds
        return error


_MAKERS: dict[tuple[bool, bool], Any] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}
