"""Lies that a coordinator tells by its rows alone: a set or a cohort that it pretends never was.

A test tells them while nothing is serving, and serves honestly afterwards.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from coordinator.aggregation.documents import document_of
from coordinator.deployment import Deployment, opened
from coordinator.rounds.transitions import contributor, counted, unfinished
from nightshift.host.clock import now_unix_s
from nightshift.protocol.identity import DeviceId
from nightshift.protocol.secagg.contributors import set_hash
from nightshift.protocol.secagg.sealing import seal, seal_info
from nightshift.v1 import log_pb2


def forget_round(directory: Path) -> None:
    """Pretend that the only round never was: its rows are gone. The log keeps its entries; it cannot do otherwise."""
    with _rows(directory) as connection:
        parts = ("upload_parts", "answers", "contributions", "committee_seats", "assignments")
        for table in (*parts, "cohorts", "rounds"):
            connection.execute(f"DELETE FROM {table}")


def void_without_a_word(directory: Path) -> None:
    """Pretend that the only round ended without a sum, and log nothing."""
    with _rows(directory) as connection:
        connection.execute("UPDATE cohorts SET state = 'void', ended_unix_s = ?, erased = 1", (now_unix_s(),))
        connection.execute("UPDATE rounds SET state = 'void', ended_unix_s = ?", (now_unix_s(),))
    forgive_contributions(directory)


def forgive_contributions(directory: Path) -> None:
    """Pretend that nothing was counted yet, so that everybody is asked again at once."""
    with _rows(directory) as connection:
        connection.execute("UPDATE contributions SET state = 'discarded'")


@contextmanager
def _rows(directory: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(directory / "coordinator.sqlite3")) as connection:
        # Foreign keys are off here: a liar's rows need not agree with each other.
        yield connection
        connection.commit()


def second_set(directory: Path) -> None:
    """Freeze the only round once more, without its last contributor; the new set is logged, answers are forgotten."""
    with opened(directory) as deployment:
        with deployment.database.reading() as session:
            (cohort,) = unfinished(session)
            dropped = counted(session, cohort)[-1].device_id
        with _rows(directory) as connection:
            connection.execute("DELETE FROM answers")
            connection.execute("UPDATE contributions SET state = 'discarded' WHERE device_id = ?", (dropped,))
        _freeze_again(deployment)


def swap_share(directory: Path, index: int) -> None:
    """Replace the share of the first contributor for one member by one that the coordinator made and knows.

    It is sealed to the member's prekey as the contributor would, its hash stands in
    the set, and the set is logged. What is missing is the contributor's signature.
    """
    with opened(directory) as deployment:
        with deployment.database.transaction() as session:
            (cohort,) = unfinished(session)
            document = document_of(cohort)
            victim = counted(session, cohort)[0]
            assert victim.sealed_key is not None
            assert victim.sealed_sha256 is not None
            member = document.committee[index - 1].prekey
            known = bytes(document.parameters.share_bytes * 4096)
            info = seal_info(cohort.plan_hash, DeviceId(victim.device_id), member.device_id)
            sealed = seal(known, member.public, info)
            start = (index - 1) * len(sealed)
            body = bytearray(deployment.objects.get(victim.sealed_key))
            body[start : start + len(sealed)] = sealed
            deployment.objects.put(victim.sealed_key, bytes(body))
            hashes = bytearray(victim.sealed_sha256)
            hashes[32 * (index - 1) : 32 * index] = hashlib.sha256(sealed).digest()
            victim.sealed_sha256 = bytes(hashes)
        _freeze_again(deployment)


def _freeze_again(deployment: Deployment) -> None:
    with deployment.database.transaction() as session:
        (cohort,) = unfinished(session)
        contributors = [contributor(row) for row in counted(session, cohort)]
        cohort.counted = len(contributors)
        cohort.set_hash = set_hash(cohort.plan_hash, contributors)
        cohort.set_position = deployment.log.append(
            session,
            log_pb2.LOG_ENTRY_KIND_SET,
            time_unix_s=now_unix_s(),
            subject=cohort.cohort_id,
            digest=cohort.set_hash,
        )
