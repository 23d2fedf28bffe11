"""Who sits on a committee: drawn by hash from the logged pool, so that anyone can draw it again."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from nightshift.protocol.domains import Domain, digest
from nightshift.protocol.errors import DeclinedError, UsageError
from nightshift.protocol.identity import DeviceId
from nightshift.protocol.secagg.parameters import MAX_COMMITTEE, MIN_COMMITTEE, CohortParameters

USUAL_SIZE = 10


def committee_size(pool: int, wanted: int = USUAL_SIZE) -> int:
    """C = min(wanted, pool), what a coordinator plans with.

    No device relies on it: the draw fixes who sits for every C, and each owner's policy says how small C may be.

    Args:
        pool: devices in the pool.
        wanted: members that the task asks for, 3..31.

    Raises:
        UsageError: fewer than 3 devices in the pool, or `wanted` outside its range.
    """
    if not MIN_COMMITTEE <= wanted <= MAX_COMMITTEE:
        raise UsageError(f"a committee has {MIN_COMMITTEE} to {MAX_COMMITTEE} members, {wanted} were asked for")
    if pool < MIN_COMMITTEE:
        raise UsageError(
            f"a committee needs {MIN_COMMITTEE} devices that were seen lately and have a prekey, "
            f"the pool has {pool}; wait for more devices to check in"
        )
    return min(wanted, pool)


def committee_seed(checkpoint_before_plan: bytes, cohort_id: bytes) -> bytes:
    """The seed of a draw: SHA-256(domain ‖ log checkpoint before the plan ‖ cohort id).

    The coordinator can still grind it a little, by choosing when to log and the cohort id.
    """
    return digest(Domain.COMMITTEE_SEED, checkpoint_before_plan, cohort_id)


def draw(seed: bytes, cohort_id: bytes, pool: Sequence[DeviceId], size: int) -> list[DeviceId]:
    """Draw a committee: the `size` devices with the lowest SHA-256(domain ‖ seed ‖ cohort id ‖ device id).

    Args:
        seed: from `committee_seed`.
        cohort_id: of the cohort.
        pool: the logged snapshot, in any order; distinct.
        size: C, at most the pool's size.

    Returns:
        The members; the first has index 1.

    Raises:
        UsageError: a device stands twice in the pool, or the pool is smaller than `size`.
    """
    if len(set(pool)) != len(pool):
        raise UsageError("a device stands twice in the committee pool; expected distinct devices")
    if not MIN_COMMITTEE <= size <= len(pool):
        raise UsageError(f"cannot draw a committee of {size} from a pool of {len(pool)}")
    return sorted(pool, key=lambda device: digest(Domain.COMMITTEE_DRAW, seed, cohort_id, device))[:size]


def peers_required(parameters: CohortParameters) -> int:
    """C - T + 1: so many honest members, and nothing opens without one of them."""
    return parameters.committee_size - parameters.threshold + 1


def check_peers(
    parameters: CohortParameters, committee: Collection[DeviceId], peers: Collection[DeviceId], *, wanted: int = 0
) -> None:
    """Check a committee against the devices that an owner trusts by name.

    Args:
        parameters: of the cohort.
        committee: device ids of the members.
        peers: the owner's pinned devices.
        wanted: more of them than C - T + 1; with C - f nothing but one set can open.

    Raises:
        DeclinedError: fewer than C - T + 1 members are pinned, or fewer than `wanted`.
    """
    pinned, needed = len(set(committee) & set(peers)), max(peers_required(parameters), wanted)
    if pinned < needed:
        raise DeclinedError(
            f"{pinned} of its {parameters.committee_size} committee members are devices that this owner trusts by "
            f"name, {needed} are needed so that nothing opens without one of them"
        )
