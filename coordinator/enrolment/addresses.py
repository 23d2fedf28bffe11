"""Where devices call this coordinator, as it tells them at each check-in.

The addresses are those of coordinator.toml. Their number grows whenever they
change, so that a device never takes an older message for a newer one.
"""

from __future__ import annotations

import json

from sqlalchemy.orm import Session

from coordinator.configuration import Configuration
from coordinator.enrolment.authority import Authority
from coordinator.storage.rows import Setting
from nightshift.protocol.addresses import AddressBook, sign_addresses
from nightshift.v1 import device_pb2

KEY = "addresses"
"""Of the setting that holds them."""


def record_addresses(session: Session, configuration: Configuration, now_unix_s: int) -> AddressBook:
    """Note the configured addresses; a change gets a number above the last one.

    Args:
        session: a transaction.
        configuration: has the addresses.
        now_unix_s: the number of a change; times grow, also over a restored backup.
    """
    row = session.get(Setting, KEY)
    last = AddressBook(**json.loads(row.value)) if row is not None else None
    configured = (configuration.join_address(), configuration.device_address())
    if last is not None and (last.join_address, last.device_address) == configured:
        return last
    number = max(now_unix_s, last.number + 1 if last is not None else 0)
    book = AddressBook(number, *configured)
    value = json.dumps({"number": number, "join_address": book.join_address, "device_address": book.device_address})
    session.merge(Setting(key=KEY, value=value))
    return book


def announcement(session: Session, authority: Authority) -> device_pb2.Addresses | None:
    """The addresses as devices get them, signed; None before the first `serve`."""
    row = session.get(Setting, KEY)
    return None if row is None else sign_addresses(AddressBook(**json.loads(row.value)), authority.sign)
