"""The certificate that the listeners present, renewed while they serve."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import grpc

from coordinator.deployment import Deployment
from coordinator.diagnostics import log
from coordinator.enrolment.authority import Authority, ServerCredentials
from nightshift.host.clock import now_unix_s
from nightshift.protocol.errors import NightshiftError

LOOK_EVERY_S = 60.0


class CurrentCertificate:
    """Asked by gRPC before each handshake whether the server's certificate changed.

    It does when it ages, and when an operator made a new one (`coordinator ca
    issue-server`) or a new intermediate. The files are looked at once a minute.

    Args:
        deployment: has the keys directory and the addresses.
        clients_pem: what peers' certificates must stand below; None asks them for none.
        monotonic: seconds that only grow; for tests.
    """

    def __init__(
        self, deployment: Deployment, *, clients_pem: bytes | None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._deployment = deployment
        self._clients_pem = clients_pem
        self._monotonic = monotonic
        self._guard = threading.Lock()
        self._looked_s = monotonic()
        self._present = self._read()

    def credentials(self) -> grpc.ServerCredentials:
        """For a listener."""
        return grpc.dynamic_ssl_server_credentials(
            self._configuration(self._present),
            self,  # type: ignore[arg-type]  # the stub forgets that None means no change
            require_client_authentication=self._clients_pem is not None,
        )

    def __call__(self) -> grpc.ServerCertificateConfiguration | None:
        """What the next handshake should use; None for no change."""
        with self._guard:
            now_s = self._monotonic()
            if now_s - self._looked_s < LOOK_EVERY_S:
                return None
            self._looked_s = now_s
            try:
                found = self._read()
            except (NightshiftError, OSError) as error:
                # The present one may serve for weeks; a handshake is no place to fail for this.
                log.error("server certificate could not be renewed", reason=str(error))
                return None
            if found == self._present:
                return None
            self._present = found
        log.info("server certificate changed")
        return self._configuration(found)

    def _read(self) -> ServerCredentials:
        authority = Authority.load(self._deployment.authority.directory)
        return authority.server_credentials(self._deployment.configuration.listen.addresses, now_unix_s())

    def _configuration(self, credentials: ServerCredentials) -> grpc.ServerCertificateConfiguration:
        pair = [(credentials.key_pem, credentials.chain_pem)]
        return grpc.ssl_server_certificate_configuration(pair, root_certificates=self._clients_pem)
