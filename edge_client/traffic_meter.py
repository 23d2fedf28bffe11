"""Counting the bytes of every message, for the owner's nightly limit.

Counted are serialised messages both ways, where gRPC hands them over: headers
and TLS, a few per cent more, are not seen there. gRPC serialises what is streamed
in threads of its own, so counting only adds; the thread of the pass writes the
sums to the store, at the end of each call and every `STEP_BYTES` of a long one.
What a killed process had not written yet is lost to the count.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edge_client.store.traffic import night_of
from nightshift.host import clock
from nightshift.protocol.errors import DeclinedError

if TYPE_CHECKING:
    from edge_client.store.traffic import Traffic

STEP_BYTES = 8 * 2**20


class Meter:
    """Counts, and says when the night's limit is reached.

    Args:
        traffic: where the sums are kept.
        limit_bytes: of one night; 0 means none.
    """

    def __init__(self, traffic: Traffic, limit_bytes: int) -> None:
        self._traffic = traffic
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._sent_bytes = 0
        self._received_bytes = 0

    def sent(self, size_bytes: int) -> None:
        """A message is about to leave."""
        with self._lock:
            self._sent_bytes += size_bytes

    def received(self, size_bytes: int) -> None:
        """A message came."""
        with self._lock:
            self._received_bytes += size_bytes

    def check(self) -> None:
        """Before a call, and after each message of a long one; only from the thread that opened the store.

        Raises:
            DeclinedError: the night's limit is reached.
        """
        if self._sent_bytes + self._received_bytes >= STEP_BYTES:
            self.settle()
        if not self._limit_bytes:
            return
        used = self._traffic.of(night_of(clock.now())).total_bytes + self._sent_bytes + self._received_bytes
        if used >= self._limit_bytes:
            raise DeclinedError(
                f"not now: this night has used {used / 2**20:.1f} of {self._limit_bytes / 2**20:.0f} MiB "
                "(conditions.nightly_limit_mb); what came is kept, it goes on after noon"
            )

    def settle(self) -> None:
        """Write what was counted to the store; only from the thread that opened it."""
        with self._lock:
            sent, received = self._sent_bytes, self._received_bytes
            self._sent_bytes = self._received_bytes = 0
        if sent or received:
            self._traffic.add(night_of(clock.now()), sent_bytes=sent, received_bytes=received)


class MeteredChannel:
    """What generated stubs need of a channel, with every message counted.

    Args:
        channel: a `grpc.Channel`.
        meter: told.
    """

    def __init__(self, channel: Any, meter: Meter) -> None:
        self._channel = channel
        self._meter = meter

    def unary_unary(self, method: str, **options: Any) -> Any:
        """One message there, one back."""
        return self._channel.unary_unary(method, **self._counted(options))

    def unary_stream(self, method: str, **options: Any) -> Any:
        """One message there, many back."""
        return self._channel.unary_stream(method, **self._counted(options))

    def stream_unary(self, method: str, **options: Any) -> Any:
        """Many messages there, one back."""
        return self._channel.stream_unary(method, **self._counted(options))

    def _counted(self, options: dict[str, Any]) -> dict[str, Any]:
        write: Callable[[Any], bytes] = options["request_serializer"]
        read: Callable[[bytes], Any] = options["response_deserializer"]

        def serialise(message: Any) -> bytes:
            data = write(message)
            self._meter.sent(len(data))
            return data

        def deserialise(data: bytes) -> Any:
            self._meter.received(len(data))
            return read(data)

        return {**options, "request_serializer": serialise, "response_deserializer": deserialise}
