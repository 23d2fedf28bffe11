"""The three listeners: for enrolled devices, for devices that join, for operators.

Each asks its callers for something else: a certificate below the devices'
root, none, or one of the admin authority. On top of TLS come measuring, who
may call how often, and for operators whether they still may.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from coordinator.admin.authority import AdminAuthority
from coordinator.configuration import join_host_port
from coordinator.deployment import Deployment
from coordinator.metrics import CallMetrics
from coordinator.service import admin
from coordinator.service.device import DeviceServicer
from coordinator.service.interceptors import Around, Gate, certificate_of, network_of
from coordinator.service.join import JoinServicer
from coordinator.service.limits import CallsUnderWay, TokenBuckets
from coordinator.service.measuring import Measured
from coordinator.service.shedding import CallThreads, Shedding
from coordinator.service.tls import CurrentCertificate
from nightshift.host.rpc import JOIN_SERVER_OPTIONS, SERVER_OPTIONS
from nightshift.protocol.errors import UsageError
from nightshift.v1 import device_pb2_grpc, join_pb2_grpc

DEVICE_SERVICE = "nightshift.v1.DeviceService"
JOIN_THREADS = 4
ADMIN_THREADS = 8
ADMIN_CALLS_PER_MINUTE = 600
_AT_ONCE_PER_THREAD = 32
"""Calls at once, those included that are just being turned away (`coordinator.service.shedding`): more get no word."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A bound port, not yet answering.

    Attributes:
        server: gRPC's.
        threads: that run its calls.
        shedding: turns away what would wait too long.
        health: says whether it serves; None where strangers call.
    """

    server: grpc.Server
    threads: CallThreads
    shedding: Shedding
    health: health.HealthServicer | None = None

    def start(self) -> None:
        """Answer."""
        self.server.start()

    def refuse(self) -> None:
        """Say that this one is about to end, to whoever watches its health."""
        if self.health is not None:
            self.health.enter_graceful_shutdown()

    def close(self) -> None:
        """Wait for the threads of a stopped server: a call that was cut still has to make durable what came of it."""
        self.threads.shutdown(wait=True)
        self.shedding.close()


def device_listener(deployment: Deployment, metrics: CallMetrics) -> Listener:
    """For enrolled devices.

    Raises:
        UsageError: the port is taken.
    """
    listen, limits = deployment.configuration.listen, deployment.configuration.limits
    gate = Gate(
        key_of=certificate_of,
        who="device",
        buckets=TokenBuckets(per_minute=limits.calls_per_minute, burst=limits.calls_burst),
        under_way=CallsUnderWay(limits.calls_at_once),
        download_s=limits.download_stream_s,
    )
    made = _made("device", listen.threads, metrics, [gate], SERVER_OPTIONS)
    device_pb2_grpc.add_DeviceServiceServicer_to_server(DeviceServicer(deployment, metrics), made.server)  # type: ignore[no-untyped-call]  # generated
    tls = CurrentCertificate(deployment, clients_pem=deployment.authority.root_pem)
    _bind(made.server, listen.host, listen.port, tls, "port")
    return replace(made, health=_health(made.server, DEVICE_SERVICE))


def join_listener(deployment: Deployment, metrics: CallMetrics) -> Listener:
    """For devices without a valid certificate.

    Raises:
        UsageError: the port is taken.
    """
    listen, limits = deployment.configuration.listen, deployment.configuration.limits
    gate = Gate(
        key_of=network_of,
        who="address",
        buckets=TokenBuckets(per_minute=limits.joins_per_minute, burst=limits.joins_burst),
        under_way=CallsUnderWay(JOIN_THREADS),
        download_s=limits.download_stream_s,
    )
    made = _made("join", JOIN_THREADS, metrics, [gate], JOIN_SERVER_OPTIONS)
    join_pb2_grpc.add_JoinServiceServicer_to_server(JoinServicer(deployment), made.server)  # type: ignore[no-untyped-call]  # generated
    _bind(made.server, listen.host, listen.join_port, CurrentCertificate(deployment, clients_pem=None), "join_port")
    return made


def admin_listener(deployment: Deployment, metrics: CallMetrics, long_answers: admin.LongAnswers) -> Listener:
    """For operators.

    Raises:
        UsageError: the port is taken, or the admin authority is missing.
    """
    listen = deployment.configuration.listen
    gate = Gate(
        key_of=certificate_of,
        who="operator",
        buckets=TokenBuckets(per_minute=ADMIN_CALLS_PER_MINUTE, burst=ADMIN_CALLS_PER_MINUTE),
        under_way=CallsUnderWay(ADMIN_THREADS // 2),
        download_s=deployment.configuration.limits.download_stream_s,
    )
    made = _made("admin", ADMIN_THREADS, metrics, [gate, admin.Authorised(deployment)], SERVER_OPTIONS)
    admin.add_to_server(made.server, deployment, long_answers)
    authority = AdminAuthority.load(deployment.home.keys_directory)
    tls = CurrentCertificate(deployment, clients_pem=authority.certificate_pem)
    _bind(made.server, listen.admin_host, listen.admin_port, tls, "admin_port")
    return replace(made, health=_health(made.server, admin.SERVICE.full_name))


def _made(
    name: str, count: int, metrics: CallMetrics, around: Sequence[Around], options: list[tuple[str, int]]
) -> Listener:
    threads = CallThreads(count)
    shedding = Shedding(threads, metrics=metrics, listener=name)
    server = grpc.server(
        threads,
        interceptors=[shedding, Measured(metrics, name), *around],
        options=options,
        maximum_concurrent_rpcs=count * _AT_ONCE_PER_THREAD,
    )
    return Listener(server, threads, shedding)


def _health(server: grpc.Server, service: str) -> health.HealthServicer:
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    for name in (health.OVERALL_HEALTH, service):
        servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    return servicer


def _bind(server: grpc.Server, host: str, port: int, tls: CurrentCertificate, key: str) -> None:
    try:
        bound = server.add_secure_port(join_host_port(host, port), tls.credentials())
    except RuntimeError:
        bound = 0
    if bound == 0:
        raise UsageError(
            f"port {port} on {host} cannot be used: another program listens there, or it is not permitted; "
            f"stop that program, or change {key} in coordinator.toml"
        )
