"""Rows as the records that `--json` prints and tables show."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from coordinator.admin.admins import state_of
from coordinator.aggregation import places
from coordinator.releases import decisions
from coordinator.releases.publication import newest_release
from coordinator.rounds.prekeys import unspent
from coordinator.rounds.rounds import cohorts_of
from coordinator.rounds.seats import words
from coordinator.rounds.standing import record_of
from coordinator.rounds.standing import suspicion as suspicion_now
from coordinator.rounds.suspects import Suspicion
from coordinator.rounds.task_settings import TaskSettings
from coordinator.rounds.turns import in_order
from coordinator.storage.rows import (
    AdminRow,
    AuditRow,
    Cohort,
    CohortState,
    CommitteeSeat,
    Contribution,
    DecisionRow,
    Device,
    Model,
    ReleaseRow,
    Round,
    Task,
    Token,
)
from nightshift.protocol.manifest import Manifest
from nightshift.protocol.readable_ids import readable_id
from nightshift.protocol.release import ReleaseDocument
from nightshift.protocol.times import rfc3339


def token_record(token: Token, now_unix_s: int) -> dict[str, Any]:
    """A token, without its secret, which nobody has any more."""
    if token.revoked_unix_s is not None:
        state = "revoked"
    elif now_unix_s >= token.expires_unix_s:
        state = "expired"
    else:
        state = "used up" if token.uses >= token.uses_allowed else "valid"
    return {
        "token_id": token.token_id,
        "state": state,
        "uses": token.uses,
        "uses_allowed": token.uses_allowed,
        "created": rfc3339(token.created_unix_s),
        "expires": rfc3339(token.expires_unix_s),
    }


def device_record(
    session: Session, device: Device, now_unix_s: int, suspicion: Suspicion | None = None
) -> dict[str, Any]:
    """A device: who it is, when it last did something, how long its certificate lasts, and what is wrong with it.

    Args:
        session: reads.
        device: which.
        now_unix_s: when.
        suspicion: of all devices, where the caller has it already.
    """
    standing = record_of(session, suspicion or suspicion_now(session, now_unix_s), device)
    contributed = session.scalar(
        select(func.max(Contribution.counted_unix_s)).where(Contribution.device_id == device.device_id)
    )
    return {
        "device_id": device.device_id.hex(),
        "fingerprint": readable_id(device.device_id),
        "name": device.name,
        "state": device.state.value,
        "enrolled": rfc3339(device.enrolled_unix_s),
        "last_seen": rfc3339(device.last_seen_unix_s),
        "last_contribution": rfc3339(contributed),
        "client_version": device.client_version,
        "rank_limit": device.rank_limit,
        "certificate_expires": rfc3339(device.certificate_not_after_unix_s),
        "certificate_days": (device.certificate_not_after_unix_s - now_unix_s) // 86_400,
        "held_since": rfc3339(device.held_unix_s),
        "suspicion": standing.verdict,
        "suspected_with": standing.with_,
        "shares_refused_by": standing.named_by,
        "refused_without_need": standing.refused,
        "kept_off_committees": standing.doubtful,
        "quarantined_since": rfc3339(device.quarantined_unix_s),
        "prekeys": unspent(session, device, now_unix_s),
    }


def model_record(model: Model) -> dict[str, Any]:
    """A model package."""
    manifest = Manifest.from_bytes(model.manifest)
    return {
        "alias": model.alias,
        "package_id": model.package_id.hex(),
        "family": manifest.dimensions.family,
        "quantisation": manifest.quantisation.scheme.value,
        "uses": manifest.uses.value,
        "licence": manifest.licence.spdx,
        "openness_class": manifest.openness.mof_class.value,
        "weights_licence": manifest.openness.weights_freedom.value,
        "source": None
        if manifest.source is None
        else f"{manifest.source.repository}@{manifest.source.revision}:{manifest.source.file}".rstrip(":"),
        "size_bytes": sum(file.size_bytes for file in manifest.files),
        "added": rfc3339(model.added_unix_s),
    }


def task_record(session: Session, task: Task) -> dict[str, Any]:
    """A task and how far it has come."""
    settings = TaskSettings.model_validate_json(task.settings)
    newest = session.scalar(select(func.max(ReleaseRow.number)).where(ReleaseRow.task == task.name))
    rounds = session.scalar(select(func.max(Round.number)).where(Round.task == task.name))
    return {
        "name": task.name,
        "state": task.state.value,
        "model": settings.model,
        "package_id": task.package_id.hex(),
        "method": settings.adapter.method.value,
        "rank": settings.adapter.rank,
        "ranks": list(settings.adapter.trained_ranks),
        "rounds_open": settings.rounds.open,
        "rounds_held": rounds or 0,
        "releases": newest or 0,
        "releases_wanted": settings.rounds.total or None,
        "created": rfc3339(task.created_unix_s),
        "turn": next((place for place, due in enumerate(in_order(session), 1) if due.name == task.name), None),
        "served": rfc3339(task.served_unix_s),
    }


def round_record(session: Session, found: Round, cohorts: Sequence[Cohort] | None = None) -> dict[str, Any]:
    """A round with its cohorts, or with those of them that were asked for."""
    all_cohorts = cohorts_of(session, found)
    numbers = {cohort.cohort_id: number for number, cohort in enumerate(all_cohorts, start=1)}
    return {
        "task": found.task,
        "round": found.number,
        "state": found.state.value,
        "contributions": sum(cohort.counted for cohort in all_cohorts),
        "cohorts_opened": sum(cohort.state is CohortState.OPENED for cohort in all_cohorts),
        "cohorts_void": sum(cohort.state is CohortState.VOID for cohort in all_cohorts),
        "opened": rfc3339(found.opened_unix_s),
        "ended": rfc3339(found.ended_unix_s),
        "reason": found.reason,
        "parent_release": found.parent_release.hex(),
        "release_id": found.release_id.hex() if found.release_id else None,
        "metrics": json.loads(found.metrics),
        "cohorts": [
            cohort_record(session, cohort, numbers[cohort.cohort_id])
            for cohort in (all_cohorts if cohorts is None else cohorts)
        ],
    }


def cohort_record(session: Session, cohort: Cohort, number: int) -> dict[str, Any]:
    """One cohort of a round."""
    seats = session.scalars(
        select(CommitteeSeat).where(CommitteeSeat.cohort_id == cohort.cohort_id).order_by(CommitteeSeat.member_index)
    ).all()
    said = words(session, cohort.cohort_id)
    return {
        "cohort": number,
        "cohort_id": cohort.cohort_id.hex(),
        "state": cohort.state.value,
        "contributions": cohort.counted,
        "trained_rank": cohort.trained_rank,
        "n_min": cohort.n_min,
        "n_max": cohort.n_max,
        "answers": list(said.values()).count("answer"),
        "refusals": list(said.values()).count("refusal"),
        "erasures": len(said) - list(said.values()).count("answer"),
        "threshold": cohort.threshold,
        "uploads_until": rfc3339(cohort.upload_deadline_unix_s),
        "answers_until": rfc3339(cohort.answer_deadline_unix_s),
        "ended": rfc3339(cohort.ended_unix_s),
        "reason": cohort.reason,
        "plan_hash": cohort.plan_hash.hex(),
        "metrics": json.loads(cohort.metrics),
        "sum_object": places.opened_key(cohort.cohort_id) if cohort.state is CohortState.OPENED else None,
        "members_outside": json.loads(cohort.members_outside),
        "members_disputed": json.loads(cohort.members_disputed),
        "committee": [
            {
                "index": seat.member_index,
                "device_id": seat.device_id.hex(),
                "said": said.get(seat.member_index),
            }
            for seat in seats
        ],
    }


def release_record(session: Session, row: ReleaseRow) -> dict[str, Any]:
    """A release, and how it stands."""
    document = ReleaseDocument.parse(row.document)
    return {
        "task": row.task,
        "number": row.number,
        "release_id": row.release_id.hex(),
        "parent": row.parent.hex() if row.parent else None,
        "contributors": row.contributors,
        "adapter_sha256": row.adapter_sha256.hex(),
        "adapter_size_bytes": document.adapter_size_bytes,
        "published": rfc3339(row.time_unix_s),
        "log_position": row.log_position,
        "served": decisions.served_release(session, row.task).release_id == row.release_id,
        "next_parent": newest_release(session, row.task).release_id == row.release_id,
        "restores": row.restores.hex() if row.restores else None,
    }


def decision_record(session: Session, row: DecisionRow) -> dict[str, Any]:
    """What was decided about the releases of a task."""

    def number_of(release_id: bytes) -> int:
        return session.get_one(ReleaseRow, release_id).number

    return {
        "task": row.task,
        "number": row.number,
        "kind": row.kind,
        "served": number_of(row.served),
        "judged": number_of(row.judged),
        "next_parent": number_of(row.next_parent),
        "reason": row.reason,
        "decided": rfc3339(row.time_unix_s),
        "log_position": row.log_position,
        "decision_id": row.decision_id.hex(),
    }


def audit_record(row: AuditRow) -> dict[str, Any]:
    """One change."""
    return {
        "audit_id": row.audit_id,
        "time": rfc3339(row.time_unix_s),
        "actor": row.actor,
        "verb": row.verb,
        "subject": row.subject,
        "detail": row.detail,
    }


def admin_record(row: AdminRow, now_unix_s: int) -> dict[str, Any]:
    """An operator's certificate."""
    return {
        "name": row.name,
        "admin_id": row.admin_id.hex(),
        "role": row.role.value,
        "state": state_of(row, now_unix_s),
        "issued": rfc3339(row.issued_unix_s),
        "expires": rfc3339(row.expires_unix_s),
        "last_seen": rfc3339(row.last_seen_unix_s),
    }
