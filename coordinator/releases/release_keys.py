"""The keys that sign release metadata, as PEM files of mode 0600.

::

    keys/release-root/root-ID.pem     the root's: to be carried to safes (`coordinator keys offline`)
    keys/releases/ROLE-ID.pem         one for each online role

A file is named by the first digits of its TUF key id, and metadata says which keys count. So a new key lies
beside the old one until the root that names it is installed, and at no moment is a key missing that counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from securesystemslib.signer import CryptoSigner, SSlibKey

from coordinator.enrolment import issuing
from coordinator.enrolment.key_files import key_pem, read_key
from nightshift.host.files import make_private_directory, sync_directory, write_atomic
from nightshift.protocol.errors import UsageError
from nightshift.protocol.targets import Role

ONLINE_ROLES = (Role.ADAPTERS, Role.PACKAGES, Role.SNAPSHOT, Role.TIMESTAMP)
ID_DIGITS = 16


@dataclass(frozen=True, slots=True)
class ReleaseKeys:
    """The key files below a coordinator's keys directory."""

    directory: Path

    @property
    def root_directory(self) -> Path:
        """The root's keys, until they are taken offline."""
        return self.directory / "release-root"

    @property
    def online_directory(self) -> Path:
        """The keys that the service signs with."""
        return self.directory / "releases"

    def create(self, role: Role) -> SSlibKey:
        """Make a key and keep it; returns its public half. It counts once metadata names it."""
        key = issuing.new_key()
        public = public_key(key.public_key())
        path = self._path(role, public.keyid)
        make_private_directory(path.parent)
        write_atomic(path, key_pem(key), mode=0o600)
        return public

    def signers(self, role: Role, key_ids: Iterable[str]) -> list[CryptoSigner]:
        """Those of the named keys whose files are here.

        Raises:
            UsageError: a file is readable by others, damaged, or holds another key than its name says.
        """
        return [read_signer(path, key_id) for key_id in key_ids if (path := self._path(role, key_id)).exists()]

    def files(self, role: Role) -> Sequence[Path]:
        """All key files of a role, also of keys that do not count (yet, or any more)."""
        return sorted(self._folder(role).glob(f"{role}-*.pem"))

    def forget_others(self, role: Role, key_ids: Iterable[str]) -> None:
        """Remove the files of a role's keys that are not named."""
        keep = {self._path(role, key_id) for key_id in key_ids}
        outdated = [path for path in self.files(role) if path not in keep]
        for path in outdated:
            path.unlink()
        if outdated:
            sync_directory(self._folder(role))

    def _folder(self, role: Role) -> Path:
        return self.root_directory if role is Role.ROOT else self.online_directory

    def _path(self, role: Role, key_id: str) -> Path:
        return self._folder(role) / f"{role}-{key_id[:ID_DIGITS]}.pem"


def public_key(key: ec.EllipticCurvePublicKey) -> SSlibKey:
    """A key as TUF metadata names it; its id is the hash of this form."""
    return SSlibKey.from_crypto(key)


def read_public_key(path: Path) -> SSlibKey:
    """A public key from a PEM file, as `coordinator keys make` writes it.

    Raises:
        UsageError: absent, or no P-256 public key.
    """
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError:
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise UsageError(f"{path} is not a P-256 public key in PEM form; make one with `coordinator keys make`")
    return public_key(key)


def read_signer(path: Path, key_id: str | None = None) -> CryptoSigner:
    """A private key, ready to sign.

    Args:
        path: PEM file, mode 0600.
        key_id: the key that it must be; None takes whichever it is.

    Raises:
        UsageError: absent, readable by others, damaged, or another key.
    """
    signer = CryptoSigner(read_key(path))
    if key_id is not None and signer.public_key.keyid != key_id:
        raise UsageError(f"{path} holds another key than its name says; restore the keys directory from a backup")
    return signer
