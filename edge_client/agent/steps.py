"""The steps of a pass in their order: what was left over, duties, releases, and at most one new contribution.

A step that fails does not take the others with it: what is safe is finished, every
problem is reported, and the exit code is that of the gravest (`report.SEVERITY`).
Only a coordinator that cannot be reached or is busy, that has revoked this device, or
whose log is not the one seen before ends the pass at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from edge_client.adapters_in_use import forget_unused_files
from edge_client.agent import local_training, pace, uploads
from edge_client.agent.report import PassReport
from edge_client.agent.session import Session
from edge_client.artefacts import Progress, no_progress
from edge_client.connection import connect
from edge_client.ledger import readable_size
from edge_client.store.answers import Kind
from edge_client.traffic_meter import Meter
from nightshift.protocol.errors import (
    DeclinedError,
    NightshiftError,
    OverloadedError,
    RevokedError,
    StateConflictError,
    UnreachableError,
)

if TYPE_CHECKING:
    from edge_client.agent.check_in import CheckedIn
    from edge_client.agent.examination import Assignment
    from edge_client.agent.updates import TrustedTargets
    from edge_client.store.contributions import StoredContribution
    from nightshift.protocol.decision import VerifiedDecision
    from nightshift.protocol.release import VerifiedRelease

Result = TypeVar("Result")

CHECK_IN_ATTEMPTS = 3
_FIRST_PAUSE_S = 0.5


@dataclass(frozen=True, slots=True)
class Watcher:
    """Who is told how far it is."""

    on_step: local_training.OnStep = local_training.tell_nobody
    on_download: Progress = no_progress


class Steps:
    """The steps of one pass.

    Args:
        session: of this pass.
        report: told what became of each.
        watcher: told how far it is.
        stack: closes what the pass opens.
        meter: counts what a further connection carries.
        dry_run: ask what would be done, and do none of it.
    """

    def __init__(
        self,
        session: Session,
        report: PassReport,
        watcher: Watcher,
        stack: ExitStack,
        meter: Meter,
        *,
        dry_run: bool,
    ) -> None:
        self._session = session
        self._report = report
        self._watcher = watcher
        self._stack = stack
        self._meter = meter
        self._dry_run = dry_run
        self._over = False

    def run(self) -> None:
        """All steps."""
        self._attempt(self._require_certificate, fatal=True)
        if not self._dry_run:
            self._left_over_uploads()
        checked = self._attempt(self._check_in, fatal=True)
        if checked is None:
            return
        if not self._dry_run:
            pace.nothing_cut_off(self._session.store.database)
        self._attempt(self._renew)
        self._duties(checked)
        self._erasures(checked)
        from edge_client.agent.releases import nothing_new
        from edge_client.agent.updates import unchanged

        response = checked.response
        settled = nothing_new(self._session, response) and unchanged(self._session, response)
        if response.HasField("plan") or not settled:
            releases = self._attempt(partial(self._verify_releases, checked))
            if releases is not None and not settled:
                self._adopt(checked, releases)
            if releases is not None and response.HasField("plan"):
                self._attempt(partial(self._contribute, checked, releases))
        if not self._dry_run:
            self._look_again()

    def _attempt(self, step: Callable[[], Result], *, fatal: bool = False) -> Result | None:
        """Run a step; note why it failed, and whether the pass can go on."""
        if self._over:
            return None
        try:
            return step()
        except NightshiftError as error:
            self._report.add_problem(error)
            self._session.report(error)
            self._over = fatal or isinstance(error, UnreachableError | OverloadedError | RevokedError)
            if not self._dry_run:
                database = self._session.store.database
                pace.note_failure(database, self._session.now_unix_s, error, draw=pace.draw())
            return None

    def _require_certificate(self) -> None:
        from edge_client.agent.renewal import usable_membership

        membership = usable_membership(self._session)
        if membership is not self._session.membership:
            connection = self._stack.enter_context(connect(self._session.identity, membership, self._meter))
            self._session = replace(self._session, membership=membership, connection=connection)

    def _renew(self) -> None:
        from edge_client.agent.renewal import renew, renewal_is_due

        if not renewal_is_due(self._session):
            return
        if self._dry_run:
            self._report.would.append("would renew this device's certificate")
        else:
            renew(self._session)

    def _left_over_uploads(self) -> None:
        store = self._session.store
        uploads.forget_finished_files(self._session.home, store)
        forget_unused_files(self._session.home, store)
        for contribution in store.contributions.unfinished():
            self._attempt(partial(self._send, contribution))

    def _send(self, contribution: StoredContribution) -> None:
        uploads.send(self._session, contribution)
        self._report.sent.append(f"{contribution.task}/{contribution.round}")

    def _check_in(self) -> CheckedIn:
        from edge_client.agent.check_in import check_in, peek

        if self._dry_run:
            return peek(self._session)
        for attempt in range(CHECK_IN_ATTEMPTS - 1):
            try:
                return check_in(self._session)
            except UnreachableError:
                # A radio that sleeps, or a machine that woke just now: the same request again, with jitter.
                time.sleep(_FIRST_PAUSE_S * 2**attempt * (0.5 + pace.draw()))
        return check_in(self._session)

    def _duties(self, checked: CheckedIn) -> None:
        for duty in checked.response.duties:
            if self._dry_run:
                self._report.would.append(f"would answer for cohort {duty.cohort_id.hex()[:16]}")
            else:
                self._attempt(partial(self._serve, duty.cohort_id))

    def _serve(self, cohort_id: bytes) -> None:
        from edge_client.agent.duties import serve

        try:
            answer = serve(self._session, cohort_id)
        except StateConflictError as error:
            # The others were faster, or the time is over: nothing went wrong here.
            self._session.notes.append(f"cohort {cohort_id.hex()[:16]} needs no answer any more: {error}")
            return
        said = self._report.answered if answer.kind is Kind.ANSWER else self._report.refused
        said.append(answer.cohort_id.hex())

    def _erasures(self, checked: CheckedIn) -> None:
        for duty in checked.response.erasures:
            if self._dry_run:
                self._report.would.append(f"would lay void cohort {duty.cohort_id.hex()[:16]} to rest")
            else:
                self._attempt(partial(self._lay_to_rest, duty.cohort_id))

    def _lay_to_rest(self, cohort_id: bytes) -> None:
        from edge_client.agent.erasures import lay_to_rest

        try:
            lay_to_rest(self._session, cohort_id)
        except DeclinedError as error:
            # Nothing went wrong: this device is not the one that can say it.
            self._session.notes.append(str(error))
            return
        self._report.laid_to_rest.append(cohort_id.hex())

    def _verify_releases(self, checked: CheckedIn) -> Mapping[bytes, VerifiedRelease]:
        from edge_client.agent.releases import verify_offers

        return verify_offers(self._session, checked.response, checked.view)

    def _adopt(self, checked: CheckedIn, verified: Mapping[bytes, VerifiedRelease]) -> None:
        from edge_client.agent.releases import chosen_tasks
        from edge_client.agent.updates import refresh, settle

        problems = len(self._report.problems)
        decisions = self._attempt(partial(self._note, checked, verified))
        targets = None if decisions is None else self._attempt(partial(refresh, self._session, checked.response))
        if decisions is None or targets is None:
            return
        for task in chosen_tasks(self._session, verified):
            self._attempt(partial(self._follow, targets, task, verified, decisions))
        # Cut off before this, or failed, the next pass looks at the same metadata again.
        if len(self._report.problems) == problems and not self._dry_run:
            self._attempt(partial(settle, self._session, targets, verified))

    def _note(self, checked: CheckedIn, verified: Mapping[bytes, VerifiedRelease]) -> list[VerifiedDecision]:
        """Remember the releases and decisions that were shown; returns the decisions."""
        from edge_client.agent.decisions import remember_newest, verify_decisions
        from edge_client.agent.releases import note_releases

        decisions = verify_decisions(self._session, checked.response, checked.view)
        if not self._dry_run:
            note_releases(self._session, verified)
            remember_newest(self._session, decisions)
        return decisions

    def _follow(
        self,
        targets: TrustedTargets,
        task: str,
        verified: Mapping[bytes, VerifiedRelease],
        decisions: list[VerifiedDecision],
    ) -> None:
        from edge_client.agent.decisions import require_decision
        from edge_client.agent.following import Step, follow, next_step

        release = targets.choose(task, verified)
        if release is None:
            # None is served yet, or another since the check-in: the next pass is offered it.
            return
        decision = require_decision(decisions, release)
        targets.check_package(release.document.base_model)
        if self._dry_run:
            if next_step(self._session, release) is Step.ADOPT:
                self._report.would.append(f"would adopt {task}/{release.document.number}")
            return
        followed = follow(self._session, release, decision)
        self._report.adopted += [followed.adopted] if followed.adopted is not None else []
        self._report.kept_back += [followed.kept] if followed.kept is not None else []

    def _look_again(self) -> None:
        """Compare what could not be compared when it was adopted; what is worse here goes out of use."""
        from edge_client.agent.following import look_again

        for task in self._session.store.adapters.tasks():
            name = self._attempt(partial(look_again, self._session, task))
            self._report.kept_back += [name] if name is not None else []

    def _assignment(self, checked: CheckedIn, releases: Mapping[bytes, VerifiedRelease]) -> Assignment | None:
        """The first plan, in the coordinator's order of tasks, that may be carried out; None if there is nothing to do.

        Where the last one is declined as well, that is the pass's problem; the others are notes.
        """
        from edge_client.agent.examination import examine
        from edge_client.agent.next_task import next_offer, offered_task

        declined: list[str] = []
        while True:
            try:
                return examine(self._session, checked, releases)
            except DeclinedError as error:
                declined.append(offered_task(checked))
                following = next_offer(self._session, checked, declined)
                if following is None:
                    raise
                self._session.notes.append(str(error))
            checked, releases = following, self._verify_releases(following)

    def _contribute(self, checked: CheckedIn, releases: Mapping[bytes, VerifiedRelease]) -> None:
        from edge_client.agent import contribution
        from edge_client.agent.updates import require_listed

        assignment = self._assignment(checked, releases)
        if assignment is None:
            return
        document = assignment.plan.document
        if self._dry_run:
            self._report.would.append(
                f"would train {document.training.steps} steps for task {document.task!r}, round "
                f"{document.round_number}, and contribute to a sum over at least {document.n_min} devices"
            )
            return
        require_listed(self._session, checked.response, document.base_model)
        prepared = contribution.prepare(
            self._session, assignment, on_step=self._watcher.on_step, on_download=self._watcher.on_download
        )
        self._send(prepared)
        self._session.notes.append(
            f"trained on {prepared.examples} examples, sent {readable_size(prepared.body_size_bytes)}"
        )
