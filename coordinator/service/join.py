"""The join listener: server TLS only, for devices that have no valid certificate."""

from __future__ import annotations

import grpc

from coordinator.deployment import Deployment
from coordinator.diagnostics import log, short
from coordinator.enrolment import renewal
from coordinator.enrolment.devices import enrol
from coordinator.releases.repository import current_root
from coordinator.service.errors import guarded_call
from coordinator.service.versions import negotiate
from nightshift.host.clock import now_unix_s
from nightshift.host.failpoints import failpoint
from nightshift.protocol.targets import sign_release_root
from nightshift.v1 import join_pb2, join_pb2_grpc

# ruff: noqa: N802 - gRPC calls methods by the names of the proto


class JoinServicer(join_pb2_grpc.JoinServiceServicer):
    """Trades tokens for certificates, and renews expired ones."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment

    @guarded_call
    def Join(self, request: join_pb2.JoinRequest, context: grpc.ServicerContext) -> join_pb2.JoinResponse:  # noqa: ARG002 - gRPC's shape
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
            release_root = current_root(session)
        failpoint("coordinator.join.committed")
        log.info("device enrolled", device=short(device.device_id), name=device.name)
        return join_pb2.JoinResponse(
            certificate=device.certificate,
            signing_certificate=deployment.authority.signing_certificate_der,
            log_origin=deployment.log.origin,
            protocol_version=version,
            release_root=release_root,
            release_root_signature=sign_release_root(release_root, deployment.authority.sign),
        )

    @guarded_call
    def BeginRenewal(
        self,
        request: join_pb2.BeginRenewalRequest,
        context: grpc.ServicerContext,  # noqa: ARG002 - gRPC's shape
    ) -> join_pb2.BeginRenewalResponse:
        """Challenge a device that says its certificate has expired."""
        return renewal.begin_late(self._deployment.authority, request.device_id, now_unix_s())

    @guarded_call
    def EndRenewal(
        self,
        request: join_pb2.EndRenewalRequest,
        context: grpc.ServicerContext,  # noqa: ARG002 - gRPC's shape
    ) -> join_pb2.EndRenewalResponse:
        """Renew, for whoever proved to hold the enrolled key."""
        deployment = self._deployment
        with deployment.database.transaction() as session:
            device = renewal.end_late(
                session,
                deployment.authority,
                deployment.log,
                request=request,
                grace_s=deployment.configuration.certificates.late_renewal_days * 86_400,
                now_unix_s=now_unix_s(),
            )
        failpoint("coordinator.late-renewal.committed")
        log.info("certificate renewed late", device=short(device.device_id))
        return join_pb2.EndRenewalResponse(certificate=device.certificate)
