"""Counts and times every call that a thread takes, those that a limit turned away included."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc

from coordinator.metrics import CallMetrics
from coordinator.service.interceptors import Around


@dataclass(frozen=True)
class Measured(Around):
    """The outermost layer around a call.

    Attributes:
        metrics: take what is measured.
        listener: "device", "join" or "admin".
    """

    metrics: CallMetrics
    listener: str

    @contextmanager
    def around(self, method: str, context: grpc.ServicerContext, *, streams: bool) -> Iterator[None]:  # noqa: ARG002 - all alike
        """Measure from admission to the last reply."""
        name = method.rpartition("/")[2]
        begun_s = time.monotonic()
        code = "CANCELLED"
        self.metrics.begin(self.listener)
        try:
            yield
            code = "OK"
        except Exception:
            code = _code(context)
            raise
        finally:
            self.metrics.end(self.listener, name, code, time.monotonic() - begun_s)


def _code(context: grpc.ServicerContext) -> str:
    """What the call was ended with; a caller that left sets none."""
    code = context.code()  # type: ignore[attr-defined]  # the stubs know only the client's
    return code.name if isinstance(code, grpc.StatusCode) else "CANCELLED"
