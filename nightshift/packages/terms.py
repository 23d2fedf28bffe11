"""What a model file, a hub's page or a publisher states of licence and openness, as a manifest records it.

A publisher's file:

    [licence]
    spdx = "Apache-2.0"
    obligations = ["Keep the copyright notice and the licence text."]
    allowed_uses = []                    # empty: any

    [components]                         # of the Model Openness Framework, by the names of `openness.Component`
    weights = "Apache-2.0"               # open, under this licence
    datasets = "closed"                  # and what is left out is not stated
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from nightshift.host.configuration import read_toml, validated
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
_RESTRICTED: Final = frozenset({"CC-BY-NC-4.0", "CC-BY-NC-SA-4.0", "CC-BY-NC-ND-4.0", "CC-BY-ND-4.0"})
_READ_TERMS: Final = "Read the terms at the source of the weights."
_SAYS_NOTHING: Final = frozenset({"", "other", "unknown", "noassertion", "none"})


def licence_named(stated: str) -> Licence:
    """The licence that a file names in its own words, as SPDX.

    A name that is no free licence of the list becomes `LicenseRef-NAME`: there are terms, and they are not
    known to be free. Nothing, or a word that means nothing, becomes NOASSERTION.
    """
    word = stated.strip().lower()
    free = {spdx.lower(): spdx for spdx in FREE_LICENCES}.get(word)
    restricted = {spdx.lower(): spdx for spdx in _RESTRICTED}.get(word)
    if free is not None:
        notice = () if free in _NO_NOTICE_ASKED else ("Keep the copyright notice and the licence text.",)
        return Licence(free, notice)
    if word in _SAYS_NOTHING:
        return Licence(UNSTATED)
    if restricted is not None:
        return Licence(restricted, (_READ_TERMS,))
    if word.startswith("licenseref-"):
        return Licence(stated.strip(), (_READ_TERMS,))
    reference = re.sub(r"[^a-z0-9.-]+", "-", word)[:60].strip("-")
    return Licence(f"LicenseRef-{reference}", (_READ_TERMS,))


def openness_of_weights(licence: Licence) -> OpennessRecord:
    """What a licence alone says: the weights are open under it; everything else stays unknown."""
    if licence.spdx == UNSTATED:
        return NOTHING_STATED
    return OpennessRecord({Component.WEIGHTS: ComponentRecord(Openness.OPEN, licence.spdx)})


class _LicenceTable(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    spdx: str
    obligations: list[str] | None = None
    allowed_uses: list[str] = []


class _Terms(BaseModel):
    model_config = ConfigDict(extra="forbid")

    licence: _LicenceTable | None = None
    components: dict[Component, str] = {}


def read_terms(path: Path) -> tuple[Licence | None, OpennessRecord | None]:
    """Read a publisher's file; None for what it leaves out.

    Raises:
        UsageError: absent, no TOML, or an unknown key or component; says which.
        MalformedError: a licence that is no printable word.
    """
    terms = validated(_Terms, read_toml(path), str(path))
    licence = None
    if terms.licence is not None:
        known = licence_named(terms.licence.spdx)
        stated = terms.licence.obligations
        licence = Licence(
            known.spdx, known.obligations if stated is None else tuple(stated), tuple(terms.licence.allowed_uses)
        )
    records = {
        component: ComponentRecord(Openness.CLOSED)
        if stated == Openness.CLOSED
        else ComponentRecord(Openness.OPEN, stated)
        for component, stated in terms.components.items()
    }
    if licence is not None and records:
        records = dict(openness_of_weights(licence).components) | records
    return licence, OpennessRecord(records) if records else None
