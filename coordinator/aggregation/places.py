"""Where a cohort's objects lie, and how they are erased when it has ended.

::

    cohorts/<cohort>/uploads/<device>/<offset>-<random>   parts, until counted or discarded
    cohorts/<cohort>/sealed/<device>                      sealed shares and signatures, until the end
    cohorts/<cohort>/running/<count>-<random>             the running sum
    sums/<cohort>.npy                                     the opened sum, kept

Everything below `cohorts/<cohort>/` goes when the cohort ends, orphans of a
killed process included.
"""

from __future__ import annotations

import secrets

from sqlalchemy import select

from coordinator.deployment import Deployment
from coordinator.diagnostics import log
from coordinator.rounds.states import FINAL
from coordinator.storage.objects import Objects
from coordinator.storage.rows import Cohort
from nightshift.host.failpoints import failpoint
from nightshift.protocol.errors import UnavailableError


def part_key(cohort_id: bytes, device_id: bytes, offset_bytes: int) -> str:
    """A fresh key for a part of an upload."""
    return f"cohorts/{cohort_id.hex()}/uploads/{device_id.hex()}/{offset_bytes:012d}-{secrets.token_hex(6)}"


def sealed_key(cohort_id: bytes, device_id: bytes) -> str:
    """A fresh key for a contribution's sealed shares and signatures."""
    return f"cohorts/{cohort_id.hex()}/sealed/{device_id.hex()}-{secrets.token_hex(6)}"


def running_key(cohort_id: bytes, count: int) -> str:
    """A fresh key for the running sum of `count` contributions."""
    return f"cohorts/{cohort_id.hex()}/running/{count:06d}-{secrets.token_hex(6)}"


def opened_key(cohort_id: bytes) -> str:
    """The key of the opened sum."""
    return f"sums/{cohort_id.hex()}.npy"


def discard(objects: Objects, *keys: str) -> None:
    """Delete what no row names any more; what cannot be deleted now is an orphan, and collected later."""
    for key in keys:
        try:
            objects.delete(key)
        except UnavailableError:
            log.warning("an object could not be deleted", key=key)


def erase_ended(deployment: Deployment) -> int:
    """Delete the objects of cohorts that have ended; returns how many cohorts.

    The row says so only afterwards: a crash in between repeats the deletion.
    """
    with deployment.database.reading() as session:
        rows = select(Cohort.cohort_id).where(Cohort.state.in_(FINAL), Cohort.erased.is_(False))
        ended = session.scalars(rows).all()
    for cohort_id in ended:
        for key in deployment.objects.list(f"cohorts/{cohort_id.hex()}"):
            deployment.objects.delete(key)
        failpoint("coordinator.erase.before-commit")
        with deployment.database.transaction() as session:
            session.get_one(Cohort, cohort_id).erased = True
    return len(ended)
