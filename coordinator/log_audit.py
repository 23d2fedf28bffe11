"""The log against the database, end to end: every entry hashed again, every entry's subject beside its object.

The log is what devices were told, the rows are what the coordinator acts on. Both are in one database, and a backup
that was restored by halves, a hand that altered a row, or a fault of this program sets them apart. So

* each entry has its hash and its place, and contradicts no other (`nightshift.protocol.log_reading`);
* each plan, pool, frozen set, void, release, decision, certificate and revocation of the rows stands in the log where
  the row says, under the hash that its own bytes have; plans are signed;
* the log holds nothing of these kinds that the rows do not know;
* a checkpoint of it verifies as devices verify it, and heads that were kept elsewhere are part of it.

All that is wrong is told at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from coordinator.deployment import Deployment
from coordinator.log import ROWS_AT_ONCE, checked_entries
from coordinator.rounds.transitions import contributor, counted
from coordinator.storage.rows import (
    Cohort,
    CommitteeSeat,
    Contribution,
    DecisionRow,
    Device,
    ReleaseRow,
    Revocation,
)
from nightshift.protocol.decision import decision_id
from nightshift.protocol.errors import LogInconsistentError, NightshiftError, SignatureInvalidError
from nightshift.protocol.identity import verify
from nightshift.protocol.log import LogHead, LogView, task_subject
from nightshift.protocol.log_heads import OtherHead, require_same
from nightshift.protocol.log_reading import LogReading
from nightshift.protocol.plan import PlanDocument, plan_hash, plan_signature_message, pool_digest
from nightshift.protocol.release import release_id
from nightshift.protocol.secagg.contributors import set_hash

MOST_TOLD = 20


@dataclass(frozen=True, slots=True)
class LogAudit:
    """A log that agrees with the database.

    Attributes:
        head: size and root.
        kinds: entries by kind.
        objects: how many objects of the rows were compared with their entries.
        compared: sizes of the kept heads that are part of it.
    """

    head: LogHead
    kinds: dict[str, int]
    objects: int
    compared: tuple[int, ...]


def audit(session: Session, deployment: Deployment, others: Sequence[OtherHead] = ()) -> LogAudit:
    """Compare the whole log with the rows.

    Args:
        session: reads; sees one state of the database.
        deployment: whose log and keys.
        others: heads that were kept elsewhere, or that devices saw.

    Raises:
        LogInconsistentError: lists what does not agree.
        EquivocationError: an entry says a second time what is said once.
    """
    reading = LogReading()
    roots = {0: reading.tree.root()}
    wanted = {other.size for other in others} | set(session.scalars(select(Cohort.plan_position)))
    for entry in checked_entries(session):
        reading.append(entry)
        if reading.tree.size in wanted:
            roots[reading.tree.size] = reading.tree.root()
    head = LogHead(reading.tree.size, reading.tree.root())
    snapshot = deployment.log.snapshot(session)
    LogView.verify(snapshot.checkpoint(), trust=deployment.trust, last=head, consistency_path=[])
    for other in others:
        if other.size > head.size:
            raise LogInconsistentError(
                f"a head of {other.size} entries was shown, the log has {head.size}: the database is older than what "
                "devices know; restore a newer backup"
            )
        require_same(other, LogHead(other.size, roots[other.size]), deployment.log.origin)
    comparison = _Comparison(session, deployment, reading, roots)
    problems = list(comparison.problems())
    if problems:
        more = f"; and {len(problems) - MOST_TOLD} more" if len(problems) > MOST_TOLD else ""
        raise LogInconsistentError(
            f"the log and the database disagree in {len(problems)} places: {'; '.join(problems[:MOST_TOLD])}{more}. "
            "Restore both from one backup"
        )
    sizes = tuple(other.size for other in others)
    return LogAudit(head, dict(sorted(reading.kinds.items())), comparison.objects, sizes)


class _Comparison:
    """The rows beside a log that was read; each method yields what is wrong, in words."""

    def __init__(self, session: Session, deployment: Deployment, reading: LogReading, roots: dict[int, bytes]) -> None:
        self._session = session
        self._deployment = deployment
        self._reading = reading
        self._roots = roots
        self.objects = 0

    def problems(self) -> Iterator[str]:
        """Everything that is wrong."""
        yield from self._cohorts()
        yield from self._releases()
        yield from self._decisions()
        yield from self._certificates()
        yield from self._revocations()

    def _cohorts(self) -> Iterator[str]:
        known = set()
        for cohort in self._session.scalars(select(Cohort).execution_options(yield_per=16)):
            known.add(cohort.cohort_id)
            yield from self._cohort(cohort)
        for cohort_id in self._reading.cohorts.keys() - known:
            yield f"the log knows cohort {cohort_id.hex()[:16]}, the database does not"

    def _cohort(self, cohort: Cohort) -> Iterator[str]:
        name, entries = f"cohort {cohort.cohort_id.hex()[:16]}", self._reading.cohorts.get(cohort.cohort_id)
        if entries is None:
            yield f"{name} is not in the log"
            return
        try:
            document = PlanDocument.parse(cohort.plan)
        except NightshiftError as error:
            yield f"the plan of {name} cannot be read: {error}"
            return
        hashed, position = plan_hash(cohort.plan), cohort.plan_position
        self.objects += 2
        if entries.plan != (position, hashed) or cohort.plan_hash != hashed or document.cohort_id != cohort.cohort_id:
            yield f"the plan of {name} is not the one that is logged at entry {position}"
        elif (document.seed_log_size, document.seed_log_root) != (position, self._roots.get(position)):
            yield f"the plan of {name} is not seeded by the log before it"
        if entries.pool != (position - 1, pool_digest(document.pool)):
            yield f"the pool of {name} is not the one that is logged"
        try:
            message = plan_signature_message(cohort.plan)
            verify(self._deployment.trust.signing_key, cohort.plan_signature, message, what="its plan's signature")
        except SignatureInvalidError as error:
            yield f"{name}: {error}"
        seats = select(CommitteeSeat).where(CommitteeSeat.cohort_id == cohort.cohort_id)
        for seat in self._session.scalars(seats):
            member = document.committee[seat.member_index - 1]
            yield from self._certificate(seat.device_id, member.certificate, seat.certificate_position, "member's")
        frozen = None if cohort.set_hash is None else (cohort.set_position, cohort.set_hash)
        if entries.frozen_set != frozen:
            yield f"the frozen set of {name} is not the one that is logged"
        elif cohort.set_hash is not None:
            self.objects += 1
            if set_hash(hashed, [contributor(row) for row in counted(self._session, cohort)]) != cohort.set_hash:
                yield f"the frozen set of {name} is not that of its contributions"
        void = None if cohort.void_position is None else (cohort.void_position, hashed)
        if entries.void != void:
            yield f"the end of {name} is not the one that is logged"
        elif void is not None:
            self.objects += 1

    def _releases(self) -> Iterator[str]:
        rows = self._session.scalars(select(ReleaseRow).execution_options(yield_per=ROWS_AT_ONCE))
        known = {}
        for row in rows:
            key = (task_subject(row.task), release_id(row.document))
            known[key] = row.log_position
            if row.release_id != key[1] or self._reading.releases.get(key) != row.log_position:
                yield f"release {row.task}/{row.number} is not the one that is logged at entry {row.log_position}"
        self.objects += len(known)
        for (_, identifier), position in self._reading.releases.items() - known.items():
            yield f"the log knows release {identifier.hex()[:16]} at entry {position}, the database does not"

    def _decisions(self) -> Iterator[str]:
        known = {}
        for row in self._session.scalars(select(DecisionRow).execution_options(yield_per=ROWS_AT_ONCE)):
            key = (task_subject(row.task), decision_id(row.document))
            known[key] = row.log_position
            if row.decision_id != key[1] or self._reading.decisions.get(key) != row.log_position:
                yield f"decision {row.task}/{row.number} is not the one that is logged at entry {row.log_position}"
        self.objects += len(known)
        for (_, identifier), position in self._reading.decisions.items() - known.items():
            yield f"the log knows decision {identifier.hex()[:16]} at entry {position}, the database does not"

    def _certificates(self) -> Iterator[str]:
        known = set()
        for device in self._session.scalars(select(Device).execution_options(yield_per=ROWS_AT_ONCE)):
            known.add(device.device_id)
            yield from self._certificate(device.device_id, device.certificate, device.certificate_position, "present")
        columns = (Contribution.device_id, Contribution.certificate, Contribution.certificate_position)
        for device_id, certificate, position in self._session.execute(select(*columns)):
            yield from self._certificate(device_id, certificate, position, "contributor's")
        for device_id in self._reading.certificates.keys() - known:
            yield f"the log knows device {device_id.hex()[:16]}, the database does not"

    def _certificate(self, device_id: bytes, certificate: bytes, position: int | None, whose: str) -> Iterator[str]:
        self.objects += 1
        logged = self._reading.certificates.get(device_id, {}).get(hashlib.sha256(certificate).digest())
        if logged is None or logged != position:
            yield f"the {whose} certificate of device {device_id.hex()[:16]} is not logged where its row says"

    def _revocations(self) -> Iterator[str]:
        known = set(self._session.scalars(select(Revocation.device_id)))
        self.objects += len(known)
        for device_id in known - self._reading.revoked.keys():
            yield f"the revocation of device {device_id.hex()[:16]} is not in the log"
        for device_id in self._reading.revoked.keys() - known:
            yield f"the log revokes device {device_id.hex()[:16]}, the database does not"
