"""Who may have spoilt a cohort, found by where it happens again.

A cohort can be spoilt without anybody seeing by whom: shares that do not open are seen by their
members only, shares of another key by nobody. So suspicion is a matter of company. When a cohort fails, a *group* of
its contributors is suspected, which holds the culprit as far as anyone can tell. The next round deals each
group over different cohorts (`coordinator.rounds.assignment`). Whoever is in a cohort that opens is
cleared; a group shrinks to its part in the cohort that fails again. With k cohorts a
group of n is down to one device after about log_k(n) rounds: adaptive group testing (Dorfman 1943).

Whom a failed cohort accuses:

* members refused shares: the contributors that they named;
* the sum is absent though T members answered, or is out of range: the contributors that are suspects already, or
  were in no cohort that opened since they were last accused; if there are none, all.

A device that is alone in its group is *quarantined* (it is offered no plans until the operator clears it) only when
its innocence can no longer be explained by f lying members: each refusal that names it needs that member to lie, and
each absent sum of a cohort in which nobody else was accused needs one of the answering members to
lie. If f members in all could have done it, nobody is convicted. Sums out of range are proved
by no member's word; the second one in which nobody else was accused convicts.

A member whose refusals nobody confirms harms others' standing, or was given garbage by one device
that wants it out. So it is kept out of pools only when cohorts opened in spite of its refusals of
`UNCONFIRMED_LIMIT` different devices.

What this cannot do. With one cohort in a round nothing is separated: a device that garbles shares is still found by its
members' refusals, one that shares another key spoils the round until the operator leaves devices out. A device that
behaves now and then is cleared now and then, and can cast its deeds on whoever is alone with it. So a quarantine is
no revocation: an operator sees it, with the reasons, and can undo it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from enum import StrEnum

from nightshift.protocol.identity import DeviceId

UNCONFIRMED_LIMIT = 3
OUT_OF_RANGE_LIMIT = 2
_MOST_STEPS = 100_000
"""Of the search for an explanation; where it is not enough, innocence counts as explained."""

Group = frozenset[DeviceId]


class Ending(StrEnum):
    """How a frozen cohort ended."""

    OPENED = "opened"
    REFUSED = "refused"
    ABSENT = "absent"
    OUT_OF_RANGE = "out of range"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One frozen cohort after its end.

    Attributes:
        ending: REFUSED is void with refusals; ABSENT has T answers that do not fit together.
        contributors: the set U.
        answered: members whose answer is here.
        refusals: member -> the contributors whose shares it could not use.
        corrupt: f of its committee.
    """

    ending: Ending
    contributors: Group
    answered: Group = frozenset()
    refusals: Mapping[DeviceId, Group] = field(default_factory=dict)
    corrupt: int = 1

    @property
    def named(self) -> Group:
        """Everybody whom some member named."""
        return frozenset().union(*self.refusals.values())


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks against one device since it was last cleared.

    Attributes:
        liars: sets of members; if the device is innocent, at least one of each set lied.
        corrupt: the largest f of the committees in question.
        out_of_range: sums out of range with nobody else accused.
    """

    liars: tuple[Group, ...] = ()
    corrupt: int = 1
    out_of_range: int = 0

    @property
    def convicts(self) -> bool:
        """Whether no f lying members can explain all of it."""
        return self.out_of_range >= OUT_OF_RANGE_LIMIT or not explainable(self.liars, self.corrupt)


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What the ended rounds say about devices.

    Attributes:
        groups: suspects; each group holds a culprit, as far as anyone can tell. To be dealt apart.
        evidence: against single devices.
        quarantined: devices that may not contribute.
        unconfirmed: member -> devices that it refused in cohorts that opened all the same.
        reliable: devices that were in a cohort that opened, and have not been accused since.
    """

    groups: tuple[Group, ...] = ()
    evidence: Mapping[DeviceId, Evidence] = field(default_factory=dict)
    quarantined: Group = frozenset()
    unconfirmed: Mapping[DeviceId, Group] = field(default_factory=dict)
    reliable: Group = frozenset()

    @property
    def doubtful(self) -> Group:
        """Members to be kept out of pools."""
        return frozenset(member for member, named in self.unconfirmed.items() if len(named) >= UNCONFIRMED_LIMIT)

    @property
    def suspects(self) -> Group:
        """Everybody in some group."""
        return frozenset().union(*self.groups)


