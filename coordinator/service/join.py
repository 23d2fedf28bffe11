"""The join listener: server TLS only, one call."""

from __future__ import annotations

import grpc

from coordinator.deployment import Deployment
from coordinator.diagnostics import log, short
from coordinator.enrolment.devices import enrol
from coordinator.service.errors import guarded_call
from coordinator.service.versions import negotiate
from nightshift.host.clock import now_unix_s
from nightshift.host.failpoints import failpoint
from nightshift.v1 import join_pb2, join_pb2_grpc


class JoinServicer(join_pb2_grpc.JoinServiceServicer):
    """Trades tokens for certificates."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment

    @guarded_call
    def Join(self, request: join_pb2.JoinRequest, context: grpc.ServicerContext) -> join_pb2.JoinResponse:  # noqa: N802, ARG002 - the proto's name and shape
        """Enrol a device; see `coordinator.enrolment.devices.enrol`."""
        deployment = self._deployment
        version = negotiate(request.protocol_version_min, request.protocol_version_max)
        with deployment.database.transaction() as session:
            device = enrol(
                session,
                deployment.authority,
                deployment.log,
                secret=request.token_secret,
                request_der=request.certificate_request,
                name=request.device_name,
                client_version=request.client_version,
                now_unix_s=now_unix_s(),
            )
        failpoint("coordinator.join.committed")
        log.info("device enrolled", device=short(device.device_id), name=device.name)
        return join_pb2.JoinResponse(
            certificate=device.certificate,
            signing_certificate=deployment.authority.signing_certificate_der,
            log_origin=deployment.log.origin,
            protocol_version=version,
        )
