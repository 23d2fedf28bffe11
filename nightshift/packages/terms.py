"""What a model file or a hub's page states of its licence, as a manifest records it."""

from __future__ import annotations

import re
from typing import Final

from nightshift.protocol.manifest import Licence
from nightshift.protocol.openness import (
    FREE_LICENCES,
    NOTHING_STATED,
    Component,
    ComponentRecord,
    Openness,
    OpennessRecord,
)

UNSTATED: Final = "NOASSERTION"
"""SPDX's word for a licence that nobody stated."""

_NO_NOTICE_ASKED: Final = frozenset({"CC0-1.0", "MIT-0", "0BSD", "Unlicense"})
_SAYS_NOTHING: Final = frozenset({"", "other", "unknown", "noassertion", "none"})


def licence_named(stated: str) -> Licence:
    """The licence that a file names in its own words, as SPDX.

    A name that is no free licence of the list becomes `LicenseRef-NAME`: there are terms, and they are not
    known to be free. Nothing, or a word that means nothing, becomes NOASSERTION.
    """
    word = stated.strip().lower()
    free = {spdx.lower(): spdx for spdx in FREE_LICENCES}.get(word)
    if free is not None:
        notice = () if free in _NO_NOTICE_ASKED else ("Keep the copyright notice and the licence text.",)
        return Licence(free, notice)
    if word in _SAYS_NOTHING:
        return Licence(UNSTATED)
    reference = re.sub(r"[^a-z0-9.-]+", "-", word)[:60].strip("-")
    return Licence(f"LicenseRef-{reference}", ("Read the terms at the source of the weights.",))


def openness_of_weights(licence: Licence) -> OpennessRecord:
    """What a licence alone says: the weights are open under it; everything else stays unknown."""
    if licence.spdx == UNSTATED:
        return NOTHING_STATED
    return OpennessRecord({Component.WEIGHTS: ComponentRecord(Openness.OPEN, licence.spdx)})
