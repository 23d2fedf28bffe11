"""Making a plan: one transaction from the pool to the signed, logged plan.

The pool is logged first. The log's size and root right after it seed the draw
of the committee, and the plan is appended at exactly that size, so that the
coordinator has no room to choose members: whoever holds the log can draw again.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from coordinator.deployment import Deployment
from coordinator.releases.decisions import compared_with
from coordinator.releases.publication import rounds_learned
from coordinator.rounds import prekeys
from coordinator.rounds.pool import PoolEntry
from coordinator.rounds.states import COHORT
from coordinator.rounds.task_settings import TaskSettings
from coordinator.storage.rows import Cohort, CommitteeSeat, Model, ReleaseRow, Task
from nightshift.protocol.adapters.slots import TrainedSlots
from nightshift.protocol.identity import DeviceId
from nightshift.protocol.manifest import Manifest
from nightshift.protocol.metrics import ALWAYS, COMPARING
from nightshift.protocol.plan import (
    PROTOCOL_VERSION,
    PlanDocument,
    committee_seed,
    layout_to_proto,
    plan_hash,
    pool_digest,
    prekey_to_proto,
    side_to_proto,
    sign_plan,
)
from nightshift.protocol.secagg.committee import committee_size, draw
from nightshift.protocol.secagg.parameters import CohortParameters
from nightshift.v1 import log_pb2, plan_pb2


@dataclass(frozen=True, slots=True)
class Deadlines:
    """When the parts of a cohort's night end, Unix seconds."""

    upload_unix_s: int
    latest_upload_unix_s: int
    answer_unix_s: int

    @classmethod
    def of(cls, settings: TaskSettings, now_unix_s: int) -> Deadlines:
        """Those of a round that opens now."""
        rounds = settings.rounds
        upload = now_unix_s + rounds.upload_window_s
        latest = upload + rounds.upload_extension_s
        return cls(upload, latest, latest + rounds.answer_window_s)


def open_cohort(
    session: Session,
    deployment: Deployment,
    task: Task,
    settings: TaskSettings,
    *,
    round_number: int,
    trained_rank: int,
    parent: ReleaseRow,
    entries: Sequence[PoolEntry],
    deadlines: Deadlines,
    now_unix_s: int,
) -> Cohort:
    """Draw a committee from a pool, sign and log the plan, and open its cohort, in the session's transaction.

    Args:
        session: a transaction.
        deployment: whose log and key.
        task: what is learned.
        settings: of the task.
        round_number: of the round that the cohort is part of.
        trained_rank: how many rank slots its contributors train.
        parent: the release that the round trains on from.
        entries: the pool, at least three devices, each with an unspent prekey.
        deadlines: of the round.
        now_unix_s: the time that the log gets.
    """
    cohort_id = secrets.token_bytes(32)
    ids = [DeviceId(entry.device.device_id) for entry in entries]
    deployment.log.append(
        session,
        log_pb2.LOG_ENTRY_KIND_POOL,
        time_unix_s=now_unix_s,
        subject=cohort_id,
        digest=pool_digest(ids),
    )
    seed = deployment.log.snapshot(session)
    drawn = draw(
        committee_seed(seed.size, seed.root, cohort_id),
        cohort_id,
        ids,
        committee_size(len(ids), settings.cohort.committee),
    )
    by_id = {entry.device.device_id: entry for entry in entries}
    committee = [by_id[identity] for identity in drawn]
    parameters = CohortParameters.derive(
        n_max=settings.cohort.n_max, value_bits=settings.encoding.value_bits, committee_size=len(committee)
    )
    layout = settings.layout(Manifest.from_bytes(session.get_one(Model, task.package_id).manifest).dimensions)
    side = settings.adapter.method.side_for_round(rounds_learned(session, parent))
    slots = TrainedSlots(layout, side, trained_rank)
    compared = compared_with(session, parent) if settings.gate.enabled else None
    plan = plan_pb2.Plan(
        protocol_version=PROTOCOL_VERSION,
        cohort_id=cohort_id,
        round=round_number,
        task=task.name,
        base_model=task.package_id,
        parent_release=parent.release_id,
        served_release=b"" if compared is None else compared.release_id,
        layout=layout_to_proto(layout),
        side=side_to_proto(slots.side),
        trained_rank=slots.rank,
        training=_training(settings),
        encoding=_encoding(settings, slots, metrics=ALWAYS if compared is None else (*ALWAYS, *COMPARING)),
        n_max=settings.cohort.n_max,
        n_min=settings.cohort.n_min,
        pool=ids,
        committee=_members(committee),
        threshold=parameters.threshold,
        upload_deadline_unix_s=deadlines.upload_unix_s,
        latest_upload_deadline_unix_s=deadlines.latest_upload_unix_s,
        answer_deadline_unix_s=deadlines.answer_unix_s,
        seed_log_size=seed.size,
        seed_log_root=seed.root,
    )
    return _commit(session, deployment, plan, committee, now_unix_s)


