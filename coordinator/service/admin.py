"""The admin listener: every verb of `coordinator.admin.verbs`, for whoever holds an operator's certificate."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc_reflection.v1alpha import reflection

from coordinator.admin import admins
from coordinator.admin.operator import Operator
from coordinator.admin.verbs import VERBS, Verb
from coordinator.audit import acting_as
from coordinator.deployment import Deployment
from coordinator.diagnostics import log
from coordinator.service.errors import operators_call
from coordinator.service.interceptors import Around
from coordinator.service.peers import caller
from coordinator.storage.rows import AdminRole, AdminRow
from nightshift.admin.v1 import admin_pb2
from nightshift.host.clock import now_unix_s
from nightshift.host.rpc import abort
from nightshift.protocol.errors import NightshiftError, RevokedError

SERVICE = admin_pb2.DESCRIPTOR.services_by_name["AdminService"]


@dataclass(frozen=True)
class Authorised(Around):
    """Looks the caller up at every call, reflection and health included; what it changes bears its name."""

    deployment: Deployment

    @contextmanager
    def around(self, method: str, context: grpc.ServicerContext, *, streams: bool) -> Iterator[None]:  # noqa: ARG002 - one and many alike
        """Let operators through, and viewers to what changes nothing."""
        try:
            row = self._recognised(context)
            name = method.rpartition("/")[2] if method.startswith(f"/{SERVICE.full_name}/") else ""
            changes = name in VERBS and VERBS[name].changes
            if changes and row.role is not AdminRole.OPERATOR:
                raise RevokedError(f"the admin certificate of {row.name} is for viewing; an operator's is needed")
        except NightshiftError as error:
            log.warning("operator refused", call=method, reason=str(error))
            abort(context, error)
        if changes:
            log.info("operator", name=row.name, call=name)
        with acting_as(f"admin {row.name}"):
            yield

    def _recognised(self, context: grpc.ServicerContext) -> AdminRow:
        identity, now = caller(context), now_unix_s()
        with self.deployment.database.reading() as session:
            row = admins.recognise(session, identity, now)
        if row.last_seen_unix_s is None or now - row.last_seen_unix_s >= admins.SEEN_EVERY_S:
            with self.deployment.database.transaction() as session:
                session.get_one(AdminRow, identity).last_seen_unix_s = now
        return row


@dataclass(frozen=True, slots=True)
class LongAnswers:
    """The streams under way, so that the service need not wait for whoever watches when it ends."""

    _leaving: weakref.WeakSet[threading.Event] = field(default_factory=weakref.WeakSet)

    def begin(self, context: grpc.ServicerContext) -> threading.Event:
        """An event that is set when the caller is gone, or the service ends."""
        leaving = threading.Event()
        self._leaving.add(leaving)
        if not context.add_callback(leaving.set):
            leaving.set()
        return leaving

    def end(self) -> None:
        """Let all of them end."""
        for leaving in list(self._leaving):
            leaving.set()


def add_to_server(server: grpc.Server, deployment: Deployment, long_answers: LongAnswers) -> None:
    """Serve the verbs, and reflection of their protos."""
    handlers = {
        method.name: _handler(_Call(deployment, VERBS[method.name], long_answers), method) for method in SERVICE.methods
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE.full_name, handlers),))
    reflection.enable_server_reflection((SERVICE.full_name, reflection.SERVICE_NAME), server)


@dataclass(frozen=True, slots=True)
class _Call:
    """One verb as gRPC calls it."""

    deployment: Deployment
    verb: Verb
    long_answers: LongAnswers

    @operators_call
    def once(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: ARG002 - gRPC's shape
        """One reply, to one request or a stream of them."""
        return self.verb.function(Operator(self.deployment), request)

    @operators_call
    def many(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        """A stream of replies."""
        yield from self.verb.function(Operator(self.deployment, self.long_answers.begin(context)), request)


def _handler(call: _Call, method: Any) -> Any:
    request = getattr(admin_pb2, method.input_type.name)
    reply = getattr(admin_pb2, method.output_type.name)
    if method.server_streaming:
        return grpc.unary_stream_rpc_method_handler(call.many, request.FromString, reply.SerializeToString)
    make = grpc.stream_unary_rpc_method_handler if method.client_streaming else grpc.unary_unary_rpc_method_handler
    return make(call.once, request.FromString, reply.SerializeToString)
