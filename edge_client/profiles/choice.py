"""Which profile fits a machine.

A rule matches when every fact that it names is known and has a value that it
allows; a fact that is unknown matches nothing, so no profile is chosen on a
guess. Several profiles can match (a Pi 5 is also a generic arm64 machine). Then
the more telling evidence wins, in the order of `EVIDENCE`: the system around
the program limits it whatever the board is, a board's own name says more than
its enclosure, that more than its processor, and the architecture says least.
With the same evidence, the rule that names more facts wins, then the name of the
profile in alphabetical order: the choice never depends on the order of files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from edge_client.profiles.facts import Facts
from edge_client.profiles.profile import DeviceProfile, MatchRule

EVIDENCE = ("android", "board", "apple", "portable", "cores", "memory", "system", "architecture")
"""Facts that a rule can name, the most telling first."""


@dataclass(frozen=True, slots=True)
class Match:
    """A profile that fits, and what makes it fit.

    Attributes:
        profile: it.
        why: in words, the most telling first.
        evidence: for each name in `EVIDENCE`, whether the rule names it.
    """

    profile: DeviceProfile
    why: tuple[str, ...]
    evidence: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """The outcome.

    Attributes:
        profile: what fits best; None if nothing does.
        why: the facts that decided; without a profile, what was seen.
        alternatives: the other profiles that fit, the better first.
    """

    profile: DeviceProfile | None
    why: tuple[str, ...]
    alternatives: tuple[Match, ...] = ()


def choose(facts: Facts, profiles: Sequence[DeviceProfile]) -> Choice:
    """Pick the profile that fits best; see above for the rule."""
    found = sorted(
        (match for profile in profiles if (match := match_profile(facts, profile)) is not None),
        key=lambda match: (*(not named for named in match.evidence), match.profile.name),
    )
    if not found:
        seen = (("system", facts.system), ("architecture", facts.architecture), ("board", facts.board))
        return Choice(None, tuple(f"{name} is {value or 'unknown'}" for name, value in seen))
    best, *others = found
    return Choice(best.profile, best.why, tuple(others))


def match_profile(facts: Facts, profile: DeviceProfile) -> Match | None:
    """The best of a profile's rules that the facts satisfy; None if they satisfy none."""
    matches = []
    for rule in profile.match:
        named = dict(_named(facts, rule))
        if all(why is not None for why in named.values()):
            reasons = tuple(named[name] or "" for name in EVIDENCE if name in named)
            matches.append(Match(profile, reasons, tuple(name in named for name in EVIDENCE)))
    return max(matches, key=lambda match: match.evidence, default=None)


def _named(facts: Facts, rule: MatchRule) -> Iterator[tuple[str, str | None]]:
    """Each fact that a rule names, and why it is satisfied; None if it is not."""
    same = facts.architecture == rule.architecture
    yield "architecture", f"architecture is {facts.architecture}" if same else None
    if rule.system is not None:
        yield "system", f"system is {facts.system}" if facts.system == rule.system else None
    if rule.android is not None:
        holds = facts.android == rule.android
        yield "android", ("runs inside Android" if facts.android else "does not run inside Android") if holds else None
    if rule.board:
        fits = any(fnmatchcase(facts.board, pattern) for pattern in rule.board)
        yield "board", f"board is {facts.board!r}" if fits else None
    if rule.apple is not None:
        holds = facts.apple == rule.apple
        yield "apple", f"processor is {'' if facts.apple else 'not '}Apple's" if holds else None
    if rule.portable is not None:
        yield "portable", _portable(facts) if facts.portable is rule.portable else None
    if rule.cores:
        present = sorted(set(rule.cores) & {core_name(core) for core in facts.cores})
        yield "cores", f"has {', '.join(present)} cores" if present else None
    if rule.at_least_mb is not None or rule.at_most_mb is not None:
        size = facts.memory_mb
        fits = size is not None and (rule.at_least_mb or 0) <= size <= (rule.at_most_mb or size)
        yield "memory", f"memory is {size} MiB" if fits else None


def core_name(core: tuple[int, int]) -> str:
    """(implementer, part) as profiles spell it: "0x41:0xd08"."""
    return f"0x{core[0]:02x}:0x{core[1]:03x}"


def _portable(facts: Facts) -> str:
    what = "is portable" if facts.portable else "is not portable"
    sign = f"SMBIOS enclosure type {facts.chassis}" if facts.chassis is not None else ""
    battery = {True: "has a battery", False: "has no battery", None: ""}[facts.battery]
    return f"{what} ({', '.join(part for part in (sign, battery) if part)})"
