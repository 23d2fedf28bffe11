"""What became of cohorts to which this device contributed: void by the log, and whether they are laid to rest.

A cohort is void when the log says so, whatever the coordinator tells. Its parent becomes free only
when nobody can open it any more. That may be shown by the committee's erasure statements; they are
judged by the keys of the plan that this device contributed to, which it keeps, never by keys that
come with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_client.agent.session import Session
from edge_client.store.contributions import Event, State, StoredContribution
from nightshift.protocol.errors import LogInconsistentError, MalformedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nightshift.protocol.log import LogView
    from nightshift.v1 import device_pb2


def note_voids(session: Session, response: device_pb2.CheckInResponse, view: LogView) -> None:
    """Mark contributions whose cohort ended without a sum, and those that can never be opened any more.

    Raises:
        LogInconsistentError: a void that is not in the log.
        VerificationError, MalformedError: erasure statements that are not the committee's.
    """
    for void in response.voids:
        contribution = _voided(session, void, view)
        if contribution is not None and contribution.laid_to_rest_at_unix_s is None:
            _lay_to_rest(session, contribution, void.erasures)


def _voided(session: Session, void: device_pb2.VoidCohort, view: LogView) -> StoredContribution | None:
    """The contribution to a void cohort, in the state that says so; None if no byte of one ever left."""
    from nightshift.v1 import log_pb2

    try:
        entry = log_pb2.LogEntry.FromString(void.proof.entry)
    except ValueError as error:
        raise LogInconsistentError("a log entry for a void cohort cannot be read") from error
    contribution = session.store.contributions.find(entry.subject)
    if contribution is None or contribution.state is State.PREPARED:
        return None
    if contribution.state is State.VOID:
        return contribution
    view.require(
        void.proof,
        kind=log_pb2.LOG_ENTRY_KIND_VOID,
        subject=contribution.cohort_id,
        digest=contribution.plan_hash,
    )
    session.store.contributions.apply(contribution.cohort_id, Event.VOIDED, session.now_unix_s)
    why = f": {entry.note}" if entry.note.isprintable() and entry.note else ""
    session.notes.append(
        f"the cohort of round {contribution.round} of task {contribution.task!r} ended without a sum{why}"
    )
    return session.store.contributions.find(contribution.cohort_id)


def _lay_to_rest(
    session: Session, contribution: StoredContribution, statements: Sequence[device_pb2.ErasureStatement]
) -> None:
    from nightshift.protocol.identity import DeviceId, device_id, load_public_key
    from nightshift.protocol.secagg.erasure import ErasureStatement, verify_void

    if len(statements) > len(contribution.committee_keys):
        raise MalformedError(
            f"{len(statements)} erasure statements came for a committee of {len(contribution.committee_keys)}"
        )
    if len({statement.member for statement in statements}) < contribution.erasures_required:
        return  # not yet: members state it whenever they next check in
    keys = [load_public_key(key) for key in contribution.committee_keys]
    verify_void(
        required=contribution.erasures_required,
        plan_hash=contribution.plan_hash,
        cohort_id=contribution.cohort_id,
        committee={device_id(key): key for key in keys},
        statements=[
            ErasureStatement(
                contribution.plan_hash, contribution.cohort_id, DeviceId(statement.member), statement.signature
            )
            for statement in statements
        ],
    )
    session.store.contributions.lay_to_rest(contribution.cohort_id, session.now_unix_s)
    session.notes.append(
        f"{len(statements)} committee members erased their keys for round {contribution.round} of task "
        f"{contribution.task!r}: nobody can open it any more, and this device may contribute to the same parent again"
    )
