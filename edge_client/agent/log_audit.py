"""The whole log, read and hashed again: is it the one that this device was shown, and does it hold what it was told?

The check-in proves that the log only grew. This goes further. Every entry is fetched and hashed, so that the
head follows from what can be read; what stands in it twice is found (`nightshift.protocol.log_reading`); and
whatever this device remembers must be there: its own certificates, the plan of each cohort that it saw, the sets that
it answered for, the releases that it took, the revocations that it was told. Heads that other devices saw are compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_client.agent.check_in import check_in
from edge_client.agent.session import Session, stored_log_head
from edge_client.connection import STREAM_DEADLINE_S
from nightshift.protocol.errors import LogInconsistentError, MalformedError

if TYPE_CHECKING:
    from nightshift.protocol.log import LogHead
    from nightshift.protocol.log_heads import OtherHead
    from nightshift.protocol.log_reading import LogReading

MOST_ENTRIES_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class Audit:
    """A log that is in order.

    Attributes:
        head: what the coordinator shows now.
        before: entries that this device had seen before.
        kinds: entries by kind.
        remembered: how many of this device's own memories were found in it.
        compared: sizes of the heads of other devices that are the same.
    """

    head: LogHead
    before: int
    kinds: dict[str, int]
    remembered: int
    compared: tuple[int, ...]


def audit(session: Session, others: Sequence[OtherHead] = ()) -> Audit:
    """Check in, read the whole log, and compare.

    Args:
        session: of this command.
        others: heads that other devices saw (`nightshift.protocol.log_heads`).

    Raises:
        LogInconsistentError: it forked, shrank, was altered, or lacks what this device was told.
        EquivocationError: it holds two different things where one is allowed.
        NightshiftError: as a check-in.
    """
    from nightshift.protocol.log import LogHead
    from nightshift.protocol.log_heads import require_same
    from nightshift.protocol.log_reading import LogReading

    before = stored_log_head(session.store)
    head = check_in(session, no_plan=True).view.head
    for other in others:
        if other.size > head.size:
            raise LogInconsistentError(
                f"another device saw a log of {other.size} entries, this one is shown {head.size}: the coordinator "
                "hides some of it from one of them, or the other device has just seen more; compare again"
            )
    sizes = {other.size for other in others}
    reading, roots = LogReading(), {0: LogReading().tree.root()}
    for entry in _entries(session, head.size):
        reading.append(entry)
        if reading.tree.size in sizes:
            roots[reading.tree.size] = reading.tree.root()
    if reading.tree.root() != head.root:
        raise LogInconsistentError(
            f"the {head.size} entries of the log do not hash to its signed head; what is shown was not signed"
        )
    for other in others:
        require_same(other, LogHead(other.size, roots[other.size]), session.trust.log_origin)
    return Audit(
        head,
        before.size if before else 0,
        dict(sorted(reading.kinds.items())),
        _remembered(session, reading),
        tuple(other.size for other in others),
    )


def _entries(session: Session, size: int) -> Iterator[bytes]:
    """Exactly so many entries, as they come."""
    from nightshift.v1 import device_pb2

    connection, received = session.connection, 0
    request = device_pb2.ReadLogRequest(first=0, end=size)
    for reply in connection.stream(lambda: connection.stub.ReadLog(request, timeout=STREAM_DEADLINE_S)):
        received += len(reply.entries)
        if not 0 < len(reply.entries) <= MOST_ENTRIES_AT_ONCE or received > size:
            raise MalformedError(f"the coordinator sends other than the {size} entries of the log that were asked for")
        yield from reply.entries
    if received != size:
        raise LogInconsistentError(
            f"the coordinator shows {received} of the {size} entries that its log is said to have"
        )


def _remembered(session: Session, reading: LogReading) -> int:
    """Everything that this device was told since it joined must be in the log; returns how much that was."""
    import hashlib

    database, since = session.store.database, session.membership.joined_unix_s
    own = reading.certificates.get(session.identity.device_id, {})
    certificates = [each for each in (session.membership.certificate, session.membership.next_certificate) if each]
    for certificate in certificates:
        if hashlib.sha256(certificate).digest() not in own:
            raise _missing("this device's own certificate")
    cohorts = database.rows("SELECT cohort_id, plan_hash FROM cohorts WHERE seen_at >= ?", (since,))
    for row in cohorts:
        found = reading.cohorts.get(bytes(row["cohort_id"]))
        if found is None or found.plan is None or found.plan[1] != bytes(row["plan_hash"]):
            raise _missing(f"the plan of cohort {bytes(row['cohort_id']).hex()[:16]} that this device was shown")
    answers = database.rows(
        "SELECT cohort_id, set_hash FROM answers WHERE answered_at >= ? AND set_hash IS NOT NULL", (since,)
    )
    for row in answers:
        found = reading.cohorts.get(bytes(row["cohort_id"]))
        if found is None or found.frozen_set is None or found.frozen_set[1] != bytes(row["set_hash"]):
            raise _missing(f"the set of cohort {bytes(row['cohort_id']).hex()[:16]} for which this device answered")
    releases = database.rows("SELECT task, number, release_id FROM releases")
    logged = {release_id for _, release_id in reading.releases}
    for row in releases:
        if bytes(row["release_id"]) not in logged:
            raise _missing(f"release {row['number']} of task {row['task']!r} that this device was shown")
    told = database.blob("revoked_devices") or b""
    revoked = {told[start : start + 32] for start in range(0, len(told), 32)}
    if revoked != set(reading.revoked):
        raise LogInconsistentError(
            f"the {len(reading.revoked)} devices that the log revokes are not the {len(revoked)} that this device was "
            "told of"
        )
    return len(certificates) + len(cohorts) + len(answers) + len(releases) + len(revoked)


def _missing(what: str) -> LogInconsistentError:
    return LogInconsistentError(f"the log does not hold {what}; the coordinator hides something from somebody")
