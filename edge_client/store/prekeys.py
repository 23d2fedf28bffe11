"""One-time keys: made, published, bound to one plan, erased."""

from __future__ import annotations

from dataclasses import dataclass

from edge_client.store.database import Database
from nightshift.protocol.errors import EquivocationError


@dataclass(frozen=True, slots=True)
class StoredPrekey:
    """A prekey whose private half is still here.

    Attributes:
        epoch: of the store that made it.
        serial: counts up within the epoch.
        private_key: 32 bytes, X25519. Never log it.
        public_key: 32 bytes, X25519.
        not_after_unix_s: from then on it is erased.
        message: the serialised, signed nightshift.v1.Prekey.
        bound_plan_hash: the only H that it answers for; None until one is seen.
    """

    epoch: int
    serial: int
    private_key: bytes
    public_key: bytes
    not_after_unix_s: int
    message: bytes
    bound_plan_hash: bytes | None

    def __repr__(self) -> str:
        return f"StoredPrekey(epoch={self.epoch}, serial={self.serial})"


class Prekeys:
    """The table of prekeys."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def next_serial(self) -> int:
        """A serial never used in this epoch, also not by an erased prekey."""
        return (self._database.number("last_serial") or 0) + 1

    def add(self, prekeys: list[StoredPrekey]) -> None:
        """Keep new prekeys; only afterwards may they be published."""
        if not prekeys:
            return
        with self._database.transaction() as connection:
            connection.executemany(
                "INSERT INTO prekeys (epoch, serial, private_key, public_key, not_after, message)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                [(p.epoch, p.serial, p.private_key, p.public_key, p.not_after_unix_s, p.message) for p in prekeys],
            )
            connection.execute(
                "INSERT OR REPLACE INTO meta (name, value) VALUES ('last_serial', ?)",
                (max(p.serial for p in prekeys),),
            )

    def unpublished(self) -> list[StoredPrekey]:
        """Those that the coordinator has not acknowledged."""
        return self._select("published = 0")

    def unspent(self) -> list[StoredPrekey]:
        """Those that no plan has named, as far as this device saw."""
        return self._select("bound_plan_hash IS NULL")

    def count(self) -> int:
        """Private halves that are still here."""
        row = self._database.row("SELECT COUNT(*) AS n FROM prekeys")
        return 0 if row is None else int(row["n"])

    def mark_published(self, prekeys: list[StoredPrekey]) -> None:
        """The coordinator acknowledged these."""
        if not prekeys:
            return
        with self._database.transaction() as connection:
            connection.executemany(
                "UPDATE prekeys SET published = 1 WHERE epoch = ? AND serial = ?",
                [(p.epoch, p.serial) for p in prekeys],
            )

    def find(self, public_key: bytes) -> StoredPrekey | None:
        """The prekey with this public half, None if it is not (or no longer) here."""
        found = self._select("public_key = ?", public_key)
        return found[0] if found else None

    def bind(self, public_key: bytes, plan_hash: bytes, *, until_unix_s: int) -> StoredPrekey | None:
        """Bind a prekey to the first plan that names it.

        Args:
            public_key: 32 bytes.
            plan_hash: 32 bytes, H.
            until_unix_s: when the plan's answers end; the key is erased then.

        Returns:
            The prekey, or None if its private half is not here.

        Raises:
            EquivocationError: it is bound to another plan.
        """
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE prekeys SET bound_plan_hash = ?, bound_until = ?"
                " WHERE public_key = ? AND bound_plan_hash IS NULL",
                (plan_hash, until_unix_s, public_key),
            )
        prekey = self.find(public_key)
        if prekey is not None and prekey.bound_plan_hash != plan_hash:
            raise EquivocationError(
                f"this device's one-time key {prekey.serial} was named in two different plans; "
                "it answers only for the first"
            )
        return prekey

    def erase_expired(self, now_unix_s: int) -> int:
        """Erase prekeys at their end or at their cohort's; returns how many."""
        with self._database.transaction() as connection:
            return connection.execute(
                "DELETE FROM prekeys WHERE not_after <= ?1 OR bound_until < ?1", (now_unix_s,)
            ).rowcount

    def _select(self, condition: str, *parameters: object) -> list[StoredPrekey]:
        rows = self._database.rows(
            # The condition is one of the literals above, never input.
            f"SELECT * FROM prekeys WHERE {condition} ORDER BY epoch, serial",  # noqa: S608 - conditions are literals of this module
            parameters,
        )
        return [
            StoredPrekey(
                epoch=row["epoch"],
                serial=row["serial"],
                private_key=bytes(row["private_key"]),
                public_key=bytes(row["public_key"]),
                not_after_unix_s=row["not_after"],
                message=bytes(row["message"]),
                bound_plan_hash=None if row["bound_plan_hash"] is None else bytes(row["bound_plan_hash"]),
            )
            for row in rows
        ]
