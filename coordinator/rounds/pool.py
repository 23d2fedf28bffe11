"""Who may sit on a committee now, and who may contribute."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import and_, func, select
from sqlalchemy.orm import Session

from coordinator.rounds.erasures import is_laid_to_rest
from coordinator.storage.rows import (
    Cohort,
    Contribution,
    ContributionState,
    Device,
    DeviceState,
    PrekeyRow,
)
from nightshift.protocol.identity import DeviceId
from nightshift.protocol.plan import MAX_POOL

SEEN_WITHIN_S = 48 * 3600


@dataclass(frozen=True, slots=True)
class PoolEntry:
    """A device that could serve, with the prekey that it would serve with."""

    device: Device
    prekey: PrekeyRow


def pool(
    session: Session, *, now_unix_s: int, answer_deadline_unix_s: int, without: Collection[DeviceId] = ()
) -> list[PoolEntry]:
    """Devices that were seen lately and whose certificate and an unspent prekey outlive the round.

    Args:
        session: reads.
        now_unix_s: when.
        answer_deadline_unix_s: of the round.
        without: members that are kept out (`coordinator.rounds.suspects`); quarantined devices are anyhow.

    Returns:
        At most 32,768 entries, in the order of device ids: those seen last, where there are more.
    """
    usable = and_(
        PrekeyRow.device_id == Device.device_id,
        PrekeyRow.epoch == Device.prekey_epoch,
        PrekeyRow.spent_on.is_(None),
        PrekeyRow.not_after_unix_s > answer_deadline_unix_s,
    )
    oldest = select(PrekeyRow.device_id, func.min(PrekeyRow.serial).label("serial")).join(Device, usable)
    first = oldest.group_by(PrekeyRow.device_id).subquery()
    rows = session.execute(
        select(Device, PrekeyRow)
        .join(first, first.c.device_id == Device.device_id)
        .join(
            PrekeyRow,
            and_(
                PrekeyRow.device_id == Device.device_id,
                PrekeyRow.epoch == Device.prekey_epoch,
                PrekeyRow.serial == first.c.serial,
            ),
        )
        .where(
            Device.state == DeviceState.ENROLLED,
            Device.quarantined_unix_s.is_(None),
            Device.last_seen_unix_s >= now_unix_s - SEEN_WITHIN_S,
            Device.certificate_not_after_unix_s > answer_deadline_unix_s,
        )
        .order_by(Device.last_seen_unix_s.desc())
        .limit(MAX_POOL)
    )
    entries = [PoolEntry(device, prekey) for device, prekey in rows if device.device_id not in without]
    return sorted(entries, key=lambda entry: entry.device.device_id)


def spent_parent(session: Session, device_id: bytes, parent_release: bytes, now_unix_s: int) -> bool:
    """Whether a device has already said what it may say about a parent release.

    One counted contribution per parent. That of a void cohort is forgotten
    when it is laid to rest: enough members stated that they erased their
    prekeys, or every prekey of its committee has expired. Only then is it
    certain that the sum can never be opened and subtracted from another.
    """
    return bool(_spent(session, [device_id], parent_release, now_unix_s))


def able_to_contribute(
    session: Session, entries: Sequence[PoolEntry], parent_release: bytes, now_unix_s: int
) -> list[DeviceId]:
    """The devices of a pool that may still contribute to a parent release."""
    ids = [DeviceId(entry.device.device_id) for entry in entries]
    spent = _spent(session, ids, parent_release, now_unix_s)
    return [device for device in ids if device not in spent]


def _spent(session: Session, ids: Sequence[bytes], parent_release: bytes, now_unix_s: int) -> set[bytes]:
    wanted = set(ids)
    cohorts = session.scalars(select(Cohort).where(Cohort.parent_release == parent_release)).all()
    alive = [cohort.cohort_id for cohort in cohorts if not is_laid_to_rest(session, cohort, now_unix_s)]
    given = select(Contribution.device_id).where(
        Contribution.cohort_id.in_(alive), Contribution.state == ContributionState.COUNTED
    )
    return wanted & set(session.scalars(given))
