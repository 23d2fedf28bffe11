"""What a committee member needs to answer, streamed: the header, then an entry for each contributor."""

from __future__ import annotations

from collections.abc import Iterator

from coordinator.aggregation.documents import document_of
from coordinator.deployment import Deployment
from coordinator.rounds.seats import seat_of
from coordinator.rounds.transitions import contributor, counted
from coordinator.storage.rows import Cohort, CohortState, Device
from nightshift.host.failpoints import failpoint
from nightshift.protocol.errors import StateConflictError
from nightshift.v1 import device_pb2


def bundle(
    deployment: Deployment, device: Device, *, cohort_id: bytes, log_size: int
) -> Iterator[device_pb2.GetBundleResponse]:
    """The parts of a member's bundle.

    Raises:
        NotFoundError: the device is no member of such a cohort.
        StateConflictError: the cohort is not waiting for answers.
    """
    with deployment.database.reading() as session:
        seat = seat_of(session, cohort_id, device.device_id)
        cohort = session.get_one(Cohort, cohort_id)
        if cohort.state is not CohortState.FROZEN or cohort.set_hash is None or cohort.set_position is None:
            raise StateConflictError(f"the cohort is {cohort.state.value}; it does not wait for answers")
        snapshot = deployment.log.snapshot(session)
        rows = counted(session, cohort)
        header = device_pb2.BundleHeader(
            plan=cohort.plan,
            signature=cohort.plan_signature,
            plan_proof=snapshot.proof(session, cohort.plan_position),
            set_hash=cohort.set_hash,
            set_proof=snapshot.proof(session, cohort.set_position),
            checkpoint=snapshot.checkpoint(),
            consistency_path=snapshot.consistency_path(log_size),
            contributors=len(rows),
        )
        enrolments = [snapshot.proof(session, row.certificate_position) for row in rows]
    yield device_pb2.GetBundleResponse(header=header)
    sealed_bytes = document_of(cohort).parameters.sealed_share_bytes
    for row, enrolment in zip(rows, enrolments, strict=True):
        failpoint("coordinator.bundle.streaming")
        assert row.sealed_key is not None, "a counted contribution has its sealed shares"
        sealed = deployment.objects.get_range(row.sealed_key, (seat.member_index - 1) * sealed_bytes, sealed_bytes)
        entry = contributor(row)
        yield device_pb2.GetBundleResponse(
            entry=device_pb2.BundleEntry(
                certificate=row.certificate,
                ciphertext_tag=entry.ciphertext_tag,
                sealed_sha256=entry.sealed_sha256,
                sealed=sealed,
                signature=row.signature,
                enrolment=enrolment,
            )
        )
