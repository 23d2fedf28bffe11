"""A bad device is alone after about log_k(n) rounds; no honest one is quarantined for what f members say."""

from __future__ import annotations

import hashlib
import itertools
import math
import random
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.rounds import assignment
from coordinator.rounds.suspects import Ending, Outcome, Suspicion, after_round, explainable
from nightshift.protocol.identity import DeviceId
from nightshift.protocol.secagg.parameters import CohortParameters


def device(number: int) -> DeviceId:
    return DeviceId(hashlib.sha256(number.to_bytes(4, "big")).digest())


@dataclass
class Fleet:
    """Devices that contribute, others that sit on committees, and who of them is bad.

    Attributes:
        contributors: how many; numbered from 0.
        cohorts: in every round.
        committee: C.
        bad: contributors that spoil whatever cohort they are in, by shares of another key.
        garblers: contributors whose shares no member can open.
        liars: members that say what they like.
    """

    contributors: int
    cohorts: int
    committee: int = 4
    bad: frozenset[DeviceId] = frozenset()
    garblers: frozenset[DeviceId] = frozenset()
    liars: frozenset[DeviceId] = frozenset()
    random: random.Random = field(default_factory=lambda: random.Random(1))
    rounds: int = 0

    @property
    def members(self) -> list[DeviceId]:
        return [device(10_000 + number) for number in range(3 * self.committee)]

    def night(self, suspicion: Suspicion) -> list[Outcome]:
        """One round, dealt as the coordinator deals it."""
        self.rounds += 1
        devices = [device(n) for n in range(self.contributors) if device(n) not in suspicion.quarantined]
        seed = self.rounds.to_bytes(4, "big")
        dealt = assignment.deal(devices, cohorts=self.cohorts, seed=seed, apart=suspicion.groups)
        pool = [member for member in self.members if member not in suspicion.doubtful]
        outcomes = []
        for number in range(self.cohorts):
            mine = frozenset(one for one, place in dealt.items() if place == number)
            outcomes.append(self.outcome(mine, self.random.sample(pool, self.committee)))
        return outcomes

    def outcome(self, contributors: frozenset[DeviceId], committee: list[DeviceId]) -> Outcome:
        parameters = CohortParameters.derive(n_max=512, value_bits=8, committee_size=self.committee)
        refusals: dict[DeviceId, frozenset[DeviceId]] = {}
        wrong = 0
        for member in committee:
            named = contributors & self.garblers
            if member in self.liars:
                said = self.random.choice(["honest", "refuse", "wrong"])
                wrong += said == "wrong"
                if said == "refuse":
                    named = frozenset(self.random.sample(sorted(contributors), 1))
            if named:
                refusals[member] = named
        answered = frozenset(committee) - refusals.keys()
        if len(answered) < parameters.threshold:
            ending = Ending.REFUSED
        elif contributors & self.bad or len(answered) - wrong < parameters.threshold:
            ending = Ending.ABSENT
        else:
            ending = Ending.OPENED
        return Outcome(ending, contributors, answered, refusals, parameters.corrupt)


@settings(max_examples=60, deadline=None)
@given(st.integers(6, 200), st.integers(2, 6), st.integers(0, 5), st.randoms(use_true_random=False))
def test_one_bad_device_is_alone_after_log_k_rounds(n: int, k: int, culprit: int, rng: random.Random) -> None:
    fleet = Fleet(n, k, bad=frozenset({device(culprit)}), random=rng)
    suspicion = Suspicion()
    # The first round makes a group of n / k; each later one divides it by k, rounding up.
    bound = 1
    group = math.ceil(n / k)
    while group > 1:
        group, bound = math.ceil(group / k), bound + 1
    for _ in range(bound):
        suspicion = after_round(suspicion, fleet.night(suspicion))
    alone = frozenset({device(culprit)})
    assert suspicion.groups == (alone,) or suspicion.quarantined == alone
    assert bound <= math.log(n, k) + 2


@settings(max_examples=40, deadline=None)
@given(st.integers(6, 60), st.integers(2, 5), st.integers(0, 5), st.integers(0, 2**32))
def test_one_bad_device_is_quarantined_and_the_next_night_is_whole(n: int, k: int, culprit: int, seed: int) -> None:
    """Committees are drawn anew; with the same members every night it could be they."""
    fleet = Fleet(n, k, bad=frozenset({device(culprit)}), random=random.Random(seed))
    suspicion = Suspicion()
    for _ in range(40):
        suspicion = after_round(suspicion, fleet.night(suspicion))
    assert suspicion.quarantined == {device(culprit)}
    assert suspicion.groups == ()
    assert all(outcome.ending is Ending.OPENED for outcome in fleet.night(suspicion))


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 60), st.integers(1, 5), st.integers(0, 2), st.randoms(use_true_random=False))
def test_a_garbler_is_found_also_with_a_single_cohort(n: int, k: int, culprit: int, rng: random.Random) -> None:
    fleet = Fleet(n, min(k, n), garblers=frozenset({device(culprit)}), random=rng)
    suspicion = Suspicion()
    for _ in range(2):  # C = 4, f = 1: two members' words, and every member of its cohort gives one
        suspicion = after_round(suspicion, fleet.night(suspicion))
    assert suspicion.quarantined == {device(culprit)}


@settings(max_examples=60, deadline=None)
@given(
    st.integers(3, 40),
    st.integers(1, 5),
    st.integers(3, 12),
    st.sets(st.integers(0, 39), max_size=3),
    st.randoms(use_true_random=False),
)
def test_no_honest_device_is_quarantined_for_what_f_members_do(
    n: int, k: int, committee: int, bad: set[int], rng: random.Random
) -> None:
    """f members refuse whom they like and answer wrongly; other devices spoil every cohort that they are in."""
    corrupt = CohortParameters.derive(n_max=512, value_bits=8, committee_size=committee).corrupt
    culprits = frozenset(device(number) for number in bad if number < n)
    fleet = Fleet(n, min(k, n), committee=committee, bad=culprits, random=rng)
    fleet.liars = frozenset(rng.sample(fleet.members, corrupt))
    suspicion = Suspicion()
    for _ in range(30):
        if n - len(suspicion.quarantined) < fleet.cohorts:
            break
        suspicion = after_round(suspicion, fleet.night(suspicion))
        assert suspicion.quarantined <= culprits


@settings(max_examples=100, deadline=None)
@given(st.lists(st.frozensets(st.integers(0, 7), min_size=1, max_size=5), max_size=6), st.integers(0, 4))
def test_an_explanation_is_a_hitting_set(sets: list[frozenset[int]], corrupt: int) -> None:
    liars = [frozenset(device(number) for number in each) for each in sets]
    members = sorted({member for each in liars for member in each})
    expected = any(
        all(each & frozenset(chosen) for each in liars)
        for chosen in itertools.combinations(members, min(corrupt, len(members)))
    )
    assert explainable(liars, corrupt) is expected
