"""From a complete contribution to a counted one, for all that wait for it at the same time.

A cohort's running sum is as large as a contribution. Contributions that are complete together are therefore folded
onto one reading of the sum, and counted by one transaction (`coordinator.aggregation.folding`); their bodies are
read one after the other, so that a group takes no more memory than one.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.orm import Session

from coordinator.aggregation import places
from coordinator.aggregation.documents import document_of
from coordinator.aggregation.folding import ENDED, Folded, SumMovedError, UncountableError, commit, fold
from coordinator.deployment import Deployment
from coordinator.diagnostics import log, short
from coordinator.storage.objects import Objects
from coordinator.storage.rows import Cohort, Contribution, ContributionState, UploadPart
from coordinator.together import Outcome
from nightshift.host.failpoints import failpoint
from nightshift.protocol.certificates import leaf_public_key
from nightshift.protocol.errors import (
    HashMismatchError,
    NightshiftError,
    NotFoundError,
    OverloadedError,
    RequestError,
    StateConflictError,
    UnavailableError,
    VerificationError,
)
from nightshift.protocol.identity import DeviceId
from nightshift.protocol.plan import PlanDocument
from nightshift.protocol.secagg.contribution import Contribution as SecretContribution
from nightshift.protocol.secagg.contribution import verify_contribution
from nightshift.protocol.upload import signature_of, unpack

FOLD_ATTEMPTS = 8


@dataclass(frozen=True, slots=True)
class _Arrival:
    """A contribution all of whose bytes are durable."""

    row: Contribution
    parts: Sequence[UploadPart]

    @property
    def device_id(self) -> DeviceId:
        return DeviceId(self.row.device_id)

    def body(self, objects: Objects) -> bytes:
        """All of its bytes, ending with the signature that was announced."""
        body = io.BytesIO()
        try:
            for part in self.parts:
                body.write(objects.get(part.object_key))
        except NotFoundError as error:
            raise OverloadedError("another process is taking this contribution; ask how it went") from error
        whole = body.getvalue()  # not a copy
        if signature_of(whole) != self.row.signature:
            raise HashMismatchError("the contribution does not end with the announced signature; send it again")
        return whole


@dataclass(slots=True)
class _Group:
    """Contributions that are folded together, and what became of each so far."""

    deployment: Deployment
    cohort: Cohort
    document: PlanDocument
    folded: list[Folded] = field(default_factory=list)
    outcomes: dict[bytes, Outcome] = field(default_factory=dict)

    def ciphertexts(self, arrivals: Sequence[_Arrival]) -> Iterator[memoryview | bytes]:
        """Those that pass their checks, one in memory at a time; whoever folds them must not keep them."""
        for arrival in arrivals:
            try:
                contribution = self._checked(arrival)
            except (VerificationError, RequestError) as error:
                self.refuse(arrival.device_id, error)
                continue
            except UnavailableError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever befalls one must not take the others with it
                self.outcomes[arrival.device_id] = error
                continue
            yield contribution.ciphertext
            del contribution

    def _checked(self, arrival: _Arrival) -> SecretContribution:
        """A contribution that its device signed; from here on its sealed shares are durable."""
        parameters, length = self.document.parameters, self.document.vector.length
        contribution = unpack(parameters, length, arrival.body(self.deployment.objects))
        entry = verify_contribution(
            parameters=parameters,
            length=length,
            plan_hash=self.cohort.plan_hash,
            sender=arrival.device_id,
            public_key=leaf_public_key(arrival.row.certificate),
            contribution=contribution,
        )
        sealed_key = places.sealed_key(self.cohort.cohort_id, arrival.device_id)
        self.deployment.objects.put(sealed_key, b"".join(contribution.sealed))
        self.folded.append(Folded(arrival.device_id, entry, sealed_key))
        return contribution

    def refuse(self, device_id: DeviceId, error: NightshiftError) -> None:
        """Erase what failed its checks; nothing of it was counted."""
        cohort_id = self.cohort.cohort_id
        log.warning("upload refused", cohort=short(cohort_id), device=short(device_id), reason=error.reason)
        with self.deployment.database.transaction() as session:
            session.execute(delete(UploadPart).where(*_parts_of(cohort_id, [device_id])))
            row = session.get(Contribution, (cohort_id, device_id))
            if row is not None and row.state is ContributionState.RECEIVING:
                session.delete(row)
        self.outcomes[device_id] = error


def count(deployment: Deployment, cohort_id: bytes, device_ids: Sequence[bytes], now_unix_s: int) -> list[Outcome]:
    """Verify complete contributions and fold them; freezes the cohort if they filled it.

    One thread of this process does so for a cohort at a time. Where another process moved the sum on meanwhile, the
    contributions are folded again, onto what is there now.

    Args:
        deployment: whose cohort.
        cohort_id: of an existing cohort.
        device_ids: whose contributions.
        now_unix_s: when.

    Returns:
        For each device None, if its contribution is counted, or why it is not:
        HashMismatchError: its bytes do not end with the announced signature.
        MalformedError, SignatureInvalidError: not a contribution to this plan by this device.
        StateConflictError: the cohort froze, or is full.
        RevokedError: the device was revoked while it sent.
        OverloadedError: other processes were faster every time; ask again.

    Raises:
        UnavailableError: a store does not answer. If it was the database, at the commit, contributions may be
            counted: the rows will say.
    """
    outcomes: dict[bytes, Outcome] = {}
    for _ in range(FOLD_ATTEMPTS):
        left = [device_id for device_id in dict.fromkeys(device_ids) if device_id not in outcomes]
        if not left:
            break
        outcomes |= _attempt(deployment, cohort_id, left, now_unix_s)
    late = OverloadedError("other contributions were counted at the same moment; send the last bytes again")
    return [outcomes.get(device_id, late) for device_id in device_ids]


def _attempt(
    deployment: Deployment, cohort_id: bytes, device_ids: Sequence[bytes], now_unix_s: int
) -> dict[bytes, Outcome]:
    """Count what can be counted now; returns what became of those of whom it is certain."""
    with deployment.database.reading() as session:
        cohort = session.get_one(Cohort, cohort_id)
        group = _Group(deployment, cohort, document_of(cohort))
        waiting = []
        for device_id in device_ids:
            row = session.get(Contribution, (cohort_id, device_id))
            if row is None:
                group.outcomes[device_id] = StateConflictError("the contribution was refused; announce it again")
            elif row.state is ContributionState.COUNTED:
                group.outcomes[device_id] = None
            elif row.state is ContributionState.DISCARDED:
                group.outcomes[device_id] = StateConflictError(ENDED)
            else:
                waiting.append(_Arrival(row, _parts(session, cohort_id, device_id)))
    # Who finds no room now learns at the next attempt that the cohort froze.
    waiting = waiting[: max(1, cohort.n_max - cohort.counted)]
    if not waiting:
        return group.outcomes
    try:
        with deployment.sums:
            _move_the_sum(group, waiting, now_unix_s)
    finally:
        _discard_spent_parts(deployment, cohort_id, waiting)
    return group.outcomes


def _move_the_sum(group: _Group, arrivals: Sequence[_Arrival], now_unix_s: int) -> None:
    """Make the sum with these contributions durable as a new object, then the cohort's."""
    deployment, cohort = group.deployment, group.cohort
    running_key = places.running_key(cohort.cohort_id, cohort.counted + len(arrivals))
    try:
        after = fold(deployment, group.document, cohort, group.ciphertexts(arrivals))
        if not group.folded:
            return
        deployment.objects.put(running_key, after)
        failpoint("coordinator.fold.before-commit")
        full = commit(deployment, cohort, group.folded, running_key=running_key, now_unix_s=now_unix_s)
    except UnavailableError:
        # The commit may have happened, and then the rows name these objects. If not, they are orphans.
        raise
    except (SumMovedError, UncountableError, StateConflictError) as error:
        _discard_objects(group, running_key)
        if isinstance(error, StateConflictError):
            group.outcomes |= dict.fromkeys((each.device_id for each in group.folded), error)
        elif isinstance(error, UncountableError):
            group.outcomes |= error.why
        return
    except BaseException:
        _discard_objects(group, running_key)
        raise
    failpoint("coordinator.upload.durable")
    if full:
        failpoint("coordinator.freeze.committed")
    if cohort.running_sum_key:
        places.discard(deployment.objects, cohort.running_sum_key)
    for each in group.folded:
        group.outcomes[each.device_id] = None
        log.info("contribution counted", cohort=short(cohort.cohort_id), device=short(each.device_id), full=full)


def _discard_objects(group: _Group, running_key: str) -> None:
    places.discard(group.deployment.objects, running_key, *(each.sealed_key for each in group.folded))


def _parts(session: Session, cohort_id: bytes, device_id: bytes) -> Sequence[UploadPart]:
    named = _parts_of(cohort_id, [device_id])
    return session.scalars(select(UploadPart).where(*named).order_by(UploadPart.offset_bytes)).all()


def _discard_spent_parts(deployment: Deployment, cohort_id: bytes, arrivals: Sequence[_Arrival]) -> None:
    """Delete the parts of those that were counted or refused: their rows are gone, and so must the objects be."""
    with deployment.database.reading() as session:
        named = _parts_of(cohort_id, [arrival.device_id for arrival in arrivals])
        kept = set(session.scalars(select(UploadPart.device_id).where(*named).distinct()))
    for arrival in arrivals:
        if arrival.device_id not in kept:
            places.discard(deployment.objects, *(part.object_key for part in arrival.parts))


def _parts_of(cohort_id: bytes, device_ids: Sequence[bytes]) -> tuple[ColumnElement[bool], ...]:
    return (UploadPart.cohort_id == cohort_id, UploadPart.device_id.in_(device_ids))
