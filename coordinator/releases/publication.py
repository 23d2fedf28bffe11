"""Releases: made from an adapter, signed, logged, and from then on the parent of the next plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from coordinator.deployment import Deployment
from coordinator.log import LogSnapshot
from coordinator.storage import artefacts
from coordinator.storage.objects import Objects
from coordinator.storage.rows import ReleaseRow, Task
from nightshift.protocol.adapters.formats import from_safetensors, to_safetensors
from nightshift.protocol.adapters.layout import AdapterLayout, Tensors
from nightshift.protocol.errors import NotFoundError
from nightshift.protocol.log import task_subject
from nightshift.protocol.plan import layout_to_proto
from nightshift.protocol.readable_ids import LEAST_DIGITS
from nightshift.protocol.release import ReleaseDocument, release_id, sign_release
from nightshift.v1 import device_pb2, log_pb2, release_pb2


@dataclass(frozen=True, slots=True)
class StoredAdapter:
    """An adapter whose bytes are already durable as an object."""

    layout: AdapterLayout
    sha256: bytes
    size_bytes: int


def store_adapter(objects: Objects, layout: AdapterLayout, tensors: Tensors) -> StoredAdapter:
    """Write an adapter as a safetensors object."""
    data = to_safetensors(tensors, layout)
    return StoredAdapter(layout, artefacts.put_bytes(objects, data), len(data))


def load_adapter(objects: Objects, release: ReleaseRow) -> tuple[AdapterLayout, dict[str, NDArray[np.float32]]]:
    """A release's layout and tensors."""
    layout = ReleaseDocument.parse(release.document).layout
    return layout, from_safetensors(objects.get(artefacts.artefact_key(release.adapter_sha256)), layout)


def publish(
    session: Session,
    deployment: Deployment,
    task: Task,
    adapter: StoredAdapter,
    *,
    parent: ReleaseRow | None,
    plan_hashes: Sequence[bytes] = (),
    contributors: int = 0,
    now_unix_s: int,
) -> ReleaseRow:
    """Sign and log a release in the session's transaction; that devices serve it is decided apart (`decisions`)."""
    number = parent.number + 1 if parent is not None else 0
    message = release_pb2.Release(
        task=task.name,
        number=number,
        parent=parent.release_id if parent is not None else b"",
        base_model=task.package_id,
        layout=layout_to_proto(adapter.layout),
        adapter_sha256=adapter.sha256,
        adapter_size_bytes=adapter.size_bytes,
        time_unix_s=now_unix_s,
        plan_hashes=plan_hashes,
        contributors=contributors,
    )
    artefacts.record(session, sha256=adapter.sha256, size_bytes=adapter.size_bytes, kind="adapter")
    return _sign_and_log(session, deployment, message)


def publish_again(
    session: Session, deployment: Deployment, release: ReleaseRow, *, parent: ReleaseRow, now_unix_s: int
) -> ReleaseRow:
    """Publish an earlier release's adapter under the next number: learning starts again from it.

    Devices contribute once to a release; the new one says which it restores, and holds no sums. What the server's
    optimiser remembers goes back with the adapter.

    Args:
        session: a transaction.
        deployment: whose log and key.
        release: whose adapter.
        parent: the newest release.
        now_unix_s: when.
    """
    restored = release if release.restores is None else session.get_one(ReleaseRow, release.restores)
    message = release_pb2.Release.FromString(restored.document)
    message.number = parent.number + 1
    message.parent = parent.release_id
    message.time_unix_s = now_unix_s
    message.restores = restored.release_id
    message.contributors = 0
    del message.plan_hashes[:]
    row = _sign_and_log(session, deployment, message, note=f"restores release {restored.number}")
    row.server_memory_key = restored.server_memory_key
    return row


def _sign_and_log(
    session: Session, deployment: Deployment, message: release_pb2.Release, *, note: str = ""
) -> ReleaseRow:
    document = message.SerializeToString(deterministic=True)
    ReleaseDocument.parse(document)  # what devices would refuse is never signed
    identifier = release_id(document)
    position = deployment.log.append(
        session,
        log_pb2.LOG_ENTRY_KIND_RELEASE,
        time_unix_s=message.time_unix_s,
        subject=task_subject(message.task),
        digest=identifier,
        note=note,
    )
    row = ReleaseRow(
        release_id=identifier,
        task=message.task,
        number=message.number,
        parent=message.parent or None,
        document=document,
        signature=sign_release(document, deployment.authority.sign),
        log_position=position,
        adapter_sha256=message.adapter_sha256,
        contributors=message.contributors,
        time_unix_s=message.time_unix_s,
        restores=message.restores or None,
    )
    session.add(row)
    session.flush()
    return row


def rounds_learned(session: Session, release: ReleaseRow) -> int:
    """How many rounds' sums are in a release's adapter; one that was brought back holds as many as before.

    Not the release's number, which also counts what was dropped or set aside: which side of the adapter the next
    round trains follows from what is in it (`Method.side_for_round`).
    """
    rows = select(ReleaseRow.release_id, ReleaseRow.parent, ReleaseRow.restores).where(ReleaseRow.task == release.task)
    before = {identifier: (parent, restores) for identifier, parent, restores in session.execute(rows)}
    rounds, (parent, restores) = 0, before[release.release_id]
    while (earlier := restores or parent) is not None:
        rounds += restores is None
        parent, restores = before[earlier]
    return rounds


def newest_release(session: Session, task: str) -> ReleaseRow:
    """A task's newest release, the parent of its next plan."""
    row = session.scalar(select(ReleaseRow).where(ReleaseRow.task == task).order_by(ReleaseRow.number.desc()).limit(1))
    if row is None:
        raise NotFoundError(f"task {task} has no release; create it again under another name")
    return row


def list_releases(session: Session) -> Sequence[ReleaseRow]:
    """All releases, by task and number."""
    return session.scalars(select(ReleaseRow).order_by(ReleaseRow.task, ReleaseRow.number)).all()


def find_release(session: Session, prefix: str) -> ReleaseRow:
    """A release by the first digits of its id, in hex, or by TASK/NUMBER.

    Raises:
        NotFoundError: none or several fit.
    """
    rows = [
        row
        for row in list_releases(session)
        if (len(prefix) >= LEAST_DIGITS and row.release_id.hex().startswith(prefix.lower()))
        or f"{row.task}/{row.number}" == prefix
    ]
    if len(rows) != 1:
        found = "no release" if not rows else f"{len(rows)} releases"
        raise NotFoundError(f"{found} called {prefix!r}; see `coordinator release list`")
    return rows[0]


def offer(session: Session, snapshot: LogSnapshot, row: ReleaseRow) -> device_pb2.ReleaseOffer:
    """A release with what proves it."""
    return device_pb2.ReleaseOffer(
        release=row.document, signature=row.signature, proof=snapshot.proof(session, row.log_position)
    )
