"""What this device contributed, and the guard against contributing twice.

A contribution moves through these states, and no others::

    prepared ──first byte──> sending ──acknowledged──> sent
        │                      │  │                     │
        │                      │  └──too late──> late ──┤
     refused                   └─────────────────────── void entry in the log
        v                                               v
    (row removed: nothing ever left)                   void

Two sums of which one holds this device and the other does not differ by its
delta. So a parent is given to at most one contribution. Only a parent whose
cohort ended without a sum, by the log, becomes free again, and only when nobody
is left who could still open it: enough committee members stated that they erased
their prekeys, or every prekey of that cohort has expired (the design's table of failures).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from edge_client.store.database import Database


class State(Enum):
    """Where a contribution is."""

    PREPARED = "prepared"
    SENDING = "sending"
    SENT = "sent"
    LATE = "late"
    VOID = "void"


class Event(Enum):
    """What can happen to it."""

    FIRST_BYTE = "first byte"
    ACKNOWLEDGED = "acknowledged"
    TOO_LATE = "too late"
    VOIDED = "void entry in the log"


TRANSITIONS: Mapping[tuple[State, Event], State] = MappingProxyType(
    {
        (State.PREPARED, Event.FIRST_BYTE): State.SENDING,
        (State.SENDING, Event.FIRST_BYTE): State.SENDING,
        (State.PREPARED, Event.ACKNOWLEDGED): State.SENT,
        (State.SENDING, Event.ACKNOWLEDGED): State.SENT,
        (State.SENDING, Event.TOO_LATE): State.LATE,
        (State.SENDING, Event.VOIDED): State.VOID,
        (State.SENT, Event.VOIDED): State.VOID,
        (State.LATE, Event.VOIDED): State.VOID,
        (State.VOID, Event.VOIDED): State.VOID,
    }
)
"""(state, event) -> state; a pair that is not here is refused."""

SPKI_BYTES = 91
"""Every P-256 public key takes so many bytes as a DER SubjectPublicKeyInfo (RFC 5480)."""

UNFINISHED = (State.PREPARED, State.SENDING)


@dataclass(frozen=True, slots=True)
class StoredContribution:
    """One contribution; its encrypted bytes are a file until they are acknowledged.

    Attributes:
        cohort_id: 32 bytes.
        plan_hash: 32 bytes, H.
        task: name of the task.
        round: of the task.
        parent_release: 32 bytes, id of the release it was trained from.
        parent_adapter_sha256: 32 bytes; the same adapter under another id is the same parent.
        state: see the module.
        body_sha256: 32 bytes, of the encrypted bytes.
        body_size_bytes: of the encrypted bytes.
        examples: training examples behind it (stays on this device).
        n_min: fewest devices whose sum may be opened.
        upload_deadline_unix_s: the latest moment at which the coordinator may take it.
        latest_prekey_expiry_unix_s: when the last committee key of the cohort is gone.
        committee_keys: each member's public key (DER SubjectPublicKeyInfo), as in the plan, in index order.
        erasures_required: so many members' erasure statements lay the cohort to rest.
        created_at_unix_s: when it was encrypted.
        sent_at_unix_s: when it was acknowledged.
        laid_to_rest_at_unix_s: when enough members had stated that they can no longer open it.
        released_in: number of the release that holds it, once that was seen.
        released_over: how many devices' parts are in the sums of that release.
    """

    cohort_id: bytes
    plan_hash: bytes
    task: str
    round: int
    parent_release: bytes
    parent_adapter_sha256: bytes
    state: State
    body_sha256: bytes
    body_size_bytes: int
    examples: int
    n_min: int
    upload_deadline_unix_s: int
    latest_prekey_expiry_unix_s: int
    committee_keys: tuple[bytes, ...]
    erasures_required: int
    created_at_unix_s: int
    sent_at_unix_s: int | None = None
    laid_to_rest_at_unix_s: int | None = None
    released_in: int | None = None
    released_over: int | None = None

    def frees_parent(self, now_unix_s: int) -> bool:
        """Whether nobody can open it any more, so that its parent may be used again."""
        dead = self.laid_to_rest_at_unix_s is not None or now_unix_s > self.latest_prekey_expiry_unix_s
        return self.state is State.VOID and dead


class Contributions:
    """The table of contributions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, contribution: StoredContribution) -> None:
        """Journal an encrypted contribution; its file is durable already."""
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO contributions (cohort_id, plan_hash, task, round, parent_release,"
                " parent_adapter_sha256, state, body_sha256, body_size_bytes, examples, n_min, upload_deadline,"
                " latest_prekey_expiry, committee_keys, erasures_required, created_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    contribution.cohort_id,
                    contribution.plan_hash,
                    contribution.task,
                    contribution.round,
                    contribution.parent_release,
                    contribution.parent_adapter_sha256,
                    contribution.state.value,
                    contribution.body_sha256,
                    contribution.body_size_bytes,
                    contribution.examples,
                    contribution.n_min,
                    contribution.upload_deadline_unix_s,
                    contribution.latest_prekey_expiry_unix_s,
                    b"".join(contribution.committee_keys),
                    contribution.erasures_required,
                    contribution.created_at_unix_s,
                ),
            )

    def find(self, cohort_id: bytes) -> StoredContribution | None:
        """The contribution to a cohort."""
        found = self._select("cohort_id = ?", cohort_id)
        return found[0] if found else None

    def unfinished(self) -> list[StoredContribution]:
        """Those whose bytes still have to go, or go again."""
        return self._select("state IN (?, ?)", *(state.value for state in UNFINISHED))

    def of_parent(self, task: str, parent_release: bytes, adapter_sha256: bytes) -> list[StoredContribution]:
        """Those that used this parent, by its id within the task or by its bytes in any task."""
        return self._select(
            "(task = ? AND parent_release = ?) OR parent_adapter_sha256 = ?", task, parent_release, adapter_sha256
        )

    def recent(self, limit: int) -> list[StoredContribution]:
        """The newest ones, newest first."""
        return self._select("1 ORDER BY created_at DESC LIMIT ?", limit)

    def since(self, unix_s: int) -> list[StoredContribution]:
        """Those that were encrypted after a time, newest first."""
        return self._select("created_at > ? ORDER BY created_at DESC", unix_s)

    def apply(self, cohort_id: bytes, event: Event, now_unix_s: int) -> State:
        """Move a contribution along the table of transitions.

        Raises:
            ValueError: the event is impossible in its state; a defect of this program.
        """
        with self._database.transaction() as connection:
            row = connection.execute("SELECT state FROM contributions WHERE cohort_id = ?", (cohort_id,)).fetchone()
            if row is None:
                raise ValueError(f"no contribution to cohort {cohort_id.hex()[:16]}")
            before = State(row["state"])
            after = TRANSITIONS.get((before, event))
            if after is None:
                raise ValueError(f"a contribution that is {before.value} cannot take {event.value!r}")
            connection.execute(
                "UPDATE contributions SET state = ?, sent_at = CASE WHEN ? THEN ? ELSE sent_at END WHERE cohort_id = ?",
                (after.value, after is State.SENT, now_unix_s, cohort_id),
            )
        return after

    def lay_to_rest(self, cohort_id: bytes, now_unix_s: int) -> None:
        """Note that a void cohort can never be opened any more; the caller has verified the statements.

        Raises:
            ValueError: the contribution's cohort is not void; a defect of this program.
        """
        with self._database.transaction() as connection:
            changed = connection.execute(
                "UPDATE contributions SET laid_to_rest_at = ? WHERE cohort_id = ? AND state = ?",
                (now_unix_s, cohort_id, State.VOID.value),
            ).rowcount
            if changed != 1:
                raise ValueError(f"the cohort {cohort_id.hex()[:16]} cannot be laid to rest")

    def note_release(self, cohort_id: bytes, *, number: int, contributors: int) -> None:
        """Keep which verified release says that it holds a contribution, and over how many devices."""
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE contributions SET released_in = ?, released_over = ? WHERE cohort_id = ?",
                (number, contributors, cohort_id),
            )

    def voided(self) -> list[StoredContribution]:
        """Those whose cohort ended without a sum, newest first."""
        return self._select("state = ? ORDER BY created_at DESC", State.VOID.value)

    def withdraw(self, cohort_id: bytes) -> None:
        """Forget a contribution of which no byte ever left.

        Raises:
            ValueError: some byte may have left; a defect of this program.
        """
        with self._database.transaction() as connection:
            removed = connection.execute(
                "DELETE FROM contributions WHERE cohort_id = ? AND state = ?", (cohort_id, State.PREPARED.value)
            ).rowcount
            if removed != 1:
                raise ValueError(f"the contribution to cohort {cohort_id.hex()[:16]} cannot be withdrawn")

    def _select(self, condition: str, *parameters: object) -> list[StoredContribution]:
        # The condition is a literal of this module, never input.
        rows = self._database.rows(f"SELECT * FROM contributions WHERE {condition}", parameters)  # noqa: S608 - conditions are literals of this module
        return [
            StoredContribution(
                cohort_id=bytes(row["cohort_id"]),
                plan_hash=bytes(row["plan_hash"]),
                task=row["task"],
                round=row["round"],
                parent_release=bytes(row["parent_release"]),
                parent_adapter_sha256=bytes(row["parent_adapter_sha256"]),
                state=State(row["state"]),
                body_sha256=bytes(row["body_sha256"]),
                body_size_bytes=row["body_size_bytes"],
                examples=row["examples"],
                n_min=row["n_min"],
                upload_deadline_unix_s=row["upload_deadline"],
                latest_prekey_expiry_unix_s=row["latest_prekey_expiry"],
                committee_keys=_keys(bytes(row["committee_keys"])),
                erasures_required=row["erasures_required"],
                created_at_unix_s=row["created_at"],
                sent_at_unix_s=row["sent_at"],
                laid_to_rest_at_unix_s=row["laid_to_rest_at"],
                released_in=row["released_in"],
                released_over=row["released_over"],
            )
            for row in rows
        ]


def _keys(joined: bytes) -> tuple[bytes, ...]:
    return tuple(joined[start : start + SPKI_BYTES] for start in range(0, len(joined), SPKI_BYTES))
