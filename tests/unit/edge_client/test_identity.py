"""The key file, the membership, and ids that a person can compare."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from edge_client.home import Home
from edge_client.identity import (
    Membership,
    create_identity,
    load_identity,
    load_membership,
    require_joined,
    save_membership,
    update_membership,
)
from nightshift.protocol.errors import NotJoinedError, UsageError

MEMBERSHIP = Membership(b"certificate", b"root", b"signing", "a:1", "a:2", "origin/log", "küche", 1_800_000_000)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "config.toml", tmp_path, tmp_path / "cache")
    home.prepare()
    return home


def test_the_key_is_kept_for_its_owner_only_and_comes_back(home: Home) -> None:
    made = create_identity(home)
    assert home.key_file.stat().st_mode & 0o777 == 0o600
    assert load_identity(home).device_id == made.device_id


def test_a_key_that_others_can_read_is_refused(home: Home) -> None:
    create_identity(home)
    home.key_file.chmod(0o640)
    with pytest.raises(UsageError, match="chmod 600"):
        load_identity(home)


@pytest.mark.parametrize("content", [b"garbage", b""])
def test_a_key_that_is_none_is_refused(home: Home, content: bytes) -> None:
    home.key_file.touch(mode=0o600)
    home.key_file.write_bytes(content)
    with pytest.raises(UsageError, match="not a private key"):
        load_identity(home)


def test_a_key_of_another_kind_is_refused(home: Home) -> None:
    home.key_file.touch(mode=0o600)
    home.key_file.write_bytes(
        ed25519.Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    with pytest.raises(UsageError, match="P-256"):
        load_identity(home)


def test_the_key_shows_in_no_representation(home: Home) -> None:
    identity = create_identity(home)
    secret = identity.private_key.private_numbers().private_value
    assert str(secret) not in repr(identity)
    assert f"{secret:x}" not in repr(identity)


def test_a_membership_comes_back_as_it_was(home: Home) -> None:
    save_membership(home, MEMBERSHIP)
    assert load_membership(home) == MEMBERSHIP
    save_membership(home, replace(MEMBERSHIP, device_name="other"))
    assert load_membership(home).device_name == "other"


@pytest.mark.parametrize("content", [b"", b"{}", b'{"version": 2}', b"[]", b'{"version": 1, "certificate": "!"}'])
def test_a_damaged_membership_says_what_to_do(home: Home, content: bytes) -> None:
    home.membership_file.write_bytes(content)
    with pytest.raises(UsageError, match="move it away"):
        load_membership(home)


def test_a_key_alone_is_not_joined(home: Home) -> None:
    create_identity(home)
    with pytest.raises(NotJoinedError, match="edge-client join"):
        require_joined(home)


def test_some_fields_of_the_membership_change_and_the_others_stay(home: Home) -> None:
    with pytest.raises(NotJoinedError):
        update_membership(home, certificate=b"new")
    create_identity(home)
    save_membership(home, MEMBERSHIP)
    changed = update_membership(home, next_certificate=b"new")
    assert load_membership(home) == changed == replace(MEMBERSHIP, next_certificate=b"new")
