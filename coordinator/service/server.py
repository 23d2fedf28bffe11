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
from coordinator.rounds.advance import Ticker
from coordinator.service.device import DeviceServicer
from coordinator.service.join import JoinServicer
from nightshift.host.clock import now_unix_s
from nightshift.host.files import exclusive_lock
from nightshift.host.rpc import SERVER_OPTIONS
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
    credentials = deployment.authority.server_credentials(listen.addresses, now_unix_s())
    pair = [(credentials.key_pem, credentials.chain_pem)]
    root = deployment.authority.root_pem
    with exclusive_lock(deployment.home.lock_file):
        with deployment.database.transaction() as session:
            record_addresses(session, deployment.configuration, now_unix_s())
        join_server = _server(JOIN_THREADS)
        join_pb2_grpc.add_JoinServiceServicer_to_server(JoinServicer(deployment), join_server)  # type: ignore[no-untyped-call]  # generated
        _bind(join_server, listen.host, listen.join_port, grpc.ssl_server_credentials(pair), "join_port")
        device_server = _server(listen.threads)
        device_pb2_grpc.add_DeviceServiceServicer_to_server(DeviceServicer(deployment), device_server)  # type: ignore[no-untyped-call]  # generated
        mutual = grpc.ssl_server_credentials(pair, root_certificates=root, require_client_auth=True)
        _bind(device_server, listen.host, listen.port, mutual, "port")
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


def _server(threads: int) -> grpc.Server:
    return grpc.server(
        ThreadPoolExecutor(threads, thread_name_prefix="call"),
        options=SERVER_OPTIONS,
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
