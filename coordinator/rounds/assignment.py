"""Which cohort of a round a device belongs to: a rule, not a choice.

Every device that may contribute when the round opens is dealt to exactly one
cohort. Where cohorts train different numbers of rank slots, each class of devices
(`coordinator.rounds.rank_classes`) is dealt by itself to the cohorts of its rank.
Devices are taken in the order of SHA-256(seed ‖ device id), so that
nobody can choose its company. Groups of suspects are dealt first: each member
goes to the cohort with the fewest of its groups, then the fewest devices, then
the lowest number. Then the others go to the cohort with the fewest devices. So

* no cohort has more than one device more than another, as long as the others
  suffice to even out what the groups left uneven;
* of each of several disjoint groups, no cohort has more than one member more than
  another: with as many cohorts as members, every suspect is alone.

A device that comes later in the night has no place in that deal. It belongs, of
the cohorts with the most rank slots that it can train, to the one for which
SHA-256(seed ‖ device id ‖ number) is the lowest (rendezvous hashing), whoever asks and however often.

The seed follows from the plans' hashes, which are logged: an auditor with the
list of devices, and of the ranks that they can train, can deal again.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Collection, Iterable, Sequence

from nightshift.protocol.identity import DeviceId

MAX_COHORTS = 4096
"""A release names the plan of each cohort whose sum it holds; so many fit its size."""


def round_seed(plan_hashes: Iterable[bytes]) -> bytes:
    """The seed of a round's deal, from the hashes of its plans in the order of their cohorts: 32 bytes."""
    return hashlib.sha256(b"".join(plan_hashes)).digest()


def cohort_count(able: int, *, wanted: int, n_min: int, n_max: int, apart: Sequence[Collection[DeviceId]] = ()) -> int:
    """How many cohorts a round gets.

    Args:
        able: devices that may contribute.
        wanted: by the task; 0 stands for as many as it takes for all of them to find a place.
        n_min: fewest contributors of a cohort; each must be able to reach it.
        n_max: most contributors of a cohort.
        apart: suspects; the round is split so far that each of the largest group can be alone.

    Returns:
        At least 1.
    """
    most = max(1, min(able // n_min, MAX_COHORTS))
    suspects = max((len(group) for group in apart), default=0)
    return min(most, max(wanted or -(-able // n_max), suspects, 1))


def cohort_counts(
    classes: Sequence[Collection[DeviceId]],
    *,
    wanted: int,
    n_min: int,
    n_max: int,
    apart: Sequence[Collection[DeviceId]] = (),
) -> list[int]:
    """How many cohorts each rank class of a round gets; see `cohort_count`.

    Args:
        classes: the devices of each, n_min or more.
        wanted: by the task, in all: each class gets its share, rounded up.
        n_min: fewest contributors of a cohort.
        n_max: most contributors of a cohort.
        apart: suspects, in whichever class; those of different classes are apart anyhow.

    Returns:
        At least 1 for each class, and at most `MAX_COHORTS` in all.
    """
    total = sum(len(devices) for devices in classes)
    counts = []
    for devices in classes:
        here = [set(group).intersection(devices) for group in apart]
        share = -(-wanted * len(devices) // total)
        counts.append(cohort_count(len(devices), wanted=share, n_min=n_min, n_max=n_max, apart=here))
    counts[counts.index(max(counts))] -= max(0, sum(counts) - MAX_COHORTS)
    return counts


def deal(
    devices: Collection[DeviceId], *, cohorts: int, seed: bytes, apart: Sequence[Collection[DeviceId]] = ()
) -> dict[DeviceId, int]:
    """Deal devices to cohorts.

    Args:
        devices: distinct, in any order.
        cohorts: how many, at least 1.
        seed: from `round_seed`.
        apart: groups to be spread; devices that are not in `devices` are left out.

    Returns:
        Device -> number of its cohort, from 0.
    """
    groups = [frozenset(group) for group in apart]
    ranked = sorted(devices, key=lambda device: hashlib.sha256(seed + device).digest())
    suspected = {
        device: mine for device in ranked if (mine := [g for g, group in enumerate(groups) if device in group])
    }
    sizes = [0] * cohorts
    of_group = [[0] * len(groups) for _ in range(cohorts)]
    dealt: dict[DeviceId, int] = {}
    # Sorting is stable: by the first group, and within it in the order of the hash.
    for device, mine in sorted(suspected.items(), key=lambda item: item[1][0]):
        cohort = min(range(cohorts), key=lambda number: (sum(of_group[number][g] for g in mine), sizes[number], number))
        dealt[device] = cohort
        sizes[cohort] += 1
        for group in mine:
            of_group[cohort][group] += 1
    smallest_first = [(size, number) for number, size in enumerate(sizes)]
    heapq.heapify(smallest_first)
    for device in ranked:
        if device not in suspected:
            size, dealt[device] = heapq.heappop(smallest_first)
            heapq.heappush(smallest_first, (size + 1, dealt[device]))
    return dealt


def latecomer(device: DeviceId, *, numbers: Collection[int], seed: bytes) -> int:
    """The number, of some, of the cohort of a device that was not there when the round was dealt."""
    return min(numbers, key=lambda number: hashlib.sha256(seed + device + number.to_bytes(4, "big")).digest())
