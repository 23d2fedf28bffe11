"""How many rank slots a device trains in a round: as many as it can, in the company of enough others.

A device says at check-in how many slots it trains at most, a task says which ranks its cohorts may have
(`[adapter] ranks`). All contributors of a cohort train the same slots, since a slot that only one of them trained
would show its delta. So the devices of a round are divided into classes, and each class has cohorts of its own:

1. A device belongs to the largest rank of the task that it can train. One that cannot train even the smallest has
   no place; it still sits on committees.
2. A class of fewer than n_min devices falls to the next lower one that has any: they train fewer slots than they
   could, and are not lost.
3. If the lowest class is still short, the class above it lends it as many devices as it lacks, or joins it as
   a whole where too few would be left. Who is lent follows from SHA-256(seed ‖ device id): nobody chooses.

Nobody trains more than it can, and whoever could train at all has a place whenever n_min devices have one. What
this costs is company: a sum hides a device among those of its class, not among the whole fleet.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from nightshift.protocol.identity import DeviceId


@dataclass(frozen=True, slots=True)
class RankClass:
    """Devices that train the same slots.

    Attributes:
        rank: how many.
        devices: who, by id.
    """

    rank: int
    devices: tuple[DeviceId, ...]


def rank_of(limit: int, ranks: Collection[int]) -> int | None:
    """The largest of some ranks that a device can train.

    Args:
        limit: most slots that it trains; 0 for any number.
        ranks: to choose from.

    Returns:
        None where all of them are too many.
    """
    return max((rank for rank in ranks if not limit or rank <= limit), default=None)


def divide(limits: Mapping[DeviceId, int], *, ranks: Collection[int], n_min: int, seed: bytes) -> tuple[RankClass, ...]:
    """Divide the devices of a round into classes.

    Args:
        limits: device -> most slots that it trains; 0 for any number.
        ranks: of the task's cohorts.
        n_min: fewest contributors of a cohort.
        seed: that was fixed before anybody knew who is here, such as the id of the parent release.

    Returns:
        Classes of n_min devices or more, the lowest rank first; none where all devices together are fewer.
    """
    members: dict[int, list[DeviceId]] = {}
    for device, limit in sorted(limits.items()):
        rank = rank_of(limit, ranks)
        if rank is not None:
            members.setdefault(rank, []).append(device)
    present = sorted(members)
    for lower, rank in reversed(list(itertools.pairwise(present))):
        if len(members[rank]) < n_min:
            members[lower] += members.pop(rank)
    classes = sorted(members)
    if len(classes) > 1:
        _lend(members, low=classes[0], high=classes[1], n_min=n_min, seed=seed)
    return tuple(
        RankClass(rank, tuple(sorted(devices))) for rank, devices in sorted(members.items()) if len(devices) >= n_min
    )


def _lend(members: dict[int, list[DeviceId]], *, low: int, high: int, n_min: int, seed: bytes) -> None:
    """Fill up the lowest class from the one above it, which has n_min devices or more."""
    missing = n_min - len(members[low])
    if missing <= 0:
        return
    ranked = sorted(members[high], key=lambda device: hashlib.sha256(seed + device).digest())
    if len(ranked) - missing < n_min:
        missing = len(ranked)
    members[low] += ranked[:missing]
    members[high] = ranked[missing:]


def fall(classes: Sequence[RankClass], opened: Collection[int]) -> tuple[RankClass, ...]:
    """The classes when only some of their ranks got a cohort: the others' devices fall to the next lower one.

    Args:
        classes: from `divide`.
        opened: ranks that have a cohort; the lowest class is among them.
    """
    fallen: dict[int, tuple[DeviceId, ...]] = {}
    for each in classes:
        rank = rank_of(each.rank, opened)
        assert rank is not None, "the lowest class gets the first cohort"
        fallen[rank] = (*fallen.get(rank, ()), *each.devices)
    return tuple(RankClass(rank, devices) for rank, devices in fallen.items())
