"""The two axes of openness, against the framework's own table."""

from __future__ import annotations

import pytest

from nightshift.protocol.errors import MalformedError
from nightshift.protocol.openness import (
    NOTHING_STATED,
    REQUIRED,
    Component,
    ComponentRecord,
    MofClass,
    Openness,
    OpennessRecord,
    WeightsFreedom,
)

OPEN = ComponentRecord(Openness.OPEN, "Apache-2.0")
CLOSED = ComponentRecord(Openness.CLOSED)

CLASS_III, CLASS_II, CLASS_I = (set(components) for _, components in REQUIRED)


def record(components: set[Component], **others: ComponentRecord) -> OpennessRecord:
    return OpennessRecord(dict.fromkeys(components, OPEN) | {Component(name): entry for name, entry in others.items()})


def test_each_class_is_reached_by_exactly_its_components() -> None:
    assert record(CLASS_III).mof_class is MofClass.OPEN_MODEL
    assert record(CLASS_III | CLASS_II).mof_class is MofClass.OPEN_TOOLING
    assert record(CLASS_III | CLASS_II | CLASS_I).mof_class is MofClass.OPEN_SCIENCE
    assert record(CLASS_III | CLASS_I).mof_class is MofClass.OPEN_MODEL  # classes build on each other


OPENNESS_TOOL: dict[MofClass, set[str]] = {
    MofClass.OPEN_MODEL: {
        "architecture",
        "weights",
        "model_card",
        "data_card",
        "technical_report",
        "evaluation_results",
    },
    MofClass.OPEN_TOOLING: {
        "training_code",
        "inference_code",
        "evaluation_code",
        "supporting_tools",
        "evaluation_data",
    },
    MofClass.OPEN_SCIENCE: {"preprocessing_code", "intermediate_weights", "datasets", "research_paper"},
}
"""Read off the Model Openness Tool's own test files (lfai/model_openness_tool, Test_Data, 2025-06): the file that
is exactly class III has 6 components and none of class II's, the one that is exactly class II these 11, and the one
that is exactly class I has, with a research paper for the technical report, all but the metadata."""


def test_the_components_are_those_of_the_reference_implementation() -> None:
    assert {
        mof_class: {str(component) for component in components} for mof_class, components in REQUIRED
    } == OPENNESS_TOOL
    assert len(Component) == 17


def test_a_class_i_record_of_the_reference_implementation() -> None:
    stated = set(Component) - {Component.TECHNICAL_REPORT, Component.METADATA}
    assert len(stated) == 15
    assert record(stated).mof_class is MofClass.OPEN_SCIENCE


@pytest.mark.parametrize("missing", sorted(CLASS_III - {Component.TECHNICAL_REPORT}))
def test_one_gap_in_class_iii_decides(missing: Component) -> None:
    everything = set(Component) - {missing}
    assert record(everything).mof_class is MofClass.UNKNOWN
    assert record(everything, **{missing: CLOSED}).mof_class is MofClass.NONE


def test_a_closed_component_outweighs_unknown_ones() -> None:
    assert record(set(), data_card=CLOSED).mof_class is MofClass.NONE
    assert NOTHING_STATED.mof_class is MofClass.UNKNOWN


@pytest.mark.parametrize("gap", sorted(CLASS_II))
def test_a_gap_above_keeps_the_class_below(gap: Component) -> None:
    everything = set(Component) - {gap}
    assert record(everything).mof_class is MofClass.OPEN_MODEL
    assert record(everything, **{gap: CLOSED}).mof_class is MofClass.OPEN_MODEL


def test_a_research_paper_counts_as_the_technical_report() -> None:
    without = CLASS_III - {Component.TECHNICAL_REPORT}
    assert record(without | {Component.RESEARCH_PAPER}).mof_class is MofClass.OPEN_MODEL
    assert record(without, research_paper=OPEN, technical_report=CLOSED).mof_class is MofClass.OPEN_MODEL
    assert record(without, research_paper=CLOSED, technical_report=CLOSED).mof_class is MofClass.NONE
    assert record(without, technical_report=CLOSED).mof_class is MofClass.UNKNOWN


@pytest.mark.parametrize(
    ("weights", "freedom"),
    [
        (ComponentRecord(Openness.OPEN, "MIT"), WeightsFreedom.FREE),
        (ComponentRecord(Openness.OPEN, "LicenseRef-llama3"), WeightsFreedom.RESTRICTED),
        (ComponentRecord(Openness.OPEN), WeightsFreedom.UNKNOWN),
        (ComponentRecord(Openness.UNKNOWN, "MIT"), WeightsFreedom.UNKNOWN),
        (ComponentRecord(Openness.CLOSED, "MIT"), WeightsFreedom.CLOSED),
    ],
)
def test_the_freedom_of_the_weights_is_an_axis_of_its_own(weights: ComponentRecord, freedom: WeightsFreedom) -> None:
    assert OpennessRecord({Component.WEIGHTS: weights}).weights_freedom is freedom
    assert record(set(Component), weights=weights).weights_freedom is freedom


def test_an_owners_minimum_is_explained() -> None:
    science, model = record(set(Component)), record(CLASS_III)
    for minimum in (MofClass.OPEN_SCIENCE, MofClass.OPEN_TOOLING, MofClass.OPEN_MODEL, MofClass.NONE):
        assert science.shortfall(minimum_class=minimum, minimum_freedom=WeightsFreedom.FREE) is None
    assert model.shortfall(minimum_class=MofClass.OPEN_MODEL, minimum_freedom=WeightsFreedom.FREE) is None
    reason = model.shortfall(minimum_class=MofClass.OPEN_TOOLING, minimum_freedom=WeightsFreedom.FREE)
    assert reason == "openness class III is below the owner's minimum, class II"
    unknown = NOTHING_STATED.shortfall(minimum_class=MofClass.NONE, minimum_freedom=WeightsFreedom.RESTRICTED)
    assert unknown == "the weights' licence is unknown; the owner's minimum is restricted"
    assert NOTHING_STATED.shortfall(minimum_class=MofClass.NONE, minimum_freedom=WeightsFreedom.CLOSED) is None
    assert NOTHING_STATED.shortfall(minimum_class=MofClass.OPEN_MODEL, minimum_freedom=WeightsFreedom.CLOSED)


def test_json_and_back() -> None:
    original = record(CLASS_II, datasets=CLOSED)
    decoded = OpennessRecord.from_json(original.to_json())
    assert all(decoded.component(component) == original.component(component) for component in Component)
    assert set(original.to_json()) == {component.value for component in Component}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "expected an object"),
        ({"soul": {"state": "open", "licence": None}}, "unknown component"),
        ({"weights": {"state": "open"}}, "exactly"),
        ({"weights": {"state": "open", "licence": None, "note": ""}}, "exactly"),
        ({"weights": {"state": ["open"], "licence": None}}, "state must be"),
        ({"weights": {"state": "open", "licence": 3}}, "text or null"),
        ({"weights": {"state": "open", "licence": ""}}, "licence of 0"),
        ({"weights": {"state": "open", "licence": "x" * 300}}, "licence of 300"),
        ({"weights": {"state": "open", "licence": "MIT\x1b[2J"}}, "control characters"),
    ],
)
def test_a_malformed_record_is_refused(value: object, message: str) -> None:
    with pytest.raises(MalformedError, match=message):
        OpennessRecord.from_json(value)
