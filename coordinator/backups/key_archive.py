"""The private keys of a coordinator in one file, under a passphrase: without them a backup brings nothing back.

Kept apart from the rows on purpose: whoever finds a backup learns ciphertexts and public things, and cannot sign.
A key is made from the passphrase by scrypt (RFC 7914; 128 MiB of memory make guessing dear), and the files are
sealed with ChaCha20-Poly1305 (RFC 8439); the header is authenticated with them.

::

    "nightshift-keys-1", newline; salt (16 bytes); nonce (12 bytes); sealed JSON: {"name in keys/": "base64"}
"""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path, PurePosixPath

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from nightshift.host.files import make_private_directory, read_private, write_atomic
from nightshift.protocol.errors import UsageError, VerificationError

_MAGIC = b"nightshift-keys-1\n"
_SALT_BYTES, _NONCE_BYTES = 16, 12
_LOG2_N = 17
MIN_PASSPHRASE_BYTES = 12
MAX_ARCHIVE_BYTES = 1 << 20


def seal_keys(keys_directory: Path, archive: Path, passphrase: bytes) -> int:
    """Write every file of a keys directory into a new archive; returns how many.

    Raises:
        UsageError: the archive exists, or the passphrase is short.
    """
    if archive.exists():
        raise UsageError(f"{archive} exists; nothing was overwritten. Name another file")
    if len(passphrase) < MIN_PASSPHRASE_BYTES:
        raise UsageError(f"the passphrase has {len(passphrase)} bytes, at least {MIN_PASSPHRASE_BYTES} are wanted")
    files = {
        path.relative_to(keys_directory).as_posix(): base64.b64encode(path.read_bytes()).decode("ascii")
        for path in sorted(keys_directory.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }
    salt, nonce = os.urandom(_SALT_BYTES), os.urandom(_NONCE_BYTES)
    header = _MAGIC + salt + nonce
    sealed = ChaCha20Poly1305(_key(passphrase, salt)).encrypt(nonce, json.dumps(files).encode(), header)
    write_atomic(archive, header + sealed, mode=0o600)
    return len(files)


def open_keys(archive: Path, keys_directory: Path, passphrase: bytes) -> int:
    """Write the files of an archive into a keys directory that does not exist yet; returns how many.

    Raises:
        UsageError: the directory exists, or the file is no archive.
        VerificationError: another passphrase, or an altered file.
    """
    if keys_directory.exists():
        raise UsageError(f"{keys_directory} exists; nothing was overwritten. Move it away, or leave out --keys")
    try:
        if archive.stat().st_size > MAX_ARCHIVE_BYTES:
            raise UsageError(f"{archive} is larger than an archive of keys can be")
        data = archive.read_bytes()
    except OSError as error:
        raise UsageError(f"{archive} cannot be read: {error.strerror}") from error
    start = len(_MAGIC) + _SALT_BYTES
    header, sealed = data[: start + _NONCE_BYTES], data[start + _NONCE_BYTES :]
    if not data.startswith(_MAGIC) or len(header) != start + _NONCE_BYTES:
        raise UsageError(f"{archive} is no archive of keys; `coordinator backup --keys FILE` makes one")
    key = _key(passphrase, header[len(_MAGIC) : start])
    try:
        files = json.loads(ChaCha20Poly1305(key).decrypt(header[start:], sealed, header))
    except InvalidTag:
        raise VerificationError(f"{archive} does not open: another passphrase, or the file was altered") from None
    for name, text in files.items():
        parts = PurePosixPath(name).parts
        assert parts, "an archive names files"
        assert not PurePosixPath(name).is_absolute(), "an archive names files below keys/"
        assert ".." not in parts, "an archive names files below keys/"
        path = keys_directory.joinpath(*parts)
        make_private_directory(path.parent)
        write_atomic(path, base64.b64decode(text, validate=True), mode=0o600)
    return len(files)


def read_passphrase(file: Path) -> bytes:
    """The first line of a file that nobody else can read.

    Raises:
        UsageError: absent, or readable by others.
    """
    return read_private(file).split(b"\n", 1)[0].rstrip(b"\r")


def _key(passphrase: bytes, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=32, n=1 << _LOG2_N, r=8, p=1).derive(passphrase)
