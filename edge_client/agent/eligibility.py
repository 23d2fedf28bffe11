"""Whether a pass may run: what the device knows of itself, put beside its sensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_client.conditions.checklist import Checklist, Circumstances, Machine
from edge_client.configuration import Configuration, cache_directory
from edge_client.store.traffic import night_of
from nightshift.host import clock

if TYPE_CHECKING:
    from edge_client.home import Home
    from edge_client.identity import Membership
    from edge_client.store import Store

PAUSED_UNTIL = "paused_until"


def checklist(
    home: Home, configuration: Configuration, membership: Membership, store: Store, *, machine: Machine | None = None
) -> Checklist:
    """The conditions of this device, now.

    Args:
        home: the device's directories.
        configuration: the owner's settings.
        membership: tells since when, and until when its certificate holds.
        store: tells how much this night has sent, and whether it is paused.
        machine: where sensors are; None is this machine.
    """
    from nightshift.protocol.certificates import read_device_certificate

    certificate = read_device_certificate(membership.certificate)
    known = Circumstances(
        cache=cache_directory(home, configuration.cache),
        # Vouched for by the coordinator; what this device noted with a clock that was ahead would lock it out.
        past_unix_s=max(membership.joined_unix_s, certificate.not_before_unix_s),
        certificate_end_unix_s=certificate.not_after_unix_s,
        paused_until_unix_s=lambda: store.database.number(PAUSED_UNTIL) or 0,
        night_bytes=store.traffic.of(night_of(clock.now())).total_bytes,
    )
    return Checklist(configuration.conditions, known, machine or Machine())