def review(rounds: Iterable[Sequence[Outcome]]) -> Suspicion:
    """What all ended rounds, oldest first, say together."""
    suspicion = Suspicion()
    for outcomes in rounds:
        suspicion = after_round(suspicion, outcomes)
    return suspicion


def after_round(before: Suspicion, outcomes: Sequence[Outcome]) -> Suspicion:
    """The suspicion after one more round, from the frozen cohorts of that round."""
    opened = [outcome for outcome in outcomes if outcome.ending is Ending.OPENED]
    failed = [outcome for outcome in outcomes if outcome.ending not in (Ending.OPENED, Ending.OTHER)]
    cleared: Group = frozenset().union(*(outcome.contributors for outcome in opened))
    standing = replace(before, reliable=before.reliable | cleared)
    accused = [_accused(standing, outcome) for outcome in failed]
    evidence = {device: found for device, found in before.evidence.items() if device not in cleared}
    unconfirmed = _unconfirmed(before.unconfirmed, opened)
    doubtful = replace(before, unconfirmed=unconfirmed).doubtful
    for outcome, who in zip(failed, accused, strict=True):
        _add_evidence(evidence, outcome, who, doubtful)
    groups = _narrowed([group - cleared for group in before.groups], accused)
    convicted = {
        device for group in groups if len(group) == 1 for device in group if evidence.get(device, Evidence()).convicts
    }
    return Suspicion(
        groups=tuple(group for group in groups if not group & convicted),
        evidence=evidence,
        quarantined=before.quarantined | convicted,
        unconfirmed=unconfirmed,
        reliable=standing.reliable.difference(*accused),
    )


def explainable(liars: Sequence[Group], corrupt: int) -> bool:
    """Whether `corrupt` members suffice to meet every set: a hitting set, by bounded search.

    Args:
        liars: sets of members, at least one of each of which must have lied.
        corrupt: how many may lie in all.
    """
    steps = 0

    def covers(chosen: AbstractSet[DeviceId], left: int) -> bool:
        nonlocal steps
        steps += 1
        unmet = min((group for group in liars if not group & chosen), key=len, default=None)
        if unmet is None or steps > _MOST_STEPS:
            return True
        return left > 0 and any(covers(chosen | {member}, left - 1) for member in unmet)

    return covers(frozenset(), corrupt)


def _accused(standing: Suspicion, outcome: Outcome) -> Group:
    if outcome.ending is Ending.REFUSED:
        return outcome.named & outcome.contributors
    doubted = outcome.contributors - (standing.reliable - standing.suspects)
    return doubted or outcome.contributors


def _add_evidence(evidence: dict[DeviceId, Evidence], outcome: Outcome, accused: Group, doubtful: Group) -> None:
    for device in accused:
        found = evidence.get(device, Evidence())
        reporters = [
            frozenset({member})
            for member, named in outcome.refusals.items()
            if device in named and member not in doubtful
        ]
        alone = len(accused) == 1
        absent = [outcome.answered] if alone and outcome.ending is Ending.ABSENT else []
        evidence[device] = Evidence(
            liars=(*found.liars, *reporters, *absent),
            corrupt=max(found.corrupt, outcome.corrupt),
            out_of_range=found.out_of_range + (alone and outcome.ending is Ending.OUT_OF_RANGE),
        )


def _narrowed(groups: Sequence[Group], accused: Sequence[Group]) -> list[Group]:
    """Groups after the failures of a round: what is accused again stays, the rest of its group is let go."""
    found: set[Group] = set()
    hit: set[Group] = set()
    for who in accused:
        pieces = {group: group & who for group in groups if group & who}
        if who <= frozenset().union(*pieces):
            hit |= pieces.keys()
            found |= set(pieces.values())
        else:
            # Somebody without a good record was there too, and may be the one.
            found.add(who)
    found |= {group for group in groups if group and group not in hit}
    # What a smaller group explains, a larger one around it does not need to.
    smallest = [group for group in found if group and not any(other < group for other in found if other)]
    return sorted(smallest, key=sorted)


def _unconfirmed(before: Mapping[DeviceId, Group], opened: Iterable[Outcome]) -> dict[DeviceId, Group]:
    after = dict(before)
    for outcome in opened:
        for member, named in outcome.refusals.items():
            after[member] = after.get(member, frozenset()) | named
    return after
