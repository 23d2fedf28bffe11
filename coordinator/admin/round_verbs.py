"""Rounds, as operators ask for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from coordinator import audit
from coordinator.admin.messages import to_message
from coordinator.admin.operator import Operator, page_of
from coordinator.admin.records import round_record
from coordinator.aggregation.places import erase_ended
from coordinator.rounds import plans, rounds
from coordinator.rounds.advance import abort, conclude_rounds
from coordinator.rounds.tasks import find_task
from nightshift.admin.v1 import admin_pb2 as pb
from nightshift.protocol.errors import StateConflictError, UsageError

LOOK_EVERY_S = 2.0
SHORTEST_S, LONGEST_S = 0.1, 3600.0


def open_round(operator: Operator, request: pb.OpenRoundRequest) -> pb.OpenRoundResponse:
    """Open the next round of a task with the devices that are in the pool.

    Raises:
        NotFoundError: no such task.
        StateConflictError: its round goes on.
        DeclinedError: the pool does not suffice; says what is missing.
    """
    deployment = operator.deployment
    with deployment.database.transaction() as session:
        opened = plans.open_round(session, deployment, find_task(session, request.task), operator.now_unix_s)
        record = round_record(session, opened)
        cohorts = [cohort["cohort_id"] for cohort in record["cohorts"]]
        audit.record(session, "round open", f"{opened.task}/{opened.number}", cohorts=cohorts)
    return to_message(pb.OpenRoundResponse, {"round": record})


def list_rounds(operator: Operator, request: pb.ListRoundsRequest) -> pb.ListRoundsResponse:
    """All rounds, or those of one task."""
    with operator.deployment.database.reading() as session:
        wanted = [row for row in rounds.list_rounds(session) if request.task in ("", row.task)]
        rows, following = page_of(wanted, request.page)
        records = [round_record(session, row) for row in rows]
    return to_message(pb.ListRoundsResponse, {"rounds": records, "next_page": following})


def get_round(operator: Operator, request: pb.GetRoundRequest) -> pb.GetRoundResponse:
    """A round, or one cohort of it.

    Raises:
        NotFoundError: none or several are called so.
    """
    with operator.deployment.database.reading() as session:
        record = round_record(session, *rounds.find(session, request.name))
    return to_message(pb.GetRoundResponse, {"round": record})


def watch_round(operator: Operator, request: pb.WatchRoundRequest) -> Iterator[pb.WatchRoundResponse]:
    """A round whenever something has changed, until it has ended.

    Raises:
        NotFoundError: none or several are called so.
        UsageError: looks that come too often or too seldom.
    """
    every_s = request.every_s or LOOK_EVERY_S
    if not SHORTEST_S <= every_s <= LONGEST_S:
        raise UsageError(f"a round is looked at every {SHORTEST_S} to {LONGEST_S:.0f} s, not every {every_s} s")
    shown = None
    while True:
        with operator.deployment.database.reading() as session:
            record = round_record(session, *rounds.find(session, request.name))
        if record != shown:
            yield to_message(pb.WatchRoundResponse, {"round": record})
            shown = record
        if record["ended"] is not None or operator.leaving.wait(every_s):
            return


def abort_round(operator: Operator, request: pb.AbortRoundRequest) -> pb.AbortRoundResponse:
    """End a round, or one cohort of it, without a sum; its uploads are erased.

    Raises:
        NotFoundError: none or several are called so.
        StateConflictError: it has ended already.
    """
    deployment = operator.deployment
    with deployment.database.transaction() as session:
        found, cohorts = rounds.find(session, request.name)
        abort(session, deployment, cohorts, request.reason)
        audit.record(session, "round abort", request.name, reason=request.reason)
    # The service, which leads, may do the same at this moment; whoever comes second finds it done.
    with suppress(StateConflictError):
        conclude_rounds(deployment, operator.now_unix_s)
    erase_ended(deployment)
    with deployment.database.reading() as session:
        record = round_record(session, *rounds.find(session, f"{found.task}/{found.number}"))
    return to_message(pb.AbortRoundResponse, {"round": record})
