"""Two devices with one identity: a copied disk image, a restored backup, a stolen key.

Each check-in presents the nonce of the one before and proposes the next, which
the device chose and kept before it sent it. So a device that was killed at any
moment repeats the same pair, and is known again by it; two copies of one device
propose different nonces, and the second of them to speak is noticed:

=====================================  ==========================================
presented and proposed                 means
=====================================  ==========================================
the nonce expected, anything           the next check-in
the one before, the nonce expected     the last check-in again: its reply was lost
none, with a newer prekey epoch        the device lost its store and began anew
anything else                          another copy has spoken in between
=====================================  ==========================================

Which of the two is the right one, nobody can tell from here. The identity is
held: it is in no pool and gets no reply until the operator has looked
(`coordinator device clear`), and a device that joins with a new key is free of
all that. (ADR 0006 says why the device chooses the nonce.)
"""

from __future__ import annotations

from sqlalchemy import delete
from sqlalchemy.orm import Session

from coordinator.storage.rows import Device, DeviceState, PrekeyRow
from nightshift.protocol.errors import MalformedError

NONCE_BYTES = 32


def recognise(device: Device, *, presented: bytes, proposed: bytes, epoch: int, now_unix_s: int) -> bool:
    """Whether a check-in goes on from the device's last one; otherwise the device is held from now on.

    Args:
        device: the row, in the transaction of the caller.
        presented: nonce of its last answered check-in; empty for none.
        proposed: nonce that its next check-in will present.
        epoch: of its prekeys; grows when it loses its store.
        now_unix_s: by the coordinator's clock.

    Raises:
        MalformedError: a nonce of another length.
    """
    if len(proposed) != NONCE_BYTES or len(presented) not in (0, NONCE_BYTES):
        raise MalformedError(f"a check-in presents and proposes a nonce of {NONCE_BYTES} bytes")
    if presented == device.nonce_before and proposed == device.nonce:
        return True
    began_anew = not presented and epoch > device.prekey_epoch
    if device.nonce is not None and presented != device.nonce and not began_anew:
        device.state = DeviceState.HELD
        device.held_unix_s = now_unix_s
        return False
    device.nonce_before, device.nonce = presented, proposed
    return True


def clear(session: Session, device: Device) -> None:
    """Let a held device take part again: its next check-in is believed, whatever it presents.

    Its published prekeys are dropped: a restored copy may lack their private halves.
    """
    if device.state is not DeviceState.HELD:
        return
    device.state = DeviceState.ENROLLED
    device.held_unix_s = device.nonce = device.nonce_before = None
    session.execute(delete(PrekeyRow).where(PrekeyRow.device_id == device.device_id, PrekeyRow.spent_on.is_(None)))
