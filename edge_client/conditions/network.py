"""A network that costs by the byte, and how much of it this night has used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edge_client.conditions.reading import Reading
from edge_client.conditions.system_bus import SystemBus

NETWORK = ("org.freedesktop.NetworkManager", "/org/freedesktop/NetworkManager", "org.freedesktop.NetworkManager")
# NMMetered of the NetworkManager D-Bus API: what a person or the access point said, and what it guesses.
_METERED = {1: "metered", 3: "metered, by NetworkManager's guess"}
_FREE = {2: "not metered", 4: "not metered, by NetworkManager's guess"}

Stated = Literal["auto", "yes", "no"]


@dataclass(frozen=True, slots=True)
class Metered:
    """A network that costs nothing by the byte.

    Attributes:
        bus: to NetworkManager.
        allowed: the owner does not mind.
        stated: what the owner says instead of NetworkManager.
    """

    bus: SystemBus
    allowed: bool
    stated: Stated = "auto"

    def read(self) -> Reading:
        """NetworkManager's word for the connection that holds the default route."""
        source = "NetworkManager Metered"
        if self.stated != "auto":
            metered, value = self.stated == "yes", "metered" if self.stated == "yes" else "not metered"
            source = "conditions.metered"
        else:
            manager = self.bus.properties(*NETWORK)
            if manager is None:
                return Reading.unknown("network", f"{source}: no answer on the system bus")
            code = manager.get("Metered")
            if code not in _METERED and code not in _FREE:
                return Reading.unknown("network", source)
            metered, value = code in _METERED, {**_METERED, **_FREE}[code]
        reason = ""
        if metered and not self.allowed:
            reason = "the network is metered; use another, or set conditions.allow_metered = true"
        return Reading.judged("network", value, source, reason=reason)


@dataclass(frozen=True, slots=True)
class NightlyBytes:
    """Something is left of what a night may send and receive.

    Attributes:
        used_bytes: that this night has used.
        limit_bytes: 0 means none.
    """

    used_bytes: int
    limit_bytes: int

    def read(self) -> Reading:
        """What was counted, against the limit."""
        source = "this device's own count"
        used = f"{self.used_bytes / 2**20:.1f} MiB since noon"
        if not self.limit_bytes:
            return Reading.judged("traffic", used, source, reason="")
        reason = ""
        if self.used_bytes >= self.limit_bytes:
            reason = (
                f"this night has used {used} of {self.limit_bytes / 2**20:.0f} MiB (conditions.nightly_limit_mb); "
                "it begins anew at noon"
            )
        return Reading.judged("traffic", f"{used} of {self.limit_bytes / 2**20:.0f}", source, reason=reason)
