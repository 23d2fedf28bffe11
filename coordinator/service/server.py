"""Both listeners, and the life of the serving process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc

from coordinator.configuration import join_host_port
from coordinator.deployment import Deployment
from coordinator.diagnostics import log
from coordinator.enrolment.addresses import record_addresses
from coordinator.enrolment.authority import INTERMEDIATE_WARNING_DAYS
from coordinator.rounds.advance import Ticker
from coordinator.service.device import DeviceServicer
from coordinator.service.interceptors import Gate, certificate_of, network_of
from coordinator.service.join import JoinServicer
from coordinator.service.limits import CallsUnderWay, TokenBuckets
from coordinator.service.tls import CurrentCertificate
from nightshift.host.clock import now_unix_s
from nightshift.host.files import exclusive_lock
from nightshift.host.rpc import JOIN_SERVER_OPTIONS, SERVER_OPTIONS
from nightshift.protocol.errors import UsageError
from nightshift.v1 import device_pb2_grpc, join_pb2_grpc

GRACE_S = 10.0
JOIN_THREADS = 4
_QUEUED_PER_THREAD = 4


@contextmanager
def serving(deployment: Deployment) -> Iterator[None]:
    """Serve both listeners for the length of a block, then finish the calls that are under way.

    Raises:
        BusyError: another process serves this directory.
        UsageError: a port is taken.
    """
    listen = deployment.configuration.listen
    with exclusive_lock(deployment.home.lock_file):
        with deployment.database.transaction() as session:
            record_addresses(session, deployment.configuration, now_unix_s())
        days = deployment.authority.intermediate_days_left(now_unix_s())
        if days < INTERMEDIATE_WARNING_DAYS:
            log.warning("the intermediate certificate ends soon; see: coordinator ca --help", days=days)
        join_server = _server(JOIN_THREADS, _join_gate(deployment), JOIN_SERVER_OPTIONS)
        join_pb2_grpc.add_JoinServiceServicer_to_server(JoinServicer(deployment), join_server)  # type: ignore[no-untyped-call]  # generated
        join_tls = CurrentCertificate(deployment, mutual=False)
        _bind(join_server, listen.host, listen.join_port, join_tls.credentials(), "join_port")
        device_server = _server(listen.threads, _device_gate(deployment), SERVER_OPTIONS)
        device_pb2_grpc.add_DeviceServiceServicer_to_server(DeviceServicer(deployment), device_server)  # type: ignore[no-untyped-call]  # generated
        device_tls = CurrentCertificate(deployment, mutual=True)
        _bind(device_server, listen.host, listen.port, device_tls.credentials(), "port")
        ticker = Ticker(deployment)
        join_server.start()
        device_server.start()
        ticker.start()
        try:
            yield
        finally:
            stopped = [server.stop(GRACE_S) for server in (join_server, device_server)]
            for event in stopped:
                event.wait()
            ticker.stop()
            log.info("stopped")


class EndSignal:
    """From its making on, SIGTERM and SIGINT end the process in good order instead of at once."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._asked.set())

    def wait(self) -> None:
        """Return when the process was asked to end."""
        self._asked.wait()


def _device_gate(deployment: Deployment) -> Gate:
    limits = deployment.configuration.limits
    return Gate(
        key_of=certificate_of,
        who="device",
        buckets=TokenBuckets(per_minute=limits.calls_per_minute, burst=limits.calls_burst),
        under_way=CallsUnderWay(limits.calls_at_once),
        download_s=limits.download_stream_s,
    )


def _join_gate(deployment: Deployment) -> Gate:
    limits = deployment.configuration.limits
    return Gate(
        key_of=network_of,
        who="address",
        buckets=TokenBuckets(per_minute=limits.joins_per_minute, burst=limits.joins_burst),
        under_way=CallsUnderWay(JOIN_THREADS),
        download_s=limits.download_stream_s,
    )


def _server(threads: int, gate: Gate, options: list[tuple[str, int]]) -> grpc.Server:
    return grpc.server(
        ThreadPoolExecutor(threads, thread_name_prefix="call"),
        interceptors=[gate],
        options=options,
        maximum_concurrent_rpcs=threads * _QUEUED_PER_THREAD,
    )


def _bind(server: grpc.Server, host: str, port: int, credentials: grpc.ServerCredentials, key: str) -> None:
    address = join_host_port(host, port)
    try:
        bound = server.add_secure_port(address, credentials)
    except RuntimeError:
        bound = 0
    if bound == 0:
        raise UsageError(
            f"port {port} on {host} cannot be used: another program listens there, or it is not permitted; "
            f"stop that program, or change {key} in coordinator.toml"
        )
