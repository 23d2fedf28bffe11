"""Whom a failed cohort accuses, who is cleared, who is quarantined: case by case."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest

from coordinator.rounds.suspects import Ending, Outcome, review
from nightshift.protocol.identity import DeviceId


def ids(names: str) -> frozenset[DeviceId]:
    return frozenset(DeviceId(hashlib.sha256(name.encode()).digest()) for name in names)


def one(name: str) -> DeviceId:
    (only,) = ids(name)
    return only


def opened(contributors: str, **refusals: str) -> Outcome:
    return ended(Ending.OPENED, contributors, "PQR", refusals)


def refused(contributors: str, **refusals: str) -> Outcome:
    return ended(Ending.REFUSED, contributors, "", refusals)


def absent(contributors: str, answered: str = "PQR") -> Outcome:
    return ended(Ending.ABSENT, contributors, answered, {})


def out_of_range(contributors: str) -> Outcome:
    return ended(Ending.OUT_OF_RANGE, contributors, "PQR", {})


def ended(ending: Ending, contributors: str, answered: str, refusals: dict[str, str]) -> Outcome:
    said = {one(member): ids(named) for member, named in refusals.items()}
    return Outcome(ending, ids(contributors), ids(answered), said, corrupt=1)


A_SILENT_COHORT = ended(Ending.OTHER, "abc", "P", {})


@pytest.mark.parametrize(
    ("rounds", "groups", "quarantined"),
    [
        pytest.param([], [], "", id="nothing happened"),
        pytest.param([[opened("abc")]], [], "", id="all is well"),
        pytest.param([[A_SILENT_COHORT]], [], "", id="members fell silent: nobody is suspected"),
        pytest.param([[absent("abc")]], ["abc"], "", id="no subset passes: all are suspects"),
        pytest.param([[refused("abc", P="b")]], ["b"], "", id="one member's word makes a suspect and no more"),
        pytest.param([[refused("abc", P="b", Q="c")]], ["bc"], "", id="all who were named"),
        pytest.param([[refused("abc", P="b", Q="b")]], [], "b", id="two members' words against f = 1"),
        pytest.param([[refused("abc", P="b")], [refused("bde", P="b")]], ["b"], "", id="twice the same member"),
        pytest.param([[refused("abc", P="b")], [refused("bde", Q="b")]], [], "b", id="another member, another night"),
        pytest.param([[refused("abc", P="b")], [opened("bde")]], [], "", id="cleared when its cohort opens"),
        pytest.param(
            [[refused("abc", P="b")], [opened("bde")], [refused("abc", Q="b")]],
            ["b"],
            "",
            id="what was said before it was cleared is forgotten",
        ),
        pytest.param([[opened("abc", P="b")]], [], "", id="the sum opened in spite of a refusal"),
        pytest.param([[absent("abcd"), opened("efgh")], [absent("abef"), opened("cdgh")]], ["ab"], "", id="halved"),
        pytest.param([[absent("abcd")], [absent("abef"), opened("cdgh")]], ["ab"], "", id="one of a, b explains it"),
        pytest.param([[refused("abc", P="b")], [absent("ade")]], ["b", "ade"], "", id="two things that happened"),
        pytest.param(
            [[absent("abcd"), opened("efgh")], [absent("abef"), absent("cdgh")]], ["ab", "cd"], "", id="two culprits"
        ),
        pytest.param(
            [[absent("abcd"), opened("efgh")], [opened("abef"), opened("cdgh")]], [], "", id="it was the members"
        ),
        pytest.param(
            [[absent("abcd"), opened("efgh")], [A_SILENT_COHORT]], ["abcd"], "", id="a night that says nothing"
        ),
        pytest.param(
            [[absent("ab"), opened("cdef")], [absent("acd"), opened("bef")], [absent("acd", "PQR")]],
            ["a"],
            "",
            id="alone, but P could have lied each time",
        ),
        pytest.param(
            [[absent("ab"), opened("cdef")], [absent("acd"), opened("bef")], [absent("acd", "STU")]],
            [],
            "a",
            id="alone twice, and no one member was there both times",
        ),
        pytest.param(
            [[out_of_range("ab"), opened("cd")], [out_of_range("ac"), opened("bd")]],
            ["a"],
            "",
            id="out of range and nobody else accused, once",
        ),
        pytest.param(
            [[out_of_range("ab"), opened("cd")], [out_of_range("ac"), opened("bd")], [out_of_range("ad"), opened("c")]],
            [],
            "a",
            id="out of range and nobody else accused, twice",
        ),
    ],
)
def test_the_table(rounds: Sequence[Sequence[Outcome]], groups: list[str], quarantined: str) -> None:
    found = review(rounds)
    assert set(found.groups) == {ids(group) for group in groups}
    assert found.quarantined == ids(quarantined)


def test_with_a_single_cohort_nothing_is_separated() -> None:
    found = review([[absent("abc", answered)] for answered in ("PQR", "STU", "VWX", "PSV")])
    assert (found.groups, found.quarantined) == ((ids("abc"),), frozenset())


def test_a_member_whose_refusals_nobody_confirms_is_kept_out_of_pools() -> None:
    nights = [[opened("abc", P="a")], [opened("abc", P="b")], [opened("abc", P="c")]]
    assert review(nights[:2]).doubtful == frozenset()
    assert review(nights).doubtful == ids("P")
    # Its word counts for nothing from then on.
    later = [*nights, [refused("abc", P="a", Q="a")]]
    assert review(later).quarantined == frozenset()


def test_one_device_cannot_make_a_member_doubtful() -> None:
    """It garbles its shares for one member night after night."""
    assert review([[opened("abc", P="a")]] * 10).doubtful == frozenset()
