"""The rare acts of the release metadata's root: new keys for a role, the next root, keys going to safes.

`root` and `targets` are signed by enough of the root's keys. While enough of them are here one command does
everything; with the keys in safes a file goes round and collects signatures, and no key meets the network::

    here                                              the machines in the safes, one after another
    keys offline DIRECTORY  -- the root's keys -->    each file to a safe of its own
    keys rotate ROLE --to FILE  -- FILE -->           keys sign-root --key KEY FILE
    keys install-root FILE  <-- FILE --

A new key of an online role is made here by `rotate` and waits beside the old one; a new key of the root is
made where it will stay, by `keys make`, and only its public half travels. Every root is signed by enough keys
of the one before and of its own, so devices follow the chain one by one (TUF specification, 5.3).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from securesystemslib.signer import CryptoSigner, Key
from sqlalchemy.orm import Session
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Targets

from coordinator.enrolment import issuing
from coordinator.enrolment.key_files import key_pem
from coordinator.releases.documents import KeySet, expiry, key_set, root_document, targets_document, unix_s
from coordinator.releases.release_keys import ID_DIGITS, ONLINE_ROLES, ReleaseKeys, public_key, read_signer
from coordinator.releases.repository import current_keys, install, latest
from nightshift.host.files import sync_directory, write_atomic
from nightshift.protocol.errors import NotFoundError, UsageError
from nightshift.protocol.targets import MAX_METADATA_BYTES, Role

MAX_FILE_BYTES = 4 * MAX_METADATA_BYTES[Role.ROOT]
"""Of a file on its way to the safes; it is JSON that people may look at."""


@dataclass(frozen=True, slots=True)
class NextRoot:
    """A root on its way round, with the targets that go with it.

    Attributes:
        root: which keys count.
        targets: which online keys sign adapters and packages.
        previous: the root before, whose keys must sign too.
    """

    root: Metadata[Root]
    targets: Metadata[Targets]
    previous: Metadata[Root]

    @property
    def keys(self) -> KeySet:
        """The keys that are to count."""
        return key_set(self.root.signed, self.targets.signed)

    def missing(self) -> tuple[int, int]:
        """How many signatures it lacks, by keys of the root before and by its own."""
        return (
            _missing(self.previous.signed, Role.ROOT, self.root),
            max(
                _missing(self.root.signed, Role.ROOT, self.root), _missing(self.root.signed, Role.TARGETS, self.targets)
            ),
        )

    @property
    def complete(self) -> bool:
        """Whether devices would take it."""
        return self.missing() == (0, 0)

    def sign(self, signer: CryptoSigner) -> None:
        """Add a key's signatures.

        Raises:
            UsageError: the key counts neither before nor after.
        """
        key_id = signer.public_key.keyid
        if key_id not in {*self.keys.root_ids, *self.previous.signed.roles[Root.type].keyids}:
            raise UsageError(
                f"key {key_id[:ID_DIGITS]} is none of the root's, before or after; its signature would not count"
            )
        self.root.sign(signer, append=True)
        if key_id in self.keys.root_ids:
            self.targets.sign(signer, append=True)

    def to_bytes(self) -> bytes:
        """The file, JSON."""
        content = {"root": self.root.to_dict(), "targets": self.targets.to_dict(), "previous": self.previous.to_dict()}
        return json.dumps(content, indent=1, sort_keys=True).encode() + b"\n"

    @classmethod
    def from_file(cls, path: Path) -> NextRoot:
        """Read what `to_bytes` wrote.

        Raises:
            UsageError: absent, or something else.
        """
        if not path.exists() or path.stat().st_size > MAX_FILE_BYTES:
            raise UsageError(f"{path} is not a root to sign; make one with `coordinator keys rotate ROLE --to FILE`")
        try:
            content: dict[str, Any] = json.loads(path.read_bytes())
            return cls(
                Metadata[Root].from_dict(content["root"]),
                Metadata[Targets].from_dict(content["targets"]),
                Metadata[Root].from_dict(content["previous"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RepositoryError) as error:
            raise UsageError(
                f"{path} is not a root to sign ({error}); make one with `coordinator keys rotate ROLE --to FILE`"
            ) from error


@dataclass(frozen=True, slots=True)
class RootChange:
    """What shall be another in the next root's own keys.

    Attributes:
        add: public keys.
        drop: first digits of key ids.
        threshold: how many signatures it shall take; None leaves it.
    """

    add: Sequence[Key] = ()
    drop: Sequence[str] = ()
    threshold: int | None = None


NO_CHANGE = RootChange()


def make_root_key(private: Path, public: Path) -> Key:
    """Make a key of the root where it will stay; its public half is for `keys rotate root --add`.

    Raises:
        UsageError: a file exists.
        ResourceError: a file cannot be written.
    """
    for path in (private, public):
        if path.exists():
            raise UsageError(f"{path} exists; name a new file")
    key = issuing.new_key()
    write_atomic(private.absolute(), key_pem(key), mode=0o600)
    pem = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    write_atomic(public.absolute(), pem, mode=0o644)
    return public_key(key.public_key())


def take_offline(session: Session, keys: ReleaseKeys, directory: Path) -> list[Path]:
    """Move the root's keys to another directory; each is removed here once it was read back there.

    Raises:
        UsageError: no key of the root is here, or a file exists there.
        ResourceError: a file cannot be written; that key stays.
    """
    signers = keys.signers(Role.ROOT, current_keys(session).root_ids)
    if not signers:
        raise UsageError("no key of the root is in the keys directory; they were taken offline before")
    if not directory.is_dir():
        raise UsageError(f"{directory} is not a directory; make it, or mount the medium")
    moved = []
    for source in keys.files(Role.ROOT):
        target = directory / source.name
        if target.exists():
            raise UsageError(f"{target} exists; name another directory")
        write_atomic(target, source.read_bytes(), mode=0o600)
        read_signer(target, read_signer(source).public_key.keyid)
        source.unlink()
        sync_directory(source.parent)
        moved.append(target)
    return moved


def prepare(
    session: Session,
    keys: ReleaseKeys,
    *,
    renewed: Collection[Role] = (),
    change: RootChange = NO_CHANGE,
    now_unix_s: int,
) -> NextRoot:
    """The next root, signed by those of the root's keys that are here.

    Args:
        session: of the rows.
        keys: where the files are.
        renewed: roles that get new keys, made here; the root among them replaces those of its keys that are here.
        change: to the root's own keys.
        now_unix_s: its life begins.

    Raises:
        UsageError: a change that makes no sense, or the root's keys are to be replaced and none is here.
        NotFoundError: a key to drop is none of the root's.
    """
    root, targets, present = (
        latest(session, Role.ROOT, Root),
        latest(session, Role.TARGETS, Targets),
        current_keys(session),
    )
    chosen = _changed(present, change)
    if Role.ROOT in renewed:
        chosen = _with_new_root_keys(chosen, keys)
    online = {role: keys.create(role) if role in renewed else key for role, key in chosen.online.items()}
    chosen = replace(chosen, online=online)
    made = NextRoot(
        Metadata(root_document(chosen, version=root.version + 1, expires=expiry(Role.ROOT, now_unix_s))),
        Metadata(targets_document(chosen, version=targets.version + 1, expires=expiry(Role.TARGETS, now_unix_s))),
        Metadata(root),
    )
    for signer in keys.signers(Role.ROOT, dict.fromkeys([*present.root_ids, *chosen.root_ids])):
        made.sign(signer)
    return made


def install_next(session: Session, keys: ReleaseKeys, made: NextRoot, now_unix_s: int) -> KeySet:
    """Let a signed root take the place of the present one, and sign everything else with the keys that it names.

    Raises:
        UsageError: not the root that follows, not signed by enough keys, ended, or its online keys are not here.
            Nothing changed.
    """
    root, targets = latest(session, Role.ROOT, Root), latest(session, Role.TARGETS, Targets)
    if made.previous.signed != root or made.root.signed.version != root.version + 1:
        raise UsageError(
            f"the file holds root {made.root.signed.version}, which does not follow the present root {root.version}; "
            "begin again with `coordinator keys rotate`"
        )
    chosen = made.keys  # refuses documents of another form
    if made.targets.signed.version != targets.version + 1:
        raise UsageError(
            "the targets of the file do not follow the present ones; begin again with `coordinator keys rotate`"
        )
    before, own = made.missing()
    if before or own:
        raise UsageError(
            f"the root lacks {before} signatures by keys of the present root and {own} by its own; "
            "collect them with `coordinator keys sign-root`"
        )
    if min(unix_s(made.root.signed.expires), unix_s(made.targets.signed.expires)) <= now_unix_s:
        raise UsageError("the root of the file has ended; begin again with `coordinator keys rotate`")
    for role in ONLINE_ROLES:
        if not keys.signers(role, [chosen.online[role].keyid]):
            raise UsageError(
                f"the new key for {role} is not in {keys.online_directory}; install the root where it was requested"
            )
    install(session, keys, made.root.to_bytes(), made.targets.to_bytes(), now_unix_s)
    return chosen


def forget_former(keys: ReleaseKeys, chosen: KeySet) -> None:
    """Remove the files of keys that do not count any more; for after the commit of `install_next`."""
    for role in ONLINE_ROLES:
        keys.forget_others(role, [chosen.online[role].keyid])
    keys.forget_others(Role.ROOT, chosen.root_ids)


def root_keys_here(session: Session, keys: ReleaseKeys) -> int:
    """How many of the root's keys are in the keys directory."""
    return len(keys.signers(Role.ROOT, current_keys(session).root_ids))


