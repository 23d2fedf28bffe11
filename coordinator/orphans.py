"""Objects that no row names: what a killed process put and never recorded, found and deleted.

An object is put first and its row committed after, so an object without a row is either about to get one
or rubbish. It is taken for rubbish when it is a day old; no upload, publication or import lasts so long
between its put and its commit.

Only what is known here is judged: whoever adds a kind of object below a new prefix adds it to `_named`.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import select
from sqlalchemy.orm import Session

from coordinator.aggregation import places
from coordinator.deployment import Deployment
from coordinator.diagnostics import log
from coordinator.rounds.states import FINAL
from coordinator.storage.rows import Artefact, Cohort, CohortState, Contribution, ReleaseRow, UploadPart

AGE_S = 86_400
EVERY_S = 3600
PREFIXES = ("artefacts", "cohorts", "sums", "server-memories")


def collect(deployment: Deployment, now_unix_s: float) -> int:
    """Delete orphans; returns how many.

    Args:
        deployment: whose objects.
        now_unix_s: by the object store's clock, which tests do not move.
    """
    deleted = 0
    for prefix in PREFIXES:
        old = [found.key for found in deployment.objects.listed(prefix) if found.modified_unix_s < now_unix_s - AGE_S]
        if not old:
            continue
        # Read after the listing: what was named when it was listed is named still, or was let go on purpose.
        with deployment.database.reading() as session:
            named = set(_named(session, prefix))
        orphans = [key for key in old if key not in named]
        places.discard(deployment.objects, *orphans)
        deleted += len(orphans)
    if deleted:
        log.info("orphaned objects deleted", objects=deleted)
    return deleted


def referenced(session: Session) -> Iterator[str]:
    """Keys of all objects that rows name, of every kind: what a backup holds."""
    for prefix in PREFIXES:
        yield from _named(session, prefix)


def _named(session: Session, prefix: str) -> Iterator[str]:
    if prefix == "artefacts":
        yield from session.scalars(select(Artefact.object_key))
    elif prefix == "sums":
        opened = session.scalars(select(Cohort.cohort_id).where(Cohort.state == CohortState.OPENED))
        yield from map(places.opened_key, opened)
    elif prefix == "server-memories":
        yield from _present(session.scalars(select(ReleaseRow.server_memory_key)))
    else:
        unfinished = select(Cohort.cohort_id).where(Cohort.state.not_in(FINAL))
        yield from _present(session.scalars(select(Cohort.running_sum_key).where(Cohort.state.not_in(FINAL))))
        yield from _present(
            session.scalars(select(Contribution.sealed_key).where(Contribution.cohort_id.in_(unfinished)))
        )
        yield from session.scalars(select(UploadPart.object_key))


def _present(keys: Iterator[str | None]) -> Iterator[str]:
    return (key for key in keys if key is not None)
