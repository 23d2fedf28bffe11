"""What a check-in tells every device alike: made once, and kept for as long as it is true.

Hundreds of devices are told the same: the log's head, what is served and why, who is revoked, whose turn it is, how
the running rounds are divided. It takes some fifteen statements and three signatures to say, and changes a few times
a night. So it is made once, and before each use one statement asks the database whether it still holds. Never time:
what another process has changed, a revocation say, is seen by the very next check-in.

That statement reads the `Mark`. Whatever changes the bulletin changes the mark:

=================================  =====================================================================
a part of the mark                 what can change only together with it
=================================  =====================================================================
the log's size                     releases, decisions, revocations; a round and its cohorts, from the plans on;
                                   a cohort's deadlines, its freezing, its end without a sum
how many cohorts have not ended    a sum was opened: the one step of a cohort that is not logged
how many rounds run                a round ended, with a release or without
each task, its state and turn      a task was paused, resumed, or served
the newest timestamp's version     the release metadata
the addresses                      the addresses
=================================  =====================================================================

Neither count can stay the same over a change: while the log does not grow, no cohort and no round is added.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from sqlalchemy import Text, cast, func, literal_column, select
from sqlalchemy.orm import Session

from coordinator.deployment import Deployment
from coordinator.enrolment import addresses
from coordinator.enrolment.devices import revocation_list
from coordinator.log import LogSnapshot
from coordinator.releases import decisions, publication, repository
from coordinator.releases.shown import Shown, shown, shown_with_plan
from coordinator.rounds.offers import Due, due_in_order, plan_offer
from coordinator.rounds.pace import Wait
from coordinator.rounds.tasks import list_tasks
from coordinator.rounds.transitions import GOES_ON, unfinished
from coordinator.storage.plain import plain_rows
from coordinator.storage.rows import (
    Cohort,
    LogEntryRow,
    ReleaseMetadataRow,
    Round,
    RoundState,
    Setting,
    Task,
)
from nightshift.protocol.targets import Role
from nightshift.v1 import device_pb2

PLANS_KEPT = 16
"""A plan with the largest pool takes a megabyte."""

Mark = tuple[object, ...]

_TASK = Task.name + " " + cast(Task.state, Text) + " " + cast(func.coalesce(Task.served_unix_s, 0), Text)

# Built once: at each check-in, making a statement took as long as running it.
_MARK = select(
    select(func.max(LogEntryRow.position)).scalar_subquery(),
    select(func.count()).select_from(Cohort).where(GOES_ON).scalar_subquery(),
    select(func.count()).select_from(Round).where(Round.state == RoundState.RUNNING).scalar_subquery(),
    select(func.aggregate_strings(_TASK, literal_column("','"))).scalar_subquery(),  # type: ignore[arg-type]  # it takes columns, too
    select(func.max(ReleaseMetadataRow.version)).where(ReleaseMetadataRow.role == Role.TIMESTAMP).scalar_subquery(),
    select(Setting.value).where(Setting.key == addresses.KEY).scalar_subquery(),
)


@dataclass(frozen=True, slots=True)
class Bulletin:
    """What holds for all devices at one mark.

    Attributes:
        mark: as long as the database shows it, the rest is true.
        snapshot: the log.
        told: the parts of the reply that are the same for all; to be copied, never changed.
        due: the tasks, whoever is next first.
        waits: until when cohorts keep devices waiting, each different one once.
    """

    mark: Mark
    snapshot: LogSnapshot
    told: device_pb2.CheckInResponse
    due: tuple[Due, ...]
    waits: frozenset[Wait]
    _plans: OrderedDict[bytes, device_pb2.CheckInResponse] = field(default_factory=OrderedDict)

    def with_plan(self, session: Session, cohort_id: bytes) -> device_pb2.CheckInResponse:
        """What is told, beyond `told`, to those who are offered a cohort's plan; to be copied, never changed.

        Args:
            session: reads.
            cohort_id: an open one's.
        """
        found = self._plans.get(cohort_id)
        if found is None:
            cohort = session.get_one(Cohort, cohort_id)
            found = device_pb2.CheckInResponse(plan=plan_offer(session, self.snapshot, cohort))
            _show(session, self.snapshot, shown_with_plan(session, cohort), found, beside=self.told)
            self._plans[cohort_id] = found
            while len(self._plans) > PLANS_KEPT:
                self._plans.popitem(last=False)
        return found


class Board:
    """The newest bulletin of this process.

    Args:
        deployment: whose rows and keys.
    """

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._making = threading.Lock()
        self._newest: Bulletin | None = None

    def read(self, session: Session) -> Bulletin:
        """The bulletin as a session sees the rows; made anew if the mark is another.

        Args:
            session: reads, all of it from one snapshot.
        """
        mark = tuple(*plain_rows(session, _MARK))
        newest = self._newest
        if newest is not None and newest.mark == mark:
            return newest
        with self._making:  # when something has changed, one thread finds out what
            newest = self._newest
            if newest is not None and newest.mark == mark:
                return newest
            made = self._newest = make(session, self._deployment, mark)
            return made


def make(session: Session, deployment: Deployment, mark: Mark) -> Bulletin:
    """Read, sign and prove everything."""
    snapshot = deployment.log.snapshot(session)
    told = device_pb2.CheckInResponse(
        checkpoint=snapshot.checkpoint(),
        revocation=revocation_list(session, deployment.authority),
        addresses=addresses.announcement(session, deployment.authority),
        release_metadata=repository.announcement(session),
    )
    _show(session, snapshot, shown(session, [task.name for task in list_tasks(session)]), told)
    return Bulletin(
        mark=mark,
        snapshot=snapshot,
        told=told,
        due=due_in_order(session),
        waits=frozenset(Wait.of(cohort) for cohort in unfinished(session)),
    )


def _show(
    session: Session,
    snapshot: LogSnapshot,
    rows: Shown,
    told: device_pb2.CheckInResponse,
    *,
    beside: device_pb2.CheckInResponse | None = None,
) -> None:
    """Add releases and decisions to what is told, without those that another part tells already."""
    releases = {offer.release for offer in beside.releases} if beside is not None else set()
    made = {offer.decision for offer in beside.decisions} if beside is not None else set()
    told.releases.extend(
        publication.offer(session, snapshot, row) for row in rows.releases if row.document not in releases
    )
    told.decisions.extend(decisions.offer(session, snapshot, row) for row in rows.decisions if row.document not in made)
