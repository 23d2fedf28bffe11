"""The prekeys that devices have published, and which of them still serve."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import bindparam, delete, func, select
from sqlalchemy.orm import Session

from coordinator.storage.plain import plain_rows
from coordinator.storage.rows import Device, PrekeyRow
from nightshift.protocol.certificates import leaf_public_key
from nightshift.protocol.errors import MalformedError, StateConflictError
from nightshift.protocol.identity import DeviceId
from nightshift.protocol.plan import prekey_from_proto
from nightshift.protocol.secagg import prekeys
from nightshift.protocol.secagg.prekeys import SignedPrekey
from nightshift.v1 import plan_pb2

MAX_NUMBER = 1 << 62  # a serial or epoch that both databases can hold

# Built once: at each check-in, making a statement took as long as running it.
UNSPENT = (
    select(func.count())
    .select_from(PrekeyRow)
    .where(
        PrekeyRow.device_id == bindparam("device_id"),
        PrekeyRow.epoch == bindparam("epoch"),
        PrekeyRow.spent_on.is_(None),
        PrekeyRow.not_after_unix_s > bindparam("now_unix_s"),
    )
)


def receive(
    session: Session,
    device: Device,
    *,
    epoch: int,
    published: Sequence[plan_pb2.Prekey],
    limit: int,
    now_unix_s: int,
) -> None:
    """Keep what a device published, and drop what no longer serves.

    A higher epoch says that the device lost its store: all prekeys of earlier
    epochs are dropped. A lower one says that an old copy of the device speaks.

    Raises:
        MalformedError: more than `limit`, another device's, of another epoch, or out of range.
        SignatureInvalidError: not signed by the device.
        VerificationError: expired, or valid for too long.
        StateConflictError: the epoch is older than one already seen.
    """
    if len(published) > limit:
        raise MalformedError(f"{len(published)} prekeys were sent, at most {limit} are taken at once")
    if not 0 <= epoch < MAX_NUMBER:
        raise MalformedError("the prekey epoch is out of range")
    if epoch < device.prekey_epoch:
        raise StateConflictError(
            f"the device speaks of prekey epoch {epoch}, but {device.prekey_epoch} was seen before: "
            "its store is an old copy; make a new key (leave, then join again)"
        )
    if not published and epoch == device.prekey_epoch:
        return  # most check-ins; what has expired meanwhile counts nowhere, and goes with the next ones that come
    device.prekey_epoch = epoch
    session.execute(
        delete(PrekeyRow).where(
            PrekeyRow.device_id == device.device_id,
            PrekeyRow.spent_on.is_(None),
            (PrekeyRow.epoch < epoch) | (PrekeyRow.not_after_unix_s <= now_unix_s),
        )
    )
    held = unspent(session, device, now_unix_s)
    public_key = leaf_public_key(device.certificate)
    for message in published:
        prekey = prekey_from_proto(message)
        if prekey.device_id != device.device_id or prekey.epoch != epoch or not 0 <= prekey.serial < MAX_NUMBER:
            raise MalformedError("a prekey is of another device or epoch, or its serial is out of range")
        prekeys.verify(prekey, public_key, now=now_unix_s)
        existing = session.get(PrekeyRow, (prekey.device_id, prekey.epoch, prekey.serial))
        if existing is not None:
            if existing.public_key != prekey.public:
                raise MalformedError(f"prekey {prekey.serial} was published before with another key")
            continue
        held += 1
        if held > limit:
            raise MalformedError(f"a device may hold {limit} unspent prekeys here; send fewer")
        session.add(
            PrekeyRow(
                device_id=prekey.device_id,
                epoch=prekey.epoch,
                serial=prekey.serial,
                not_after_unix_s=prekey.not_after,
                public_key=prekey.public,
                signature=prekey.signature,
            )
        )
    session.flush()


def unspent(session: Session, device: Device, now_unix_s: int) -> int:
    """How many of a device's prekeys may still be bound to a plan."""
    which = {"device_id": device.device_id, "epoch": device.prekey_epoch, "now_unix_s": now_unix_s}
    ((count,),) = plain_rows(session, UNSPENT, which)
    return count


def signed(row: PrekeyRow) -> SignedPrekey:
    """A prekey as its device signed it."""
    return SignedPrekey(
        device_id=DeviceId(row.device_id),
        serial=row.serial,
        epoch=row.epoch,
        not_after=row.not_after_unix_s,
        public=row.public_key,
        signature=row.signature,
    )
