"""Carrying out a plan: train, take the difference, encrypt it, journal it.

What leaves this module is a row and a file on disk; `uploads` sends them. The
float vector, the secret and the encoded integers exist only in memory here.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from typing import TYPE_CHECKING

from edge_client import policy
from edge_client.agent import local_training, metrics, pace, uploads
from edge_client.agent.examination import Assignment
from edge_client.agent.releases import adapter_bytes, obtain_adapter
from edge_client.agent.session import Session
from edge_client.artefacts import Progress, no_progress
from edge_client.configuration import TrainingLimits
from edge_client.store.contributions import State, StoredContribution
from nightshift.host.failpoints import failpoint
from nightshift.host.files import make_private_directory, require_free_space, write_atomic
from nightshift.protocol.errors import DeclinedError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edge_client.training.exchange import ChildResult
    from edge_client.training.settings import TrainingSettings
    from nightshift.packages.package import ModelPackage
    from nightshift.protocol.adapters.layout import Tensors
    from nightshift.protocol.manifest import Manifest
    from nightshift.protocol.plan import PlanDocument
    from nightshift.protocol.plan_checks import VerifiedPlan

SMALLEST_WEIGHT = 1 / 8
CHECKPOINT_EVERY = 20
UPLOAD_MARGIN_S = 60
"""Training must end this long before the last moment at which the coordinator takes an upload."""


def prepare(
    session: Session,
    assignment: Assignment,
    *,
    on_step: local_training.OnStep = local_training.tell_nobody,
    on_download: Progress = no_progress,
) -> StoredContribution:
    """Train for a plan and journal the encrypted contribution; what is cut off, the timer's next pass goes on with.

    Raises:
        DeclinedError: openness, data or training do not allow it; says why.
        VerificationError: base model or parent adapter are not what the plan names.
        ResourceError: not enough disk or memory.
    """
    with pace.going_on_later(session.store.database, assignment.plan.document.latest_upload_deadline_unix_s):
        return _prepare(session, assignment, on_step, on_download)


def _prepare(
    session: Session, assignment: Assignment, on_step: local_training.OnStep, on_download: Progress
) -> StoredContribution:
    local_training.require_enabled(session.configuration.training)
    document = assignment.plan.document
    metrics.require_known(document)
    allowed = [
        source
        for source in session.store.records.sources()
        if policy.accepts_source(session.configuration.policy, document.task, source.path)
    ]
    sources = local_training.usable_sources(allowed, session.notes)
    package = _package(session, assignment, on_download)
    parent = obtain_adapter(session, assignment.parent)
    compare = {} if assignment.served is None else {metrics.SERVED: adapter_bytes(session, assignment.served)}
    directory = session.home.training / assignment.plan.plan_hash.hex()
    local_training.forget_other_runs(session.home.training, keep=directory)
    job = local_training.Job(
        package=package,
        slots=document.slots,
        adapter=parent,
        settings=_settings(assignment.plan, session.configuration.training),
        sources=sources,
        directory=directory,
        time_limit_s=_time_limit_s(session, document),
        should_stop=session.should_stop,
        compare=compare,
    )
    result = local_training.train(job, session.configuration.training, on_step=on_step)
    session.notes.extend(local_training.allocator_notes(result, session.configuration.training))
    rolled_back = session.store.served.keeps_another(document.task)
    values = _encode(document, parent, result, rolled_back=rolled_back)
    contribution = _journal(session, assignment, result, values)
    shutil.rmtree(directory, ignore_errors=True)
    return contribution


def _package(session: Session, assignment: Assignment, on_download: Progress) -> ModelPackage:
    def accept(manifest: Manifest) -> None:
        policy.check_model(session.configuration.policy, manifest)

    return session.packages.pull(
        session.connection, assignment.plan.document.base_model, accept=accept, progress=on_download
    )


def _settings(plan: VerifiedPlan, limits: TrainingLimits) -> TrainingSettings:
    from edge_client.training.adamw import Schedule
    from edge_client.training.settings import TrainingSettings

    training = plan.document.training
    max_tokens = local_training.longest_example(limits, training.max_tokens)
    return TrainingSettings(
        steps=training.steps,
        batch_size=training.batch_size,
        micro_batch_size=local_training.micro_batch_size(limits, batch_size=training.batch_size, max_tokens=max_tokens),
        learning_rate=training.learning_rate,
        schedule=Schedule(training.schedule),
        weight_decay=training.weight_decay,
        clip_norm=training.gradient_clip_norm,
        max_tokens=max_tokens,
        # From the plan, so that a run that was cut off goes on with the same order of examples.
        seed=int.from_bytes(plan.plan_hash[:7], "big"),
        proximal=training.proximal,
        checkpoint_every=CHECKPOINT_EVERY,
    )


def _time_limit_s(session: Session, document: PlanDocument) -> float:
    left = document.latest_upload_deadline_unix_s - session.now_unix_s - UPLOAD_MARGIN_S
    if left <= 0:
        raise DeclinedError("the plan's uploads end too soon to train for it; the next check-in brings a later plan")
    return float(min(left, session.configuration.training.time_ceiling_s))


def _encode(
    document: PlanDocument, parent: Tensors, result: ChildResult, *, rolled_back: bool = False
) -> NDArray[np.uint64]:
    """The integers that are encrypted: weighted delta, weight, metrics.

    Raises:
        DeclinedError: a delta of zeros, or a value that is not finite.
    """
    delta = clipped(document.slots.delta(result.outcome.adapter, parent), document.clip_norm)
    weight = contribution_weight(result.examples, document.training.examples_for_full_weight)
    values = metrics.measured(document, metrics.Night(result, weight, rolled_back))
    return document.vector.encode(delta, weight, values, os.urandom)


def clipped(delta: NDArray[np.float32], clip_norm: float) -> NDArray[np.float32]:
    """The delta with an L2 norm of at most `clip_norm` (0: no bound), norm summed in float64.

    Raises:
        DeclinedError: all zeros, or not finite.
    """
    import numpy as np

    norm = math.sqrt(float(np.dot(delta.astype(np.float64), delta.astype(np.float64))))
    if not math.isfinite(norm):
        raise DeclinedError("training left values that are not finite; nothing was sent")
    if norm == 0.0:
        raise DeclinedError("training changed nothing (a delta of zeros); nothing was sent")
    if 0 < clip_norm < norm:
        return (delta * np.float32(clip_norm / norm)).astype(np.float32)
    return delta


def contribution_weight(examples: int, examples_for_full_weight: int) -> float:
    """Weight of a device within its cohort: proportional to its examples, within a factor of 8 (1/8..1)."""
    return min(1.0, max(SMALLEST_WEIGHT, examples / examples_for_full_weight))


def _journal(
    session: Session, assignment: Assignment, result: ChildResult, values: NDArray[np.uint64]
) -> StoredContribution:
    """Encrypt, and make bytes and row durable; only then may anything be sent."""
    from nightshift.protocol.certificates import leaf_public_key
    from nightshift.protocol.identity import spki
    from nightshift.protocol.secagg.device import contribute
    from nightshift.protocol.upload import pack, upload_size_bytes

    plan = assignment.plan
    document = plan.document
    require_free_space(session.home.state, 2 * upload_size_bytes(document.parameters, document.vector.length))
    body = pack(
        contribute(
            parameters=document.parameters,
            plan_hash=plan.plan_hash,
            sender=session.identity.device_id,
            members=plan.member_keys(),
            values=values,
            sign=session.identity.sign,
            randomness=os.urandom,
        )
    )
    if session.configuration.debug.keep_encoded_vector:
        _keep_encoded(session, document.cohort_id, values)
    contribution = StoredContribution(
        cohort_id=document.cohort_id,
        plan_hash=plan.plan_hash,
        task=document.task,
        round=document.round_number,
        parent_release=assignment.parent.release_id,
        parent_adapter_sha256=assignment.parent.document.adapter_sha256,
        state=State.PREPARED,
        body_sha256=hashlib.sha256(body).digest(),
        body_size_bytes=len(body),
        examples=result.examples,
        n_min=document.n_min,
        upload_deadline_unix_s=document.latest_upload_deadline_unix_s,
        latest_prekey_expiry_unix_s=max(member.prekey.not_after for member in document.committee),
        committee_keys=tuple(spki(leaf_public_key(member.certificate)) for member in document.committee),
        erasures_required=document.parameters.erasures_required,
        created_at_unix_s=session.now_unix_s,
    )
    write_atomic(uploads.body_file(session.home, document.cohort_id), body)
    failpoint("device.encrypted.unjournaled")
    session.store.contributions.add(contribution)
    failpoint("device.encrypted")
    return contribution


def _keep_encoded(session: Session, cohort_id: bytes, values: NDArray[np.uint64]) -> None:
    """Only when the owner set debug.keep_encoded_vector: what was encrypted, in the clear, on this disk."""
    import io

    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, values)
    make_private_directory(session.home.debug)
    write_atomic(session.home.debug / f"encoded-{cohort_id.hex()}.npy", buffer.getvalue())
