"""Rows as the records that `--json` prints and tables show."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from coordinator.aggregation import places
from coordinator.cli.command import rfc3339
from coordinator.rounds.prekeys import unspent
from coordinator.rounds.task_settings import TaskSettings
from coordinator.storage.rows import (
    AnswerRow,
    Cohort,
    CohortState,
    CommitteeSeat,
    Device,
    Model,
    ReleaseRow,
    Task,
    Token,
)
from nightshift.protocol.manifest import Manifest
from nightshift.protocol.release import ReleaseDocument


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


def device_record(session: Session, device: Device, now_unix_s: int) -> dict[str, Any]:
    """A device."""
    return {
        "device_id": device.device_id.hex(),
        "name": device.name,
        "state": device.state.value,
        "enrolled": rfc3339(device.enrolled_unix_s),
        "last_seen": rfc3339(device.last_seen_unix_s),
        "client_version": device.client_version,
        "certificate_expires": rfc3339(device.certificate_not_after_unix_s),
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
        "licence": manifest.licence.spdx,
        "size_bytes": sum(file.size_bytes for file in manifest.files),
        "added": rfc3339(model.added_unix_s),
    }


def task_record(session: Session, task: Task) -> dict[str, Any]:
    """A task and how far it has come."""
    settings = TaskSettings.model_validate_json(task.settings)
    newest = session.scalar(select(func.max(ReleaseRow.number)).where(ReleaseRow.task == task.name))
    rounds = session.scalar(select(func.max(Cohort.round_number)).where(Cohort.task == task.name))
    return {
        "name": task.name,
        "state": task.state.value,
        "model": settings.model,
        "package_id": task.package_id.hex(),
        "method": settings.adapter.method.value,
        "rank": settings.adapter.rank,
        "rounds_open": settings.rounds.open,
        "rounds_held": rounds or 0,
        "releases": newest or 0,
        "releases_wanted": settings.rounds.total or None,
        "created": rfc3339(task.created_unix_s),
    }


def round_record(session: Session, cohort: Cohort) -> dict[str, Any]:
    """A round's cohort."""
    seats = session.scalars(
        select(CommitteeSeat).where(CommitteeSeat.cohort_id == cohort.cohort_id).order_by(CommitteeSeat.member_index)
    ).all()
    answered = set(session.scalars(select(AnswerRow.member_index).where(AnswerRow.cohort_id == cohort.cohort_id)))
    return {
        "task": cohort.task,
        "round": cohort.round_number,
        "cohort_id": cohort.cohort_id.hex(),
        "state": cohort.state.value,
        "contributions": cohort.counted,
        "n_min": cohort.n_min,
        "n_max": cohort.n_max,
        "answers": len(answered),
        "threshold": cohort.threshold,
        "opened": rfc3339(cohort.created_unix_s),
        "uploads_until": rfc3339(cohort.upload_deadline_unix_s),
        "answers_until": rfc3339(cohort.answer_deadline_unix_s),
        "ended": rfc3339(cohort.ended_unix_s),
        "reason": cohort.reason,
        "plan_hash": cohort.plan_hash.hex(),
        "release_id": cohort.release_id.hex() if cohort.release_id else None,
        "metrics": json.loads(cohort.metrics),
        "sum_object": places.opened_key(cohort.cohort_id) if cohort.state is CohortState.OPENED else None,
        "committee": [
            {
                "index": seat.member_index,
                "device_id": seat.device_id.hex(),
                "answered": seat.member_index in answered,
            }
            for seat in seats
        ],
    }


def release_record(row: ReleaseRow) -> dict[str, Any]:
    """A release."""
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
    }
