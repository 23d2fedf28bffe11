"""Tasks: created once with release 0, paused and resumed."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from coordinator.deployment import Deployment
from coordinator.models.catalogue import find_model
from coordinator.releases import decisions
from coordinator.releases.publication import publish, store_adapter
from coordinator.releases.repository import add_package
from coordinator.rounds.states import TASK, TaskEvent
from coordinator.rounds.task_settings import TaskSettings
from coordinator.storage.rows import Task
from nightshift.protocol.adapters.initialise import initialise
from nightshift.protocol.adapters.layout import Side
from nightshift.protocol.decision import DecisionKind
from nightshift.protocol.errors import NotFoundError, UsageError
from nightshift.protocol.manifest import Manifest


def create_task(session: Session, deployment: Deployment, settings: TaskSettings, now_unix_s: int) -> Task:
    """Create a task and publish its release 0, the untrained adapter of a seed.

    Raises:
        UsageError: the name is taken, or the adapter does not fit the model.
        IncompatibleError: the model is for inference only.
        NotFoundError: no such model.
    """
    if session.get(Task, settings.name) is not None:
        raise UsageError(f"a task called {settings.name!r} exists; choose another name")
    model = find_model(session, settings.model)
    manifest = Manifest.from_bytes(model.manifest)
    manifest.require_training()
    missing = [name for name in settings.adapter.targets if name not in manifest.lora_targets]
    if missing:
        raise UsageError(
            f"model {model.alias} was packaged without adapter inputs for {', '.join(missing)}; "
            "package it again with these targets, or leave them out of the task"
        )
    layout = settings.layout(manifest.dimensions)
    settings.vector(layout, Side.BOTH)  # refuses a vector that no contribution could carry
    seed = bytes.fromhex(settings.adapter.seed) or secrets.token_bytes(32)
    task = Task(
        name=settings.name,
        state=TASK.initial,
        package_id=model.package_id,
        settings=settings.model_dump_json(),
        seed=seed,
        created_unix_s=now_unix_s,
    )
    session.add(task)
    session.flush()
    add_package(session, deployment, model.package_id, len(model.manifest), now_unix_s)
    adapter = store_adapter(deployment.objects, layout, initialise(layout, seed))
    first = publish(session, deployment, task, adapter, parent=None, now_unix_s=now_unix_s)
    decisions.decide(
        session,
        deployment,
        DecisionKind.FIRST,
        decisions.Outcome(served=first, next_parent=first),
        judged=first,
        reason="the untrained adapter, which changes nothing",
        now_unix_s=now_unix_s,
    )
    return task


def list_tasks(session: Session) -> Sequence[Task]:
    """All tasks, by name."""
    return session.scalars(select(Task).order_by(Task.name)).all()


def find_task(session: Session, name: str) -> Task:
    """A task by its name.

    Raises:
        NotFoundError: no such task.
    """
    task = session.get(Task, name)
    if task is None:
        known = ", ".join(row.name for row in list_tasks(session)) or "none; see `coordinator task create`"
        raise NotFoundError(f"there is no task {name!r}; known tasks: {known}")
    return task


def set_paused(session: Session, name: str, *, paused: bool) -> Task:
    """Stop or let go on the opening of rounds; a round that is running ends as planned."""
    task = find_task(session, name)
    task.state = TASK.next(task.state, TaskEvent.PAUSE if paused else TaskEvent.RESUME)
    return task
