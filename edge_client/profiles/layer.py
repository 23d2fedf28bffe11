"""The device profile as the layer of the configuration that everything the owner says overrides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edge_client.profiles.choice import choose
from edge_client.profiles.reading import read_facts
from edge_client.profiles.settings import configuration_layer, settings_for
from edge_client.profiles.shipped import find_profile, load_profiles

if TYPE_CHECKING:
    from pydantic import BaseModel

    from edge_client.profiles.facts import Facts

AUTOMATIC = "auto"
NONE = "none"


@dataclass(frozen=True, slots=True)
class Advice:
    """What a device profile advises for one machine.

    Attributes:
        profile: its name; "" where none applies.
        values: dotted key of the configuration -> value.
    """

    profile: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)


def advice_for(wanted: str, model: type[BaseModel], facts: Facts | None = None) -> Advice:
    """Look at the machine and fit a profile to it.

    Args:
        wanted: a profile's name; "auto" takes the one that fits best, "none" takes no advice.
        model: the configuration; advice for which it has no key is left out.
        facts: of the machine; None reads this one.

    Returns:
        No advice where no profile fits: the defaults then hold, and `profile detect` says why.

    Raises:
        UsageError: there is no profile of this name.
    """
    if wanted == NONE:
        return Advice()
    profiles = load_profiles()
    known = read_facts() if facts is None else facts
    profile = choose(known, profiles).profile if wanted == AUTOMATIC else find_profile(wanted, profiles)
    if profile is None:
        return Advice()
    return Advice(profile.name, configuration_layer(settings_for(profile, known), model))
