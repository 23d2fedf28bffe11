"""The device listener: mutual TLS; every call starts with who is calling and what is due."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import grpc

from coordinator.aggregation import answers, bundles, erasures, refusals, uploads
from coordinator.deployment import Deployment
from coordinator.diagnostics import log, short
from coordinator.enrolment import clones, renewal
from coordinator.enrolment.devices import (
    CLONED,
    MAX_NAME_CHARACTERS,
    checked_in,
    checking_in,
    printable,
    require_enrolled,
)
from coordinator.log import entries as log_entries
from coordinator.metrics import CallMetrics
from coordinator.releases import repository
from coordinator.rounds import offers, prekeys
from coordinator.rounds.advance import Cadence, advance
from coordinator.rounds.bulletin import Board
from coordinator.rounds.night_hours import NightHours
from coordinator.rounds.pace import next_check_in
from coordinator.rounds.personal import personal
from coordinator.service.errors import guarded_call
from coordinator.service.peers import caller
from coordinator.service.versions import negotiate
from coordinator.storage import artefacts
from coordinator.storage.rows import Device
from nightshift.host.clock import now_unix_s
from nightshift.host.failpoints import failpoint
from nightshift.host.rpc import CHUNK_BYTES
from nightshift.protocol.errors import ClonedIdentityError, MalformedError
from nightshift.protocol.secagg.member import Answer
from nightshift.v1 import device_pb2, device_pb2_grpc

MAX_DECLINED_TASKS = 64
LOG_ENTRIES_AT_ONCE = 512
"""At most 4 KiB each, so that a piece of the log stays below the largest message."""

# ruff: noqa: N802 - gRPC calls methods by the names of the proto


class DeviceServicer(device_pb2_grpc.DeviceServiceServicer):
    """All calls of a nightly pass."""

    def __init__(self, deployment: Deployment, metrics: CallMetrics | None = None) -> None:
        self._deployment = deployment
        self._cadence = Cadence(deployment)
        self._board = Board(deployment)
        self._metrics = metrics or CallMetrics()

    @guarded_call
    def CheckIn(self, request: device_pb2.CheckInRequest, context: grpc.ServicerContext) -> device_pb2.CheckInResponse:
        """Greet a device; see the proto."""
        identity = caller(context)
        night = NightHours.of(request)
        deployment = self._deployment
        now = now_unix_s()
        with deployment.database.transaction() as session:
            device = checking_in(session, identity)
            version = negotiate(request.protocol_version_min, request.protocol_version_max)
            if len(request.without_tasks) > MAX_DECLINED_TASKS:
                raise MalformedError(
                    f"{len(request.without_tasks)} tasks are declined in one check-in, at most {MAX_DECLINED_TASKS} "
                    "are read"
                )
            known = clones.recognise(
                device,
                presented=request.last_nonce,
                proposed=request.next_nonce,
                epoch=request.epoch,
                now_unix_s=now,
            )
            if known:
                device.last_seen_unix_s = now
                device.client_version = printable(request.client_version, MAX_NAME_CHARACTERS)
                device.rank_limit = request.rank_limit
                prekeys.receive(
                    session,
                    device,
                    epoch=request.epoch,
                    published=request.prekeys,
                    limit=deployment.configuration.limits.prekeys_per_device,
                    now_unix_s=now,
                )
            checked_in(session, device)
        if not known:
            # Only now: that the device is held must stay when its check-in is refused.
            log.warning("identity in use twice; held", device=short(identity))
            raise ClonedIdentityError(CLONED)
        failpoint("coordinator.check-in.durable")
        if request.prekeys:
            self._cadence.something_happened()  # the pool has grown: it may suffice for a round now
        self._cadence.advance()
        return self._greeting(device, request, version, night)

    def _greeting(
        self, device: Device, request: device_pb2.CheckInRequest, version: int, night: NightHours | None
    ) -> device_pb2.CheckInResponse:
        now = now_unix_s()
        with self._deployment.database.reading() as session:
            bulletin = self._board.read(session)
            if request.log_size > bulletin.snapshot.size:
                log.warning(
                    "a device saw more of the log than there is; was an older backup restored?",
                    device=short(device.device_id),
                    saw=request.log_size,
                    has=bulletin.snapshot.size,
                )
            own = personal(session, bulletin.snapshot, device, now)
            places = offers.turns_for(session, bulletin.due, device, self._deployment.authority.root, now)
            cohort_id = None if request.no_plan else offers.cohort_for(places, without=request.without_tasks)
            reply = device_pb2.CheckInResponse(
                protocol_version=version,
                time_unix_s=now,
                consistency_path=bulletin.snapshot.consistency_path(request.log_size),
                duties=[device_pb2.Duty(cohort_id=each) for each in own.asked.duties],
                erasures=[device_pb2.Duty(cohort_id=each) for each in own.asked.to_erase],
                next_check_in=next_check_in(
                    bulletin.waits,
                    own.asked.to_come,
                    busy=bool(own.asked.duties or own.asked.to_erase or cohort_id),
                    night=night,
                    now_unix_s=now,
                ),
                prekeys_held=own.prekeys_held,
                voids=own.voids,
                turns=offers.announced(places),
            )
            reply.MergeFrom(bulletin.told)
            if cohort_id is not None:
                reply.MergeFrom(bulletin.with_plan(session, cohort_id))
            return reply

    @guarded_call
    def OpenUpload(
        self, request: device_pb2.OpenUploadRequest, context: grpc.ServicerContext
    ) -> device_pb2.OpenUploadResponse:
        """Announce a contribution; a complete one that was not yet counted is counted here."""
        device = self._device(context)
        advance(self._deployment)
        progress = uploads.announce(
            self._deployment,
            device,
            cohort_id=request.cohort_id,
            plan_hash=request.plan_hash,
            size_bytes=request.size_bytes,
            signature=request.signature,
            now_unix_s=now_unix_s(),
        )
        complete = progress.complete
        if not complete and progress.offset_bytes == request.size_bytes:
            # All bytes became durable before a crash: the device has nothing left to send.
            uploads.finish(self._deployment, device, request.cohort_id, now_unix_s())
            self._cadence.something_happened()
            complete = True
        return device_pb2.OpenUploadResponse(offset=progress.offset_bytes, complete=complete)

    @guarded_call
    def Upload(
        self, request_iterator: Iterator[device_pb2.UploadRequest], context: grpc.ServicerContext
    ) -> device_pb2.UploadResponse:
        """Take a contribution's bytes, for as long as one stream may last."""
        device = self._device(context)
        advance(self._deployment)
        first = next(request_iterator, None)
        if first is None:
            raise MalformedError("an upload stream begins with a message that names the cohort")
        with _time_limit(context, self._deployment.configuration.limits.upload_stream_s):
            receiver = uploads.Receiver(self._deployment, device.device_id, first.cohort_id, first.offset)
            before_bytes = receiver.offset_bytes
            try:
                if not receiver.complete:
                    _receive(receiver, first, request_iterator)
            finally:
                self._metrics.uploaded(receiver.offset_bytes - before_bytes)
            if not receiver.complete and receiver.everything_is_here:
                uploads.finish(self._deployment, device, first.cohort_id, now_unix_s())
                self._cadence.something_happened()
                receiver.complete = True
        return device_pb2.UploadResponse(offset=receiver.offset_bytes, complete=receiver.complete)

    @guarded_call
    def GetBundle(
        self, request: device_pb2.GetBundleRequest, context: grpc.ServicerContext
    ) -> Iterator[device_pb2.GetBundleResponse]:
        """Stream a member's work."""
        device = self._device(context)
        advance(self._deployment)
        yield from bundles.bundle(self._deployment, device, cohort_id=request.cohort_id, log_size=request.log_size)

    @guarded_call
    def Answer(self, request: device_pb2.AnswerRequest, context: grpc.ServicerContext) -> device_pb2.AnswerResponse:
        """Keep a member's answer; the T-th one opens the sum."""
        device = self._device(context)
        advance(self._deployment)
        now = now_unix_s()
        answers.receive(
            self._deployment,
            device,
            cohort_id=request.cohort_id,
            set_hash=request.set_hash,
            answer=Answer(request.index, request.vector, request.signature),
            now_unix_s=now,
        )
        advance(self._deployment)
        return device_pb2.AnswerResponse()

    @guarded_call
    def Refuse(self, request: device_pb2.RefuseRequest, context: grpc.ServicerContext) -> device_pb2.RefuseResponse:
        """Keep a member's word that it cannot use a contributor's share."""
        device = self._device(context)
        advance(self._deployment)
        refusals.receive(self._deployment, device, request, now_unix_s=now_unix_s())
        self._cadence.something_happened()
        return device_pb2.RefuseResponse()

    @guarded_call
    def GetVoid(self, request: device_pb2.GetVoidRequest, context: grpc.ServicerContext) -> device_pb2.GetVoidResponse:
        """Prove to a member that a cohort of its is void."""
        device = self._device(context)
        with self._deployment.database.reading() as session:
            snapshot = self._deployment.log.snapshot(session)
            return offers.void_for_member(session, snapshot, device, request.cohort_id, request.log_size)

    @guarded_call
    def StateErasure(
        self, request: device_pb2.StateErasureRequest, context: grpc.ServicerContext
    ) -> device_pb2.StateErasureResponse:
        """Keep a member's word that its prekey for a void cohort is gone."""
        erasures.receive(
            self._deployment,
            self._device(context),
            cohort_id=request.cohort_id,
            signature=request.signature,
            now_unix_s=now_unix_s(),
        )
        self._cadence.something_happened()
        return device_pb2.StateErasureResponse()

    @guarded_call
    def RenewCertificate(
        self, request: device_pb2.RenewCertificateRequest, context: grpc.ServicerContext
    ) -> device_pb2.RenewCertificateResponse:
        """Give an ageing device its next certificate."""
        deployment = self._deployment
        with deployment.database.transaction() as session:
            certificate = renewal.renew(
                session,
                deployment.authority,
                deployment.log,
                require_enrolled(session, caller(context)),
                request_der=request.certificate_request,
                now_unix_s=now_unix_s(),
            )
        failpoint("coordinator.renewal.committed")
        return device_pb2.RenewCertificateResponse(certificate=certificate)

    @guarded_call
    def GetReleaseMetadata(
        self, request: device_pb2.GetReleaseMetadataRequest, context: grpc.ServicerContext
    ) -> device_pb2.GetReleaseMetadataResponse:
        """Give out one file of the release metadata."""
        self._device(context)
        with self._deployment.database.reading() as session:
            document = repository.document(session, request.role, request.version)
        return device_pb2.GetReleaseMetadataResponse(document=document)

    @guarded_call
    def ReadLog(
        self, request: device_pb2.ReadLogRequest, context: grpc.ServicerContext
    ) -> Iterator[device_pb2.ReadLogResponse]:
        """Stream entries of the log."""
        self._device(context)
        with self._deployment.database.reading() as session:
            size = self._deployment.log.snapshot(session).size
        if not request.first <= request.end <= size:
            raise MalformedError(
                f"the log has {size} entries, those from {request.first} to {request.end} were asked for"
            )
        for first in range(request.first, request.end, LOG_ENTRIES_AT_ONCE):
            with self._deployment.database.reading() as session:
                found = log_entries(session, first, min(first + LOG_ENTRIES_AT_ONCE, request.end))
            yield device_pb2.ReadLogResponse(entries=found)

    @guarded_call
    def FetchArtefact(
        self, request: device_pb2.FetchArtefactRequest, context: grpc.ServicerContext
    ) -> Iterator[device_pb2.FetchArtefactResponse]:
        """Stream a file by its hash."""
        self._device(context)
        with self._deployment.database.reading() as session:
            artefact = artefacts.find(session, request.sha256)
        if request.offset > artefact.size_bytes:
            raise MalformedError(f"the artefact has {artefact.size_bytes} bytes, {request.offset} is beyond its end")
        size_bytes = artefact.size_bytes
        for data in artefacts.chunks(self._deployment.objects, artefact, request.offset):
            yield device_pb2.FetchArtefactResponse(size_bytes=size_bytes, data=data)
            self._metrics.downloaded(len(data))
            size_bytes = 0  # only the first message states it
        if size_bytes:
            yield device_pb2.FetchArtefactResponse(size_bytes=size_bytes)

    def _device(self, context: grpc.ServicerContext) -> Device:
        with self._deployment.database.reading() as session:
            return require_enrolled(session, caller(context))


def _receive(
    receiver: uploads.Receiver,
    first: device_pb2.UploadRequest,
    rest: Iterator[device_pb2.UploadRequest],
) -> None:
    """Take a stream's messages; what came before it broke off stays durable."""
    try:
        receiver.take(_checked(first.data))
        for message in rest:
            receiver.take(_checked(message.data))
    finally:
        receiver.flush()


def _checked(data: bytes) -> bytes:
    if len(data) > CHUNK_BYTES:
        raise MalformedError(f"a piece of an upload may have {CHUNK_BYTES} bytes, got {len(data)}")
    return data


class _time_limit:  # noqa: N801 - reads as a statement, like contextlib's own
    """Cancels a call that is still running after so many seconds, so that a trickle cannot hold a thread."""

    def __init__(self, context: grpc.ServicerContext, limit_s: float) -> None:
        self._timer = threading.Timer(limit_s, context.cancel)

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