def _changed(present: KeySet, change: RootChange) -> KeySet:
    dropped = [_root_key(present, digits) for digits in change.drop]
    kept = [key for key in present.root if key not in dropped]
    threshold = present.threshold if change.threshold is None else change.threshold
    return replace(present, root=(*kept, *change.add), threshold=threshold)


def _root_key(present: KeySet, digits: str) -> Key:
    found = [key for key in present.root if digits and key.keyid.startswith(digits.lower())]
    if len(found) != 1:
        raise NotFoundError(f"no single key of the root begins with {digits!r}; see `coordinator keys show`")
    return found[0]


def _with_new_root_keys(chosen: KeySet, keys: ReleaseKeys) -> KeySet:
    here = {signer.public_key.keyid for signer in keys.signers(Role.ROOT, chosen.root_ids)}
    if not here:
        raise UsageError(
            "no key of the root is here to be replaced; make a new one where it will stay (`coordinator keys make`), "
            "then: coordinator keys rotate root --add PUBLIC --drop ID --to FILE"
        )
    replaced = tuple(keys.create(Role.ROOT) if key.keyid in here else key for key in chosen.root)
    return replace(chosen, root=replaced)


def _missing(delegator: Root, role: Role, metadata: Metadata[Any]) -> int:
    return delegator.get_verification_result(role, metadata.signed_bytes, metadata.signatures).missing
