"""How open a model is, per component, and the two axes computed from that.

Nightshift exists because federated post-training on closed models contradicts the privacy and
autonomy that it promises (Agrawal, Mertel, Mayer, arXiv 2505.23593). So every model package
states what is open, and the device's owner sets a minimum.

Axis one is the class of the Model Openness Framework, version 1.0 of 2024-12-15 (White et al., arXiv
2403.13784, section 5; components counted as its reference implementation, the LF AI & Data Model Openness
Tool, counts them: 6 for class III, 11 for class II, and for class I all but the optional ones):

* class III, Open Model: architecture, final weights, technical report, evaluation results, model
  card, data card
* class II, Open Tooling: class III and the code for training, inference and evaluation, the
  evaluation data, and the supporting libraries and tools
* class I, Open Science: class II and the research paper, datasets, preprocessing code,
  intermediate weights

(a research paper also counts as the technical report; sample outputs and metadata are optional there
and are recorded but not counted).

Axis two is the freedom of the weights' licence alone: a model can be free to use and yet
scientifically closed, or the other way round; one number would hide that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from nightshift.protocol.errors import MalformedError


class Component(StrEnum):
    """The components of the Model Openness Framework, by the names the manifest uses."""

    ARCHITECTURE = "architecture"
    WEIGHTS = "weights"
    TECHNICAL_REPORT = "technical_report"
    EVALUATION_RESULTS = "evaluation_results"
    MODEL_CARD = "model_card"
    DATA_CARD = "data_card"
    SAMPLE_OUTPUTS = "sample_outputs"
    TRAINING_CODE = "training_code"
    INFERENCE_CODE = "inference_code"
    EVALUATION_CODE = "evaluation_code"
    EVALUATION_DATA = "evaluation_data"
    SUPPORTING_TOOLS = "supporting_tools"
    RESEARCH_PAPER = "research_paper"
    DATASETS = "datasets"
    PREPROCESSING_CODE = "preprocessing_code"
    INTERMEDIATE_WEIGHTS = "intermediate_weights"
    METADATA = "metadata"


class Openness(StrEnum):
    """What is known of one component."""

    OPEN = "open"
    CLOSED = "closed"
    UNKNOWN = "unknown"


class MofClass(StrEnum):
    """Class of the Model Openness Framework; `UNKNOWN` where the record cannot decide."""

    OPEN_SCIENCE = "I"
    OPEN_TOOLING = "II"
    OPEN_MODEL = "III"
    NONE = "none"
    UNKNOWN = "unknown"


class WeightsFreedom(StrEnum):
    """What the licence of the weights lets anyone do, apart from everything else."""

    FREE = "free"
    RESTRICTED = "restricted"
    CLOSED = "closed"
    UNKNOWN = "unknown"


REQUIRED: tuple[tuple[MofClass, tuple[Component, ...]], ...] = (
    (
        MofClass.OPEN_MODEL,
        (
            Component.ARCHITECTURE,
            Component.WEIGHTS,
            Component.TECHNICAL_REPORT,
            Component.EVALUATION_RESULTS,
            Component.MODEL_CARD,
            Component.DATA_CARD,
        ),
    ),
    (
        MofClass.OPEN_TOOLING,
        (
            Component.TRAINING_CODE,
            Component.INFERENCE_CODE,
            Component.EVALUATION_CODE,
            Component.EVALUATION_DATA,
            Component.SUPPORTING_TOOLS,
        ),
    ),
    (
        MofClass.OPEN_SCIENCE,
        (
            Component.RESEARCH_PAPER,
            Component.DATASETS,
            Component.PREPROCESSING_CODE,
            Component.INTERMEDIATE_WEIGHTS,
        ),
    ),
)
"""Class -> what it asks for beyond the class before it (arXiv 2403.13784, section 5)."""

FREE_LICENCES = frozenset(
    {
        "0BSD",
        "AFL-3.0",
        "AGPL-3.0-only",
        "AGPL-3.0-or-later",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "BSL-1.0",
        "CC-BY-4.0",
        "CC-BY-SA-4.0",
        "CC0-1.0",
        "CDLA-Permissive-1.0",
        "CDLA-Permissive-2.0",
        "GPL-2.0-only",
        "GPL-2.0-or-later",
        "GPL-3.0-only",
        "GPL-3.0-or-later",
        "ISC",
        "LGPL-3.0-only",
        "LGPL-3.0-or-later",
        "MIT",
        "MIT-0",
        "MPL-2.0",
        "OpenMDW-1.0",
        "Unlicense",
        "Zlib",
    }
)
"""SPDX identifiers that let anyone use, study, change and share for any purpose."""

_MOF_ORDER = (MofClass.OPEN_SCIENCE, MofClass.OPEN_TOOLING, MofClass.OPEN_MODEL)
_FREEDOM_ORDER = (WeightsFreedom.FREE, WeightsFreedom.RESTRICTED)
_LICENCE_CHARACTERS_MAX = 200


@dataclass(frozen=True, slots=True)
class ComponentRecord:
    """One component: open, closed or unknown, and the SPDX identifier of its licence if one is stated.

    Raises:
        MalformedError: The licence is empty, longer than 200 characters, or not printable.
    """

    state: Openness
    licence: str | None = None

    def __post_init__(self) -> None:
        if self.licence is not None and not 0 < len(self.licence) <= _LICENCE_CHARACTERS_MAX:
            raise MalformedError(
                f"openness record: a licence of {len(self.licence)} characters; "
                f"expected an SPDX identifier of 1 to {_LICENCE_CHARACTERS_MAX}"
            )
        if self.licence is not None and not self.licence.isprintable():
            raise MalformedError("openness record: a licence with control characters; expected an SPDX identifier")


UNSTATED = ComponentRecord(Openness.UNKNOWN)


@dataclass(frozen=True, slots=True)
class OpennessRecord:
    """What a model package states about each component; a component it does not name is unknown."""

    components: Mapping[Component, ComponentRecord]

    def component(self, component: Component) -> ComponentRecord:
        """The record of one component, `UNSTATED` where the package says nothing."""
        return self.components.get(component, UNSTATED)

    def _state(self, component: Component) -> Openness:
        states = [self.component(component).state]
        if component is Component.TECHNICAL_REPORT:
            states.append(self.component(Component.RESEARCH_PAPER).state)
        if Openness.OPEN in states:
            return Openness.OPEN
        return Openness.UNKNOWN if Openness.UNKNOWN in states else Openness.CLOSED

    @property
    def mof_class(self) -> MofClass:
        """The highest class whose every component is open.

        An unknown component never lifts a class and never hides a closed one: with class III
        incomplete the answer is `NONE` if something it needs is closed, else `UNKNOWN`.
        """
        reached: MofClass | None = None
        for mof_class, required in REQUIRED:
            states = [self._state(component) for component in required]
            if all(state is Openness.OPEN for state in states):
                reached = mof_class
                continue
            if reached is not None:
                return reached
            return MofClass.NONE if Openness.CLOSED in states else MofClass.UNKNOWN
        assert reached is not None
        return reached

    @property
    def weights_freedom(self) -> WeightsFreedom:
        """The second axis: what the licence of the final weights allows."""
        weights = self.component(Component.WEIGHTS)
        if weights.state is Openness.CLOSED:
            return WeightsFreedom.CLOSED
        if weights.state is Openness.UNKNOWN or weights.licence is None:
            return WeightsFreedom.UNKNOWN
        return WeightsFreedom.FREE if weights.licence in FREE_LICENCES else WeightsFreedom.RESTRICTED

    def shortfall(self, *, minimum_class: MofClass, minimum_freedom: WeightsFreedom) -> str | None:
        """Why this record is below an owner's minimum, in words; None if it is not.

        Args:
            minimum_class: I, II or III; `NONE` accepts any class.
            minimum_freedom: `FREE` or `RESTRICTED`; `CLOSED` accepts any licence.

        Returns:
            A sentence for the ledger, or None.
        """
        mof_class, freedom = self.mof_class, self.weights_freedom
        if minimum_class in _MOF_ORDER:
            accepted = _MOF_ORDER[: _MOF_ORDER.index(minimum_class) + 1]
            if mof_class not in accepted:
                return f"openness class {mof_class} is below the owner's minimum, class {minimum_class}"
        if minimum_freedom in _FREEDOM_ORDER:
            accepted_freedom = _FREEDOM_ORDER[: _FREEDOM_ORDER.index(minimum_freedom) + 1]
            if freedom not in accepted_freedom:
                return f"the weights' licence is {freedom}; the owner's minimum is {minimum_freedom}"
        return None

    def to_json(self) -> dict[str, dict[str, str | None]]:
        """The record as plain JSON values, every component named."""
        return {
            component.value: {"state": record.state.value, "licence": record.licence}
            for component in Component
            for record in (self.component(component),)
        }

    @classmethod
    def from_json(cls, value: object) -> OpennessRecord:
        """Read a record from decoded JSON.

        Raises:
            MalformedError: Not an object of known components, each {state, licence}.
        """
        if not isinstance(value, dict):
            raise MalformedError("openness record: expected an object of components")
        components = {}
        for name, entry in value.items():
            if name not in Component.__members__.values():
                raise MalformedError(f"openness record: unknown component {str(name)[:40]!r}")
            if not isinstance(entry, dict) or set(entry) != {"state", "licence"}:
                raise MalformedError(f"openness record: {name}: expected exactly 'state' and 'licence'")
            state, licence = entry["state"], entry["licence"]
            if state not in Openness.__members__.values():
                raise MalformedError(f"openness record: {name}: state must be open, closed or unknown")
            if licence is not None and not isinstance(licence, str):
                raise MalformedError(f"openness record: {name}: licence must be text or null")
            components[Component(name)] = ComponentRecord(Openness(state), licence)
        return cls(components)


NOTHING_STATED = OpennessRecord({})
