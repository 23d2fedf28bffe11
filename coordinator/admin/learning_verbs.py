"""Models, tasks and releases, as operators ask for them."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from coordinator import audit
from coordinator.admin.messages import to_message
from coordinator.admin.operator import Operator, page_of
from coordinator.admin.records import model_record, release_record, task_record
from coordinator.models import catalogue
from coordinator.releases import publication
from coordinator.rounds import tasks
from coordinator.rounds.task_settings import TaskSettings
from coordinator.storage import artefacts
from nightshift.admin.v1 import admin_pb2 as pb
from nightshift.host.configuration import validated
from nightshift.host.files import require_free_space
from nightshift.host.rpc import CHUNK_BYTES
from nightshift.protocol.errors import HashMismatchError, MalformedError, UsageError

LARGEST_ARTEFACT_BYTES = 64 * 1024**3


def store_artefact(operator: Operator, requests: Iterator[pb.StoreArtefactRequest]) -> pb.StoreArtefactResponse:
    """Take one file of a package, piece by piece, and keep it once its hash is right.

    Raises:
        MalformedError: no first message, a piece that is too large, or more bytes than announced.
        HashMismatchError: fewer bytes, or others, than announced.
        ResourceError: not enough disk.
    """
    first = next(iter(requests), None)
    if first is None or len(first.sha256) != hashlib.sha256().digest_size:
        raise MalformedError("the first message must state the file's SHA-256 and its size")
    if first.size_bytes > LARGEST_ARTEFACT_BYTES:
        raise MalformedError(f"a file may take {LARGEST_ARTEFACT_BYTES} bytes, not {first.size_bytes}")
    directory = operator.deployment.home.directory
    require_free_space(directory, first.size_bytes)
    with tempfile.TemporaryDirectory(dir=directory, prefix="artefact-") as folder:
        path = Path(folder) / "file"
        with path.open("wb") as file:
            received = file.write(_checked(first.data))
            for message in requests:
                received += file.write(_checked(message.data))
                if received > first.size_bytes:
                    raise MalformedError(f"the file was announced with {first.size_bytes} bytes, and more came")
        if artefacts.sha256_file(path) != first.sha256:
            raise HashMismatchError(f"what came is not the file with SHA-256 {first.sha256.hex()}; send it again")
        operator.deployment.objects.put(artefacts.artefact_key(first.sha256), path)
    return pb.StoreArtefactResponse()


def add_model(operator: Operator, request: pb.AddModelRequest) -> pb.AddModelResponse:
    """Add a package whose files are stored.

    Raises:
        UsageError: the alias is taken, or no plain word.
        NotFoundError: a file of it is not stored; says which.
        MalformedError: the manifest is none.
    """
    deployment = operator.deployment
    catalogue.require_stored(deployment.objects, request.manifest)
    artefacts.put_bytes(deployment.objects, request.manifest)
    with deployment.database.transaction() as session:
        row = catalogue.add_model(session, request.manifest, request.alias, operator.now_unix_s)
        audit.record(session, "model add", row.package_id.hex(), alias=row.alias)
        record = model_record(row)
    return to_message(pb.AddModelResponse, {"model": record})


def list_models(operator: Operator, request: pb.ListModelsRequest) -> pb.ListModelsResponse:
    """All models, by alias."""
    with operator.deployment.database.reading() as session:
        rows, following = page_of(catalogue.list_models(session), request.page)
        records = [model_record(row) for row in rows]
    return to_message(pb.ListModelsResponse, {"models": records, "next_page": following})


def get_model(operator: Operator, request: pb.GetModelRequest) -> pb.GetModelResponse:
    """One model.

    Raises:
        NotFoundError: none or several are called so.
    """
    with operator.deployment.database.reading() as session:
        record = model_record(catalogue.find_model(session, request.name))
    return to_message(pb.GetModelResponse, {"model": record})


def create_task(operator: Operator, request: pb.CreateTaskRequest) -> pb.CreateTaskResponse:
    """Create a task and publish its release 0.

    Raises:
        UsageError: settings that cannot work, or the name is taken.
        IncompatibleError: the model is for inference only.
        NotFoundError: no such model.
    """
    settings = validated(TaskSettings, _json_object(request.settings), "the task's settings")
    with operator.deployment.database.transaction() as session:
        row = tasks.create_task(session, operator.deployment, settings, operator.now_unix_s)
        audit.record(session, "task create", row.name, settings=settings.model_dump(mode="json"))
        record = task_record(session, row)
    return to_message(pb.CreateTaskResponse, {"task": record})


def list_tasks(operator: Operator, request: pb.ListTasksRequest) -> pb.ListTasksResponse:
    """All tasks, by name."""
    with operator.deployment.database.reading() as session:
        rows, following = page_of(tasks.list_tasks(session), request.page)
        records = [task_record(session, row) for row in rows]
    return to_message(pb.ListTasksResponse, {"tasks": records, "next_page": following})


def pause_task(operator: Operator, request: pb.PauseTaskRequest) -> pb.PauseTaskResponse:
    """Open no new rounds of a task, or let it go on.

    Raises:
        NotFoundError: no such task.
    """
    with operator.deployment.database.transaction() as session:
        row = tasks.set_paused(session, request.name, paused=request.paused)
        audit.record(session, "task pause" if request.paused else "task resume", row.name)
        record = task_record(session, row)
    return to_message(pb.PauseTaskResponse, {"task": record})


def list_releases(operator: Operator, request: pb.ListReleasesRequest) -> pb.ListReleasesResponse:
    """All releases, or those of one task."""
    with operator.deployment.database.reading() as session:
        wanted = [row for row in publication.list_releases(session) if request.task in ("", row.task)]
        rows, following = page_of(wanted, request.page)
        records = [release_record(session, row) for row in rows]
    return to_message(pb.ListReleasesResponse, {"releases": records, "next_page": following})


def get_release(operator: Operator, request: pb.GetReleaseRequest) -> pb.GetReleaseResponse:
    """One release.

    Raises:
        NotFoundError: none or several are called so.
    """
    with operator.deployment.database.reading() as session:
        record = release_record(session, publication.find_release(session, request.name))
    return to_message(pb.GetReleaseResponse, {"release": record})


def export_release(operator: Operator, request: pb.ExportReleaseRequest) -> Iterator[pb.ExportReleaseResponse]:
    """A release's adapter, piece by piece.

    Raises:
        NotFoundError: none or several are called so.
    """
    deployment = operator.deployment
    with deployment.database.reading() as session:
        row = publication.find_release(session, request.name)
        artefact = artefacts.find(session, row.adapter_sha256)
        yield to_message(pb.ExportReleaseResponse, {"release": release_record(session, row)})
    for data in artefacts.chunks(deployment.objects, artefact, 0):
        yield pb.ExportReleaseResponse(data=data)


def _checked(data: bytes) -> bytes:
    if len(data) > CHUNK_BYTES:
        raise MalformedError(f"a piece of a file may have {CHUNK_BYTES} bytes, got {len(data)}")
    return data


def _json_object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UsageError("the task's settings are not JSON; send those of a task.toml") from error
    if not isinstance(found, dict):
        raise UsageError("the task's settings are not a JSON object; send those of a task.toml")
    return found
