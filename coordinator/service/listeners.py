"""The three listeners: for enrolled devices, for devices that join, for operators.

Each asks its callers for something else: a certificate below the devices'
root, none, or one of the admin authority. On top of TLS come measuring, who
may call how often, and for operators whether they still may.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

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
from coordinator.service.tls import CurrentCertificate
from nightshift.host.rpc import JOIN_SERVER_OPTIONS, SERVER_OPTIONS
from nightshift.protocol.errors import UsageError
from nightshift.v1 import device_pb2_grpc, join_pb2_grpc

DEVICE_SERVICE = "nightshift.v1.DeviceService"
JOIN_THREADS = 4
ADMIN_THREADS = 8
ADMIN_CALLS_PER_MINUTE = 600
_QUEUED_PER_THREAD = 4


@dataclass(frozen=True, slots=True)
class Listener:
    """A bound port, not yet answering.

    Attributes:
        server: gRPC's.
        threads: that run its calls.
        health: says whether it serves; None where strangers call.
    """

    server: grpc.Server
    threads: ThreadPoolExecutor
    health: health.HealthServicer | None = None

    def start(self) -> None:
        """Answer."""
        self.server.start()

    def refuse(self) -> None:
        """Say that this one is about to end, to whoever watches its health."""
        if self.health is not None:
            self.health.enter_graceful_shutdown()


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
    server, threads = _server(listen.threads, [Measured(metrics, "device"), gate], SERVER_OPTIONS)
    device_pb2_grpc.add_DeviceServiceServicer_to_server(DeviceServicer(deployment, metrics), server)  # type: ignore[no-untyped-call]  # generated
    tls = CurrentCertificate(deployment, clients_pem=deployment.authority.root_pem)
    _bind(server, listen.host, listen.port, tls, "port")
    return Listener(server, threads, _health(server, DEVICE_SERVICE))


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
    server, threads = _server(JOIN_THREADS, [Measured(metrics, "join"), gate], JOIN_SERVER_OPTIONS)
    join_pb2_grpc.add_JoinServiceServicer_to_server(JoinServicer(deployment), server)  # type: ignore[no-untyped-call]  # generated
    _bind(server, listen.host, listen.join_port, CurrentCertificate(deployment, clients_pem=None), "join_port")
    return Listener(server, threads)


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
    around = [Measured(metrics, "admin"), gate, admin.Authorised(deployment)]
    server, threads = _server(ADMIN_THREADS, around, SERVER_OPTIONS)
    admin.add_to_server(server, deployment, long_answers)
    authority = AdminAuthority.load(deployment.home.keys_directory)
    tls = CurrentCertificate(deployment, clients_pem=authority.certificate_pem)
    _bind(server, listen.admin_host, listen.admin_port, tls, "admin_port")
    return Listener(server, threads, _health(server, admin.SERVICE.full_name))


def _server(
    threads: int, interceptors: Sequence[Around], options: list[tuple[str, int]]
) -> tuple[grpc.Server, ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(threads, thread_name_prefix="call")
    server = grpc.server(
        pool, interceptors=list(interceptors), options=options, maximum_concurrent_rpcs=threads * _QUEUED_PER_THREAD
    )
    return server, pool


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
