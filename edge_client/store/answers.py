"""Which plan each cohort has, and the one thing that this device said about it as a member.

The rules that keep a lying coordinator from opening one contribution live
here as constraints of the database: a cohort has one plan for ever; about a cohort or
plan a member answers, or refuses, or states that its prekey is gone, exactly one of
them, once; and the prekey goes in the transaction that stores it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from edge_client.store.database import Database
from nightshift.protocol.errors import EquivocationError


class Kind(Enum):
    """What a member said.

    ANSWER: its share of the sum. REFUSAL: that it cannot use a contributor's
    share. ERASURE: that it never answered the cohort, which is void, and no longer can.
    """

    ANSWER = "answer"
    REFUSAL = "refusal"
    ERASURE = "erasure"


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """What a member said, as it was, and always will be, sent.

    Attributes:
        cohort_id: 32 bytes.
        plan_hash: 32 bytes, H.
        kind: what it is.
        set_hash: 32 bytes, hash(U); None for an erasure.
        message: the serialised nightshift.v1 request of this kind.
        answer_deadline_unix_s: after it nobody wants the answer.
        sent_at_unix_s: when the coordinator acknowledged it; None if it has not.
    """

    cohort_id: bytes
    plan_hash: bytes
    kind: Kind
    set_hash: bytes | None
    message: bytes
    answer_deadline_unix_s: int
    sent_at_unix_s: int | None


class Answers:
    """The tables of cohorts seen and of answers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def see_cohort(self, cohort_id: bytes, plan_hash: bytes, now_unix_s: int) -> None:
        """Note the plan of a cohort.

        Raises:
            EquivocationError: this cohort was seen with another plan.
        """
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO cohorts (cohort_id, plan_hash, seen_at) VALUES (?, ?, ?)",
                (cohort_id, plan_hash, now_unix_s),
            )
        row = self._database.row("SELECT plan_hash FROM cohorts WHERE cohort_id = ?", (cohort_id,))
        if row is None or bytes(row["plan_hash"]) != plan_hash:
            raise EquivocationError(f"cohort {cohort_id.hex()[:16]} was shown with two different plans")

    def find(self, cohort_id: bytes) -> StoredAnswer | None:
        """What was said about a cohort, None if nothing was."""
        return self._one("cohort_id = ?", cohort_id)

    def record(self, answer: StoredAnswer, *, prekey_public: bytes, now_unix_s: int) -> None:
        """Store what is said and erase the prekey in one transaction; only then may it be sent.

        An erasure may find its prekey gone already, at its end; an answer or refusal used it just now.

        Raises:
            EquivocationError: about this cohort or this plan something was said already.
        """
        with self._database.transaction() as connection:
            known = connection.execute(
                "SELECT kind FROM answers WHERE cohort_id = ? OR plan_hash = ?", (answer.cohort_id, answer.plan_hash)
            ).fetchone()
            if known is not None:
                raise EquivocationError(
                    f"cohort {answer.cohort_id.hex()[:16]} was answered already, by this device's {known['kind']}"
                )
            connection.execute(
                "INSERT INTO answers (cohort_id, plan_hash, kind, set_hash, message, answer_deadline, answered_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    answer.cohort_id,
                    answer.plan_hash,
                    answer.kind.value,
                    answer.set_hash,
                    answer.message,
                    answer.answer_deadline_unix_s,
                    now_unix_s,
                ),
            )
            erased = connection.execute("DELETE FROM prekeys WHERE public_key = ?", (prekey_public,)).rowcount
            if erased != 1 and answer.kind is not Kind.ERASURE:
                raise EquivocationError(f"the prekey for cohort {answer.cohort_id.hex()[:16]} was used already")

    def mark_sent(self, cohort_id: bytes, now_unix_s: int) -> None:
        """The coordinator acknowledged it."""
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE answers SET sent_at = ? WHERE cohort_id = ? AND sent_at IS NULL", (now_unix_s, cohort_id)
            )

    def unsent(self, now_unix_s: int) -> list[StoredAnswer]:
        """Those that were stored but not acknowledged, and are still wanted."""
        rows = self._database.rows(
            "SELECT cohort_id FROM answers WHERE sent_at IS NULL AND answer_deadline > ?", (now_unix_s,)
        )
        found = [self.find(bytes(row["cohort_id"])) for row in rows]
        return [answer for answer in found if answer is not None]

    def count(self, kind: Kind = Kind.ANSWER) -> int:
        """In how many cohorts this kind of thing was said so far."""
        row = self._database.row("SELECT COUNT(*) AS n FROM answers WHERE kind = ?", (kind.value,))
        return 0 if row is None else int(row["n"])

    def _one(self, condition: str, *parameters: object) -> StoredAnswer | None:
        # The condition is a literal of this module, never input.
        row = self._database.row(f"SELECT * FROM answers WHERE {condition}", parameters)  # noqa: S608 - conditions are literals of this module
        if row is None:
            return None
        return StoredAnswer(
            cohort_id=bytes(row["cohort_id"]),
            plan_hash=bytes(row["plan_hash"]),
            kind=Kind(row["kind"]),
            set_hash=None if row["set_hash"] is None else bytes(row["set_hash"]),
            message=bytes(row["message"]),
            answer_deadline_unix_s=row["answer_deadline"],
            sent_at_unix_s=row["sent_at"],
        )
