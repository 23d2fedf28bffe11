"""What devices are to serve, as decided, and what this device found when it looked for itself."""

from __future__ import annotations

from dataclasses import dataclass

from edge_client.store.database import Database


@dataclass(frozen=True, slots=True)
class SeenDecision:
    """The newest decision about a task that was verified.

    Attributes:
        number: counts up within the task.
        decision_id: 32 bytes.
        served_release: id of the release that devices serve, 32 bytes.
        followed: whether this device has acted on it: adopted the release, or kept another for a reason.
    """

    number: int
    decision_id: bytes
    served_release: bytes
    followed: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """A served release beside the adapter that was in use before, on this device's own hold-out.

    Attributes:
        release_id: of the served release, 32 bytes.
        task: name of the task.
        against: name of the other adapter.
        loss: under the release, nats per answer token; None where it could not be told, or was not asked on purpose.
        loss_against: under the other adapter.
        kept_back: whether the other one stays in use.
        compared_at_unix_s: when.
    """

    release_id: bytes
    task: str
    against: str | None
    loss: float | None
    loss_against: float | None
    kept_back: bool
    compared_at_unix_s: int


class Served:
    """The tables of decisions and comparisons."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def decision(self, task: str) -> SeenDecision | None:
        """The newest decision about a task that was seen."""
        row = self._database.row("SELECT * FROM decisions WHERE task = ?", (task,))
        if row is None:
            return None
        return SeenDecision(
            int(row["number"]), bytes(row["decision_id"]), bytes(row["served_release"]), bool(row["followed"])
        )

    def is_followed(self, decision_id: bytes) -> bool:
        """Whether this decision is the newest of its task and was acted on."""
        row = self._database.row("SELECT followed FROM decisions WHERE decision_id = ?", (decision_id,))
        return row is not None and bool(row["followed"])

    def see_decision(self, task: str, decision: SeenDecision) -> None:
        """Keep a verified decision as the newest; the caller has checked that it is."""
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO decisions (task, number, decision_id, served_release, followed)"
                " VALUES (?, ?, ?, ?, ?)",
                (task, decision.number, decision.decision_id, decision.served_release, decision.followed),
            )

    def follow(self, task: str) -> None:
        """Note that the newest decision about a task was acted on."""
        with self._database.transaction() as connection:
            connection.execute("UPDATE decisions SET followed = 1 WHERE task = ?", (task,))

    def unfollow(self, task: str) -> None:
        """Have the newest decision about a task looked at again by the next pass."""
        with self._database.transaction() as connection:
            connection.execute("UPDATE decisions SET followed = 0 WHERE task = ?", (task,))

    def add_comparison(self, comparison: Comparison) -> None:
        """Keep what was found about a release; a later look replaces an earlier one."""
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO comparisons"
                " (release_id, task, against, loss, loss_against, kept_back, compared_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    comparison.release_id,
                    comparison.task,
                    comparison.against,
                    comparison.loss,
                    comparison.loss_against,
                    comparison.kept_back,
                    comparison.compared_at_unix_s,
                ),
            )

    def comparison(self, release_id: bytes) -> Comparison | None:
        """What was found about a release."""
        row = self._database.row("SELECT * FROM comparisons WHERE release_id = ?", (release_id,))
        if row is None:
            return None
        return Comparison(
            release_id=bytes(row["release_id"]),
            task=row["task"],
            against=row["against"],
            loss=row["loss"],
            loss_against=row["loss_against"],
            kept_back=bool(row["kept_back"]),
            compared_at_unix_s=int(row["compared_at"]),
        )

    def keeps_another(self, task: str) -> bool:
        """Whether this device keeps another adapter in use than the served one, because that one is worse here."""
        decision = self.decision(task)
        found = None if decision is None else self.comparison(decision.served_release)
        return found is not None and found.kept_back
