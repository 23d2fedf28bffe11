"""The two documents of the safes, `root` and `targets`, made of the keys that are to count.

Both follow from a `KeySet`, a version and a time. So what somebody is asked to sign can be told from its keys
alone, and what comes back signed is compared as a whole with what these keys make.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from securesystemslib.signer import Key
from tuf.api.metadata import DelegatedRole, Delegations, Root, Targets

from coordinator.releases.release_keys import ONLINE_ROLES
from nightshift.protocol.errors import UsageError
from nightshift.protocol.targets import DELEGATED_PATHS, Role

_DAY_S: Final = 86_400

LIFETIME_S: Final[Mapping[Role, int]] = {
    Role.ROOT: 730 * _DAY_S,
    Role.TARGETS: 730 * _DAY_S,
    Role.ADAPTERS: 90 * _DAY_S,
    Role.PACKAGES: 90 * _DAY_S,
    Role.SNAPSHOT: 30 * _DAY_S,
    Role.TIMESTAMP: 4 * _DAY_S,
}
"""Online metadata is signed again when half of its life has passed. The timestamp's life is how long news can be
withheld from a device unnoticed; half of it is how long the service may be down before devices that saw it end
complain about it."""

_TOP_LEVEL: Final = (Role.SNAPSHOT, Role.TIMESTAMP)


@dataclass(frozen=True, slots=True)
class KeySet:
    """Whose signatures count.

    Attributes:
        root: of the safes; they sign `root` and `targets`.
        threshold: how many of them it takes.
        online: one key for each online role.
    """

    root: tuple[Key, ...]
    threshold: int
    online: Mapping[Role, Key]

    def __post_init__(self) -> None:
        ids = [key.keyid for key in (*self.root, *self.online.values())]
        if not 1 <= self.threshold <= len(self.root):
            raise UsageError(
                f"the root cannot want {self.threshold} signatures of {len(self.root)} keys; at least one, at most all"
            )
        if len(set(ids)) != len(ids):
            raise UsageError("one key cannot be two of the root's, nor serve in two roles")
        if self.online.keys() != set(ONLINE_ROLES):
            raise UsageError(f"each of {', '.join(ONLINE_ROLES)} needs a key")

    @property
    def root_ids(self) -> list[str]:
        """Ids of the root's keys."""
        return [key.keyid for key in self.root]


def root_document(keys: KeySet, *, version: int, expires: datetime) -> Root:
    """The root: which keys count for the four top-level roles."""
    root = Root(version=version, expires=expires, consistent_snapshot=True)
    for key in keys.root:
        root.add_key(key, Root.type)
        root.add_key(key, Targets.type)
    root.roles[Root.type].threshold = keys.threshold
    root.roles[Targets.type].threshold = keys.threshold
    for role in _TOP_LEVEL:
        root.add_key(keys.online[role], role)
    return root


def targets_document(keys: KeySet, *, version: int, expires: datetime) -> Targets:
    """The top-level targets: no target of its own, and a delegation for each kind."""
    roles = {
        str(role): DelegatedRole(str(role), [keys.online[role].keyid], 1, terminating=True, paths=[path])
        for role, path in DELEGATED_PATHS.items()
    }
    known = {keys.online[role].keyid: keys.online[role] for role in DELEGATED_PATHS}
    return Targets(version=version, expires=expires, delegations=Delegations(known, roles=roles))


def key_set(root: Root, targets: Targets) -> KeySet:
    """The keys that two documents name.

    Raises:
        UsageError: the documents are not of the form that this module makes.
    """
    try:
        online = {role: _only(root.get_key(key_id) for key_id in root.roles[role].keyids) for role in _TOP_LEVEL}
        online |= {
            role: _only(targets.get_key(key_id) for key_id in targets.get_delegated_role(role).keyids)
            for role in DELEGATED_PATHS
        }
        keys = KeySet(
            tuple(root.get_key(key_id) for key_id in root.roles[Root.type].keyids),
            root.roles[Root.type].threshold,
            online,
        )
    except (KeyError, ValueError) as error:
        raise UsageError(f"the root does not name the keys that it must ({error}); request a new one") from error
    made = (
        root_document(keys, version=root.version, expires=root.expires),
        targets_document(keys, version=targets.version, expires=targets.expires),
    )
    if made != (root, targets):
        raise UsageError("the root says more than which keys count; request a new one with `coordinator keys rotate`")
    return keys


def expiry(role: Role, now_unix_s: int) -> datetime:
    """When a document that is signed now ends."""
    return datetime.fromtimestamp(now_unix_s + LIFETIME_S[role], UTC)


def unix_s(moment: datetime) -> int:
    """A time of the metadata in Unix seconds."""
    return int(moment.timestamp())


def _only(keys: Iterable[Key]) -> Key:
    (key,) = keys  # ValueError where there is not exactly one
    return key
