"""Topping up the one-time keys that others may seal shares to."""

from __future__ import annotations

import os

from edge_client.identity import Identity
from edge_client.store import Store
from edge_client.store.prekeys import StoredPrekey

PREKEYS_KEPT = 8
LIFETIME_S = 14 * 24 * 3600
"""The longest that the protocol allows: a member may come back late."""
RENEW_BEFORE_S = 3 * 24 * 3600
"""A prekey with less time left is useless for a plan that runs for days."""
CLOCK_SKEW_S = 600
"""Others judge the 14 days by their own clocks."""
MOST_PRIVATE_KEYS = 64
"""A coordinator that forgets prekeys on purpose must not make the store grow for ever."""


def pending(store: Store, *, identity: Identity, now_unix_s: int, held: int | None = None) -> list[StoredPrekey]:
    """The prekeys to send with a check-in; new ones are stored before they are returned.

    Args:
        store: keeps the private halves.
        identity: signs the public halves.
        now_unix_s: this device's clock.
        held: how many unspent ones the coordinator says it holds; None before it says so.
    """
    store.prekeys.erase_expired(now_unix_s)
    waiting = store.prekeys.unpublished()
    fresh = [p for p in store.prekeys.unspent() if p.not_after_unix_s > now_unix_s + RENEW_BEFORE_S]
    known = len(fresh) if held is None else min(len(fresh), held + len(waiting))
    room = MOST_PRIVATE_KEYS - store.prekeys.count()
    missing = min(PREKEYS_KEPT - known, room)
    return waiting + (_make(store, missing, identity=identity, now_unix_s=now_unix_s) if missing > 0 else [])


def _make(store: Store, count: int, *, identity: Identity, now_unix_s: int) -> list[StoredPrekey]:
    from nightshift.protocol.plan import prekey_to_proto
    from nightshift.protocol.secagg.prekeys import new_prekey

    first = store.prekeys.next_serial()
    epoch = store.database.epoch
    not_after = now_unix_s + LIFETIME_S - CLOCK_SKEW_S
    made = []
    for serial in range(first, first + count):
        private, signed = new_prekey(
            device=identity.device_id,
            serial=serial,
            epoch=epoch,
            not_after=not_after,
            sign=identity.sign,
            randomness=os.urandom,
        )
        message = prekey_to_proto(signed).SerializeToString()
        made.append(StoredPrekey(epoch, serial, private, signed.public, not_after, message, None))
    store.prekeys.add(made)
    return made