def _training(settings: TaskSettings) -> plan_pb2.TrainingSettings:
    return plan_pb2.TrainingSettings(**settings.training.model_dump())


def _encoding(settings: TaskSettings, slots: TrainedSlots, *, metrics: Sequence[str]) -> plan_pb2.VectorEncoding:
    encoding = settings.encoding
    return plan_pb2.VectorEncoding(
        delta_length=slots.length,
        metrics=metrics,
        value_bits=encoding.value_bits,
        value_clip=encoding.clip(slots.length),
        clip_norm=encoding.clip_norm,
        noise_multiplier=encoding.noise_multiplier,
        rotated=encoding.rotated,
    )


def _members(committee: Sequence[PoolEntry]) -> list[plan_pb2.CommitteeMember]:
    return [
        plan_pb2.CommitteeMember(
            index=index,
            prekey=prekey_to_proto(prekeys.signed(entry.prekey)),
            certificate=entry.device.certificate,
        )
        for index, entry in enumerate(committee, start=1)
    ]


def _commit(
    session: Session,
    deployment: Deployment,
    plan: plan_pb2.Plan,
    committee: Sequence[PoolEntry],
    now_unix_s: int,
) -> Cohort:
    """Sign and log the plan, bind the members' prekeys to it, and add the rows."""
    plan_bytes = plan.SerializeToString(deterministic=True)
    document = PlanDocument.parse(plan_bytes)  # what devices would refuse is never signed
    position = deployment.log.append(
        session,
        log_pb2.LOG_ENTRY_KIND_PLAN,
        time_unix_s=now_unix_s,
        subject=document.cohort_id,
        digest=plan_hash(plan_bytes),
    )
    assert position == document.seed_log_size, "the plan must follow its seed without a gap"
    cohort = Cohort(
        cohort_id=document.cohort_id,
        task=document.task,
        round_number=document.round_number,
        state=COHORT.initial,
        plan=plan_bytes,
        plan_hash=plan_hash(plan_bytes),
        plan_signature=sign_plan(plan_bytes, deployment.authority.sign),
        plan_position=position,
        parent_release=document.parent_release,
        trained_rank=document.slots.rank,
        n_min=document.n_min,
        n_max=document.n_max,
        threshold=document.parameters.threshold,
        created_unix_s=now_unix_s,
        upload_deadline_unix_s=document.upload_deadline_unix_s,
        latest_upload_deadline_unix_s=document.latest_upload_deadline_unix_s,
        answer_deadline_unix_s=document.answer_deadline_unix_s,
    )
    session.add(cohort)
    session.flush()
    for index, entry in enumerate(committee, start=1):
        entry.prekey.spent_on = document.cohort_id
        assert entry.device.certificate_position is not None, "a device is enrolled and logged together"
        session.add(
            CommitteeSeat(
                cohort_id=document.cohort_id,
                member_index=index,
                device_id=entry.device.device_id,
                prekey_epoch=entry.prekey.epoch,
                prekey_serial=entry.prekey.serial,
                certificate_position=entry.device.certificate_position,
            )
        )
    session.flush()
    return cohort
