"""The whole log, read entry by entry: what contradicts itself, whoever reads it, and what it says of each subject.

A device's proofs show that single entries are in the log. Only who reads all of it sees that something is in it
twice: a second plan or a second frozen set of one cohort, shown to others, or a device that was enrolled again
after it was revoked. The rules (docs/protocol.md, "The log"):

* a cohort has one pool, its plan is the entry right after it, and no plan stands for two cohorts;
* a set and a void come after the plan, at most one of each, and no set after a void; a void names the plan's hash;
* a revocation is for good: nobody is revoked twice, or enrolled afterwards.

Entries of kinds that this version does not know are hashed and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from google.protobuf.message import DecodeError

from nightshift.protocol.errors import EquivocationError, LogInconsistentError
from nightshift.protocol.log import MAX_ENTRY_BYTES
from nightshift.protocol.merkle import HASH_BYTES, RunningTree
from nightshift.v1 import log_pb2


@dataclass(slots=True)
class CohortEntries:
    """Where a cohort stands in the log, and the hashes that stand there; None for what is not there."""

    pool: tuple[int, bytes] | None = None
    plan: tuple[int, bytes] | None = None
    frozen_set: tuple[int, bytes] | None = None
    void: tuple[int, bytes] | None = None


@dataclass(slots=True)
class LogReading:
    """What the entries so far say.

    Attributes:
        tree: size and root.
        kinds: number of entries of each kind, by its name in lower case.
        cohorts: cohort id -> its entries.
        certificates: device id -> position of each of its certificates, by their SHA-256.
        releases: (subject of the task, release id) -> position.
        decisions: (subject of the task, decision id) -> position.
        revoked: device id -> position.
    """

    tree: RunningTree = field(default_factory=RunningTree)
    kinds: Counter[str] = field(default_factory=Counter)
    cohorts: dict[bytes, CohortEntries] = field(default_factory=dict)
    certificates: dict[bytes, dict[bytes, int]] = field(default_factory=dict)
    releases: dict[tuple[bytes, bytes], int] = field(default_factory=dict)
    decisions: dict[tuple[bytes, bytes], int] = field(default_factory=dict)
    revoked: dict[bytes, int] = field(default_factory=dict)
    _plans: set[bytes] = field(default_factory=set)

    def append(self, data: bytes) -> log_pb2.LogEntry:
        """Read the next entry.

        Raises:
            LogInconsistentError: not an entry, or one that has no place here.
            EquivocationError: it says a second time, and otherwise, what is said once.
        """
        position = self.tree.size
        entry = _decoded(data, position)
        rule = _RULES.get(entry.kind)
        if rule is not None:
            rule(self, entry.subject, entry.digest, position)
        self.kinds[_name(entry.kind)] += 1
        self.tree.append(data)
        return entry

    def _pool(self, subject: bytes, digest: bytes, position: int) -> None:
        if subject in self.cohorts:
            raise _twice("pool", subject, position)
        self.cohorts[subject] = CohortEntries(pool=(position, digest))

    def _plan(self, subject: bytes, digest: bytes, position: int) -> None:
        cohort = self.cohorts.get(subject)
        if cohort is not None and cohort.plan is not None:
            raise _twice("plan", subject, position)
        if cohort is None or cohort.pool is None or cohort.pool[0] != position - 1:
            raise LogInconsistentError(f"log entry {position} is a plan that does not stand right behind its pool")
        if digest in self._plans:
            raise EquivocationError(f"log entry {position} gives a second cohort a plan that another one has")
        self._plans.add(digest)
        cohort.plan = (position, digest)

    def _set(self, subject: bytes, digest: bytes, position: int) -> None:
        cohort = self._planned("set", subject, position)
        if cohort.frozen_set is not None:
            raise _twice("frozen set", subject, position)
        if cohort.void is not None:
            raise LogInconsistentError(f"log entry {position} freezes a set of a cohort that is void")
        cohort.frozen_set = (position, digest)

    def _void(self, subject: bytes, digest: bytes, position: int) -> None:
        cohort = self._planned("void", subject, position)
        if cohort.void is not None:
            raise _twice("void", subject, position)
        if cohort.plan is None or cohort.plan[1] != digest:
            raise LogInconsistentError(f"log entry {position} ends a cohort under another plan than the logged one")
        cohort.void = (position, digest)

    def _release(self, subject: bytes, digest: bytes, position: int) -> None:
        self.releases[subject, digest] = position

    def _decision(self, subject: bytes, digest: bytes, position: int) -> None:
        self.decisions[subject, digest] = position

    def _enrolment(self, subject: bytes, digest: bytes, position: int) -> None:
        if subject in self.revoked:
            raise LogInconsistentError(
                f"log entry {position} enrols device {subject.hex()[:16]} again, which was revoked for good"
            )
        self.certificates.setdefault(subject, {})[digest] = position

    def _revocation(self, subject: bytes, digest: bytes, position: int) -> None:
        if subject != digest or subject not in self.certificates or subject in self.revoked:
            raise LogInconsistentError(
                f"log entry {position} revokes a device that was never enrolled, or is revoked already"
            )
        self.revoked[subject] = position

    def _planned(self, what: str, subject: bytes, position: int) -> CohortEntries:
        cohort = self.cohorts.get(subject)
        if cohort is None or cohort.plan is None:
            raise LogInconsistentError(f"log entry {position} is the {what} of a cohort that has no plan")
        return cohort


_RULES: Mapping[int, Callable[[LogReading, bytes, bytes, int], None]] = MappingProxyType(
    {
        log_pb2.LOG_ENTRY_KIND_POOL: LogReading._pool,
        log_pb2.LOG_ENTRY_KIND_PLAN: LogReading._plan,
        log_pb2.LOG_ENTRY_KIND_SET: LogReading._set,
        log_pb2.LOG_ENTRY_KIND_VOID: LogReading._void,
        log_pb2.LOG_ENTRY_KIND_RELEASE: LogReading._release,
        log_pb2.LOG_ENTRY_KIND_DECISION: LogReading._decision,
        log_pb2.LOG_ENTRY_KIND_ENROLMENT: LogReading._enrolment,
        log_pb2.LOG_ENTRY_KIND_REVOCATION: LogReading._revocation,
    }
)
"""What each kind of entry must agree with: subject, digest, position."""


def _decoded(data: bytes, position: int) -> log_pb2.LogEntry:
    if len(data) > MAX_ENTRY_BYTES:
        raise LogInconsistentError(f"log entry {position} has {len(data)} bytes, at most {MAX_ENTRY_BYTES} are allowed")
    try:
        entry = log_pb2.LogEntry.FromString(data)
    except DecodeError as error:
        raise LogInconsistentError(f"log entry {position} cannot be read") from error
    if len(entry.subject) != HASH_BYTES or len(entry.digest) != HASH_BYTES:
        raise LogInconsistentError(f"log entry {position} has a subject or digest of another length than {HASH_BYTES}")
    return entry


def _twice(what: str, cohort: bytes, position: int) -> EquivocationError:
    return EquivocationError(
        f"log entry {position} is a second {what} of cohort {cohort.hex()[:16]}: two groups of devices were told two "
        "different things"
    )


def _name(kind: int) -> str:
    try:
        return log_pb2.LogEntryKind.Name(kind).removeprefix("LOG_ENTRY_KIND_").lower()
    except ValueError:
        return f"kind {kind}"
