"""Leaving a coordinator: the key is erased, and with it everything that was only this identity's.

What stays is the owner's: ledger, data sources, adapters, models; and the memory
of what was contributed, for two sums over the same parent would still differ by
this device, whatever its name is. The store changes first and the key goes last:
killed in between, the device is still joined, and leaving again finishes it.
"""

from __future__ import annotations

import shutil

from edge_client.home import Home
from edge_client.identity import load_identity
from edge_client.store import open_store
from edge_client.store.contributions import State
from edge_client.store.records import LEFT
from nightshift.host.clock import now_unix_s
from nightshift.host.failpoints import failpoint
from nightshift.host.files import exclusive_lock, sync_directory
from nightshift.protocol.errors import NotJoinedError

_OF_THE_COORDINATOR = (
    "log_size",
    "log_root",
    "log_note",
    "revocation_number",
    "revoked_devices",
    "next_check_in",
    "retry_after",
    "unanswered_passes",
    "training_cut_off_until",
    "nonce_answered",
    "nonce_proposed",
    "addresses_number",
    "release_metadata_sha256",
    "release_metadata_ends",
)


def leave(home: Home, *, wipe: bool) -> str:
    """Forget the coordinator and erase this device's key.

    Args:
        home: the device's directories.
        wipe: also erase ledger, data sources and adapters; models and settings stay, and that something was forgotten.

    Returns:
        The id of the device that is no more, in hex: what its operator should revoke.

    Raises:
        NotJoinedError: there is no key here.
        BusyError: a pass is running.
    """
    if not home.state.is_dir():
        raise NotJoinedError(f"there is no device in {home.state}; nothing was changed")
    with exclusive_lock(home.lock_file):
        identity = load_identity(home)
        if identity is None:
            raise NotJoinedError(f"this device has not joined a coordinator (home {home.state}); nothing was changed")
        _forget(home)
        failpoint("device.leave.forgotten")
        home.membership_file.unlink(missing_ok=True)
        failpoint("device.leave.parted")
        if wipe:
            _wipe(home)
        home.key_file.unlink()
        sync_directory(home.state)
    return identity.device_id.hex()


def _forget(home: Home) -> None:
    with open_store(home) as store:
        # Read before: a later epoch tells a coordinator that this store begins anew.
        epoch = max(now_unix_s(), store.database.epoch + 1)
        with store.database.transaction() as connection:
            connection.execute("DELETE FROM prekeys")
            connection.execute("DELETE FROM releases")
            connection.execute("DELETE FROM decisions")
            connection.execute("DELETE FROM contributions WHERE state = ?", (State.PREPARED.value,))
            connection.execute(
                "UPDATE contributions SET state = ? WHERE state = ?", (State.LATE.value, State.SENDING.value)
            )
            connection.executemany("DELETE FROM meta WHERE name = ?", [(name,) for name in _OF_THE_COORDINATOR])
            store.database.put(**{"epoch": epoch, LEFT: now_unix_s()})
    for upload in home.uploads.iterdir():
        upload.unlink()
    shutil.rmtree(home.release_metadata, ignore_errors=True)


def _wipe(home: Home) -> None:
    for directory in (home.adapters, home.training, home.uploads, home.debug):
        shutil.rmtree(directory, ignore_errors=True)
    for file in home.state.glob(f"{home.store_file.name}.*"):
        file.unlink()
    with open_store(home) as store:
        store.database.forget_everything(now_unix_s())
