"""Counting a contribution: verified, folded, and from that moment on a member of U.

The new running sum is a new object. One transaction makes it the cohort's sum
and marks the contribution counted, so that after a crash the sum holds exactly
the contributions that the rows call counted: never one less, never one twice.
"""

from __future__ import annotations

from sqlalchemy import delete

from coordinator.aggregation import places
from coordinator.aggregation.documents import document_of
from coordinator.deployment import Deployment
from coordinator.diagnostics import log, short
from coordinator.enrolment.devices import require_enrolled
from coordinator.rounds.states import Event, next_state
from coordinator.rounds.transitions import freeze
from coordinator.storage.rows import Cohort, Contribution, ContributionState, UploadPart
from nightshift.host.failpoints import failpoint
from nightshift.protocol.certificates import leaf_public_key
from nightshift.protocol.errors import (
    NightshiftError,
    NotFoundError,
    OverloadedError,
    StateConflictError,
    UnavailableError,
)
from nightshift.protocol.identity import DeviceId
from nightshift.protocol.plan import PlanDocument
from nightshift.protocol.secagg.contribution import Contribution as SecretContribution
from nightshift.protocol.secagg.contribution import verify_contribution
from nightshift.protocol.secagg.contributors import Contributor
from nightshift.protocol.upload import unpack

FOLD_ATTEMPTS = 8


def count(deployment: Deployment, cohort: Cohort, row: Contribution, body: bytes, now_unix_s: int) -> None:
    """Verify a complete contribution and fold it; freezes the cohort if that filled it.

    The caller holds the cohort's fold lock, which keeps this process's other uploads out. Where another process moved
    the sum on meanwhile, this contribution is folded again, onto what is there now.

    Raises:
        MalformedError, SignatureInvalidError: not a contribution to this plan by this device.
        StateConflictError: the cohort froze, or is full.
        RevokedError: the device was revoked while it sent.
        OverloadedError: other processes were faster every time; ask again.
        UnavailableError: a store does not answer. If it was the database, at the commit, the contribution may be
            counted: the rows will say.
    """
    document = document_of(cohort)
    contribution = unpack(document.parameters, document.vector.length, body)
    entry = _verified(document, cohort, row, contribution)
    sealed_key = places.sealed_key(cohort.cohort_id, row.device_id)
    deployment.objects.put(sealed_key, b"".join(contribution.sealed))
    full = None
    for _ in range(FOLD_ATTEMPTS):
        running_key = ""
        try:
            running_key = _fold(deployment, document, cohort, contribution)
            failpoint("coordinator.fold.before-commit")
            full = _commit(
                deployment,
                cohort,
                row,
                entry,
                sealed_key=sealed_key,
                running_key=running_key,
                now_unix_s=now_unix_s,
            )
            break
        except _SumMovedError:
            places.discard(deployment.objects, *filter(None, [running_key]))
            with deployment.database.reading() as session:
                cohort = session.get_one(Cohort, cohort.cohort_id)
        except UnavailableError:
            # The commit may have happened, and then the rows name these objects. If not, they are orphans.
            raise
        except BaseException:
            places.discard(deployment.objects, *filter(None, [sealed_key, running_key]))
            raise
    if full is None:
        places.discard(deployment.objects, sealed_key)
        raise OverloadedError("other contributions were counted at the same moment; send the last bytes again")
    failpoint("coordinator.upload.durable")
    if full:
        failpoint("coordinator.freeze.committed")
    if cohort.running_sum_key:
        places.discard(deployment.objects, cohort.running_sum_key)
    log.info("contribution counted", cohort=short(cohort.cohort_id), device=short(row.device_id), full=full)


def _fold(deployment: Deployment, document: PlanDocument, cohort: Cohort, contribution: SecretContribution) -> str:
    """Make the sum with this contribution durable as a new object; returns its key."""
    before = _running_sum(deployment, cohort) if cohort.running_sum_key else None
    after = deployment.compute.fold(document.parameters, document.vector.length, before, [contribution.ciphertext])
    key = places.running_key(cohort.cohort_id, cohort.counted + 1)
    deployment.objects.put(key, after)
    return key


def _running_sum(deployment: Deployment, cohort: Cohort) -> bytes:
    assert cohort.running_sum_key is not None, "the caller looked"
    try:
        return deployment.objects.get(cohort.running_sum_key)
    except NotFoundError as error:
        with deployment.database.reading() as session:
            present = session.get_one(Cohort, cohort.cohort_id)
        if present.running_sum_key != cohort.running_sum_key:
            raise _SumMovedError from None
        raise NightshiftError(
            f"the running sum of cohort {short(cohort.cohort_id)} is lost; end the cohort (coordinator round abort), "
            "and look what befell the object store"
        ) from error


class _SumMovedError(Exception):
    """Another process counted a contribution since the sum was read."""


def _verified(
    document: PlanDocument, cohort: Cohort, row: Contribution, contribution: SecretContribution
) -> Contributor:
    return verify_contribution(
        parameters=document.parameters,
        length=document.vector.length,
        plan_hash=cohort.plan_hash,
        sender=DeviceId(row.device_id),
        public_key=leaf_public_key(row.certificate),
        contribution=contribution,
    )


def _commit(
    deployment: Deployment,
    seen: Cohort,
    row: Contribution,
    entry: Contributor,
    *,
    sealed_key: str,
    running_key: str,
    now_unix_s: int,
) -> bool:
    """Mark counted and move the running sum on; returns whether the cohort is now full and frozen."""
    with deployment.database.transaction() as session:
        cohort = session.get_one(Cohort, seen.cohort_id)
        mine = session.get_one(Contribution, (row.cohort_id, row.device_id))
        cohort.state = next_state(cohort.state, Event.COUNT)
        if mine.state is not ContributionState.RECEIVING:
            raise StateConflictError("uploads of this cohort have ended; check in again for the next round")
        if cohort.running_sum_key != seen.running_sum_key:
            raise _SumMovedError
        # A stream outlives the check at its start: who was revoked meanwhile is not counted.
        require_enrolled(session, DeviceId(row.device_id))
        cohort.running_sum_key = running_key
        cohort.counted += 1
        mine.state = ContributionState.COUNTED
        mine.counted_unix_s = now_unix_s
        mine.sealed_key = sealed_key
        mine.ciphertext_tag = entry.ciphertext_tag
        mine.sealed_sha256 = b"".join(entry.sealed_sha256)
        parts = (UploadPart.cohort_id == row.cohort_id, UploadPart.device_id == row.device_id)
        session.execute(delete(UploadPart).where(*parts))
        session.flush()
        if cohort.counted >= cohort.n_max:
            freeze(session, deployment, cohort, now_unix_s)
            return True
    return False
