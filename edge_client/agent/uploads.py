"""Sending what was journaled: the same bytes, from where the coordinator has them."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edge_client import ledger
from edge_client.agent.session import Session
from edge_client.connection import CALL_DEADLINE_S, STREAM_DEADLINE_S
from edge_client.home import Home
from edge_client.store import Store
from edge_client.store.contributions import Event, State, StoredContribution
from nightshift.host.failpoints import failpoint
from nightshift.protocol.errors import (
    MalformedError,
    NotFoundError,
    PartialError,
    StateConflictError,
    UnreachableError,
)

if TYPE_CHECKING:
    from nightshift.v1 import device_pb2

CHUNK_BYTES = 64 * 1024
"""Smaller than a download's: on a slow link less is sent twice after an interruption."""
ATTEMPTS = 4
_FIRST_PAUSE_S = 0.5


def body_file(home: Home, cohort_id: bytes) -> Path:
    """Where the encrypted bytes of a contribution wait."""
    return home.uploads / f"{cohort_id.hex()}.contribution"


def forget_finished_files(home: Home, store: Store) -> None:
    """Remove encrypted bytes that are acknowledged, given up, or were never journaled."""
    wanted = {body_file(home, contribution.cohort_id) for contribution in store.contributions.unfinished()}
    for path in home.uploads.iterdir():
        if path not in wanted:
            path.unlink(missing_ok=True)


def send(session: Session, contribution: StoredContribution) -> None:
    """Send a journaled contribution until the coordinator has all of it.

    Raises:
        PartialError: it could not be sent now; it stays journaled.
        StateConflictError: it came too late, or the coordinator does not want it; it was given up.
        VerificationError: the journaled bytes are damaged on this disk; nothing was sent of them.
    """
    body = _read_body(session, contribution)
    for attempt in range(ATTEMPTS):
        try:
            _send_once(session, contribution, body)
        except UnreachableError as error:
            if attempt == ATTEMPTS - 1:
                raise PartialError(
                    f"trained and encrypted for round {contribution.round} of task {contribution.task!r}, but not "
                    f"sent: {error}; the same bytes are sent at the next run"
                ) from error
            # Jitter, so that devices that lost one coordinator do not return in step.
            time.sleep(_FIRST_PAUSE_S * 2**attempt * (0.5 + random.random()))  # noqa: S311 - not a secret
        except (StateConflictError, NotFoundError) as error:
            _give_up(session, contribution.cohort_id)
            raise StateConflictError(
                f"the contribution to round {contribution.round} of task {contribution.task!r} was not taken: {error}"
            ) from error
        else:
            body_file(session.home, contribution.cohort_id).unlink(missing_ok=True)
            return


def _read_body(session: Session, contribution: StoredContribution) -> bytes:
    path = body_file(session.home, contribution.cohort_id)
    try:
        body = path.read_bytes()
    except FileNotFoundError:
        body = b""
    if hashlib.sha256(body).digest() != contribution.body_sha256:
        _give_up(session, contribution.cohort_id)
        raise PartialError(
            f"the encrypted contribution to round {contribution.round} of task {contribution.task!r} is missing or "
            f"damaged ({path}); it was given up, the next round goes on"
        )
    return body


def _send_once(session: Session, contribution: StoredContribution, body: bytes) -> None:
    from nightshift.protocol.upload import signature_of
    from nightshift.v1 import device_pb2

    connection = session.connection
    opened = connection.call(
        lambda: connection.stub.OpenUpload(
            device_pb2.OpenUploadRequest(
                cohort_id=contribution.cohort_id,
                plan_hash=contribution.plan_hash,
                size_bytes=len(body),
                signature=signature_of(body),
            ),
            timeout=CALL_DEADLINE_S,
        )
    )
    complete, offset = opened.complete, _checked_offset(opened.offset, body)
    _allow_first_byte(session, contribution.cohort_id)
    while not complete:
        start = offset
        reply = connection.call(
            lambda start=start: connection.stub.Upload(  # type: ignore[misc]  # a default binds the loop's value
                _pieces(contribution.cohort_id, body, start), timeout=STREAM_DEADLINE_S
            )
        )
        complete, offset = reply.complete, _checked_offset(reply.offset, body)
        if not complete and offset <= start:
            raise UnreachableError(f"the coordinator kept nothing beyond byte {start}")
    failpoint("device.upload.sent")
    session.store.contributions.apply(contribution.cohort_id, Event.ACKNOWLEDGED, session.now_unix_s)


def _pieces(cohort_id: bytes, body: bytes, offset: int) -> Iterator[device_pb2.UploadRequest]:
    from nightshift.v1 import device_pb2

    first = True
    for start in range(offset, len(body), CHUNK_BYTES):
        if not first:
            failpoint("device.upload.partial")
        data = body[start : start + CHUNK_BYTES]
        yield (
            device_pb2.UploadRequest(cohort_id=cohort_id, offset=offset, data=data)
            if first
            else device_pb2.UploadRequest(data=data)
        )
        first = False
    if first:
        # Everything is there but was not acknowledged: name the upload, so that it is finished.
        yield device_pb2.UploadRequest(cohort_id=cohort_id, offset=offset)


def _allow_first_byte(session: Session, cohort_id: bytes) -> None:
    """From here on a byte may have left: state and ledger say so before it does."""
    current = session.store.contributions.find(cohort_id)
    assert current is not None
    if current.state is not State.PREPARED:
        return
    with session.store.database.transaction():
        session.store.contributions.apply(cohort_id, Event.FIRST_BYTE, session.now_unix_s)
        ledger.contributed(session.store, current, now_unix_s=session.now_unix_s, recipient=session.connection.address)


def _give_up(session: Session, cohort_id: bytes) -> None:
    """Stop trying. If no byte ever left, the parent is free again; otherwise it stays used."""
    current = session.store.contributions.find(cohort_id)
    assert current is not None
    if current.state is State.PREPARED:
        session.store.contributions.withdraw(cohort_id)
    else:
        session.store.contributions.apply(cohort_id, Event.TOO_LATE, session.now_unix_s)
    body_file(session.home, cohort_id).unlink(missing_ok=True)


def _checked_offset(offset: int, body: bytes) -> int:
    if offset > len(body):
        raise MalformedError(f"the coordinator claims to have {offset} of {len(body)} bytes of the contribution")
    return offset
