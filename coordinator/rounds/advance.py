"""Whatever is due, done: deadlines, openings, releases, erasure, automatic rounds.

`advance` is called by the ticker and at the start of every device's call (of a check-in through `Cadence`). It
acts on rows alone, so a restarted coordinator goes on where the killed one was.
Of several processes on one database only the leader acts, and all its
transactions carry the fencing token under which it began (`coordinator.leases`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy.orm import Session

from coordinator import orphans
from coordinator.aggregation.opening import try_open
from coordinator.aggregation.places import erase_ended
from coordinator.deployment import Deployment
from coordinator.diagnostics import log, short
from coordinator.leases import Keeper, LeadershipLostError
from coordinator.releases.freshness import Freshness
from coordinator.rounds import turns
from coordinator.rounds.conclusion import conclude
from coordinator.rounds.plans import open_round
from coordinator.rounds.rounds import running
from coordinator.rounds.seats import words
from coordinator.rounds.standing import judge
from coordinator.rounds.states import FINAL, Event
from coordinator.rounds.task_settings import TaskSettings
from coordinator.rounds.transitions import extend, freeze, unfinished, void
from coordinator.storage.rows import Cohort, CohortState, Task, TaskState
from nightshift.host.clock import now_unix_s
from nightshift.host.failpoints import failpoint
from nightshift.protocol.errors import DeclinedError, NightshiftError, StateConflictError

TICK_S = 0.5


def advance(deployment: Deployment) -> None:
    """Do everything that is due now, if this process leads.

    Raises:
        UnavailableError: a store does not answer.
    """
    token = deployment.leadership.token()
    if token is None:
        return
    try:
        _advance(replace(deployment, database=deployment.leadership.fenced(token)))
    except LeadershipLostError as error:
        log.warning("no longer leading", message=str(error))


class Cadence:
    """Spares check-ins, which are many and short, most of the looking for what is due.

    Time makes something due at most once a second, since all deadlines are whole seconds; and what a call
    makes due by itself, it says. Of other processes' work only the leader's ticker knows, twice a second.
    """

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._second = -1

    def advance(self) -> None:
        """As `advance`, unless that was done in this second and nothing has happened since."""
        now = now_unix_s()
        if now != self._second:
            self._second = now
            advance(self._deployment)

    def something_happened(self) -> None:
        """A call changed what may be due: the next `advance` looks again."""
        self._second = -1


def _advance(deployment: Deployment) -> None:
    now = now_unix_s()
    with deployment.database.reading() as session:
        cohorts = unfinished(session)
    for cohort in cohorts:
        # Answers that were durable before a crash come first: they may still make the sum.
        if cohort.state is CohortState.FROZEN and try_open(deployment, cohort.cohort_id, now):
            continue
        if _due_event(cohort, now) is not None:
            _step(deployment, cohort.cohort_id, now)
    conclude_rounds(deployment, now)
    erase_ended(deployment)
    _open_automatic_rounds(deployment, now)


def _due_event(cohort: Cohort, now: int) -> Event | None:
    """What time alone does to a cohort at this moment."""
    if cohort.state is CohortState.FROZEN:
        return Event.FALL_SILENT if now > cohort.answer_deadline_unix_s else None
    if now <= cohort.upload_deadline_unix_s and cohort.counted < cohort.n_max:
        return None
    if cohort.counted >= cohort.n_min:
        return Event.FREEZE
    return Event.EXTEND if now <= cohort.latest_upload_deadline_unix_s else Event.STARVE


def _step(deployment: Deployment, cohort_id: bytes, now: int) -> None:
    """Take one due step, decided again on the rows of the transaction that takes it."""
    with deployment.database.transaction() as session:
        cohort = session.get_one(Cohort, cohort_id)
        event = None if cohort.ended_unix_s is not None else _due_event(cohort, now)
        if event is None:
            return
        if event is Event.FREEZE:
            freeze(session, deployment, cohort, now)
            turns.froze(session, cohort, now)
        elif event is Event.EXTEND:
            extend(session, deployment, cohort, now)
        else:
            void(session, deployment, cohort, event, reason=_reason(session, cohort, event), now_unix_s=now)
            if event is Event.STARVE:
                turns.starved(session, cohort, now)
    if event is Event.FREEZE:
        failpoint("coordinator.freeze.committed")
    if cohort.state is CohortState.VOID:
        failpoint("coordinator.void.committed")
    log.info("cohort advanced", cohort=short(cohort_id), step=event.value, counted=cohort.counted, reason=cohort.reason)


def _reason(session: Session, cohort: Cohort, event: Event) -> str:
    if event is Event.STARVE:
        return f"{cohort.counted} contributions came before the last upload deadline, n_min is {cohort.n_min}"
    said = list(words(session, cohort.cohort_id).values())
    answers, refusals = said.count("answer"), said.count("refusal")
    if answers >= cohort.threshold:
        return f"{answers} committee members answered, but no {cohort.threshold} of their answers fit together"
    refused = f"; {refusals} could not use a contributor's share" if refusals else ""
    return f"{answers} committee members answered before the deadline, {cohort.threshold} are needed{refused}"


def _open_automatic_rounds(deployment: Deployment, now: int) -> None:
    with deployment.database.reading() as session:
        busy = {found.task for found in running(session)}
        tasks = [task for task in turns.in_order(session) if task.state is TaskState.ACTIVE]
    for task in tasks:
        settings = TaskSettings.model_validate_json(task.settings)
        if task.name in busy or settings.rounds.open != "automatic":
            continue
        try:
            with deployment.database.transaction() as session:
                opened = open_round(session, deployment, session.get_one(Task, task.name), now)
        except DeclinedError:
            continue  # the pool does not suffice yet; `coordinator round open` would say what is missing
        failpoint("coordinator.plan.committed")
        log.info("round opened", task=task.name, round=opened.number)


def conclude_rounds(deployment: Deployment, now: int) -> None:
    """End every round whose cohorts have all ended, and judge what they say of devices."""
    with deployment.database.reading() as session:
        rounds = running(session)
    ended = [found for found in rounds if conclude(deployment, found.task, found.number, now)]
    if ended:
        # A crash before this is made good when the next round opens.
        with deployment.database.transaction() as session:
            judge(session, now)


def abort(session: Session, deployment: Deployment, cohorts: Sequence[Cohort], reason: str) -> None:
    """End cohorts by the operator's word, in the session's transaction; `conclude_rounds` comes after its commit.

    Raises:
        StateConflictError: all of them have ended already.
    """
    going_on = [cohort for cohort in cohorts if cohort.state not in FINAL]
    if not going_on:
        raise StateConflictError("it has ended already; nothing was changed")
    for cohort in going_on:
        void(session, deployment, cohort, Event.ABORT, reason=reason, now_unix_s=now_unix_s())


class Ticker:
    """Advances the deployment twice a second until it is stopped, and keeps the lease meanwhile."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._keeper = Keeper(deployment.leadership)
        self._freshness = Freshness(deployment)
        self._tidied_s = -float("inf")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ticker", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._keeper.start()
        self._thread.start()

    def stop(self) -> None:
        """End, after the step that is under way; another process may lead then."""
        self._stop.set()
        self._thread.join()
        self._keeper.stop()

    def _run(self) -> None:
        while not self._stop.wait(TICK_S):
            try:
                self._freshness.keep(now_unix_s())
                advance(self._deployment)
                self._tidy()
            except NightshiftError as error:
                log.warning("could not advance", reason=error.reason, message=str(error))
            except Exception:  # noqa: BLE001 - the ticker must outlive a step that fails; the log says which
                log.exception("could not advance")

    def _tidy(self) -> None:
        """Delete orphans, once an hour, if this process leads."""
        now_s = time.monotonic()
        if now_s - self._tidied_s < orphans.EVERY_S or self._deployment.leadership.token() is None:
            return
        self._tidied_s = now_s
        orphans.collect(self._deployment, time.time())
