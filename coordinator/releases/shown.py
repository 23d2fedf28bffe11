"""What a check-in shows of releases: the served, the newest, a plan's parent, and the decisions behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from coordinator.aggregation.documents import document_of
from coordinator.releases.decisions import newest_decision, served_release
from coordinator.releases.publication import newest_release
from coordinator.storage.rows import Cohort, DecisionRow, ReleaseRow


@dataclass(frozen=True, slots=True)
class Shown:
    """Rows that a device is shown, each once."""

    releases: Sequence[ReleaseRow]
    decisions: Sequence[DecisionRow]


def shown(session: Session, tasks: Sequence[str]) -> Shown:
    """What any device needs to serve.

    Args:
        session: reads.
        tasks: all of them.
    """
    releases = [find(session, task) for task in tasks for find in (served_release, newest_release)]
    return _once(releases, [row for row in (newest_decision(session, task) for task in tasks) if row is not None])


def shown_with_plan(session: Session, cohort: Cohort) -> Shown:
    """What a device needs to carry out a plan.

    Args:
        session: reads.
        cohort: whose plan it is offered.
    """
    parent = session.get_one(ReleaseRow, cohort.parent_release)
    releases: list[ReleaseRow] = [parent]
    decisions: list[DecisionRow] = []
    compared = document_of(cohort).served_release
    if compared is not None:
        releases.append(session.get_one(ReleaseRow, compared))
    if parent.restores is not None:
        made = select(DecisionRow).where(DecisionRow.next_parent == parent.release_id).order_by(DecisionRow.number)
        decisions += session.scalars(made.limit(1))
    return _once(releases, decisions)


def _once(releases: Sequence[ReleaseRow], decisions: Sequence[DecisionRow]) -> Shown:
    return Shown(
        list({row.release_id: row for row in releases}.values()),
        list({row.decision_id: row for row in decisions}.values()),
    )
