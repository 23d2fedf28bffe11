"""The root of the release metadata as a joining device judges it, and the names of targets."""

from __future__ import annotations

from fnmatch import fnmatch

import pytest

from nightshift.protocol import identity
from nightshift.protocol.domains import Domain, frame
from nightshift.protocol.errors import MalformedError, SignatureInvalidError
from nightshift.protocol.targets import (
    DELEGATED_PATHS,
    MAX_METADATA_BYTES,
    Role,
    ServedRelease,
    adapter_target,
    package_target,
    sign_release_root,
    verify_release_root,
)
from tests.support.authority import new_key
from tests.support.plans import World

ROOT = b'{"signed": {}}'


@pytest.fixture(scope="module")
def world() -> World:
    return World.make(devices=3)


def test_the_signing_key_vouches_for_the_root(world: World) -> None:
    signature = sign_release_root(ROOT, world.authority.sign)
    verify_release_root(ROOT, signature, trust=world.trust)
    assert len(signature) == 64


def test_a_root_of_anybody_else_is_refused(world: World) -> None:
    stranger = new_key()
    for root, signature in (
        (ROOT, sign_release_root(ROOT, lambda message: identity.sign(stranger, message))),
        (ROOT + b" ", sign_release_root(ROOT, world.authority.sign)),
        # What the signing key says elsewhere is not about a root.
        (ROOT, world.authority.sign(frame(Domain.RELEASE_SIGNATURE, ROOT))),
        (ROOT, b""),
    ):
        with pytest.raises(SignatureInvalidError, match="release metadata's root"):
            verify_release_root(root, signature, trust=world.trust)


@pytest.mark.parametrize("size_bytes", [0, MAX_METADATA_BYTES[Role.ROOT] + 1])
def test_a_root_of_no_fitting_size_is_refused(size_bytes: int, world: World) -> None:
    root = b" " * size_bytes
    with pytest.raises(MalformedError, match=f"has {size_bytes} bytes, expected 1 to 65536"):
        verify_release_root(root, sign_release_root(root, world.authority.sign), trust=world.trust)


def test_each_target_lies_on_the_path_of_its_role_only() -> None:
    paths = {Role.ADAPTERS: adapter_target("notes-2.b_c"), Role.PACKAGES: package_target(b"p" * 32)}
    for role, pattern in DELEGATED_PATHS.items():
        assert {each for each, path in paths.items() if fnmatch(path, pattern)} == {role}


def test_what_a_target_says_comes_back() -> None:
    served = ServedRelease("notes", 3, b"r" * 32, b"a" * 32, 1000)
    assert ServedRelease.parse("notes", served.custom(), sha256=(b"a" * 32).hex(), size_bytes=1000) == served
    for size_bytes, sha256 in (
        (0, "61" * 32),
        (2**31 + 1, "61" * 32),
        (1000, ""),
        (1000, "61" * 31),
        (1000, "A1" * 32),
    ):
        with pytest.raises(MalformedError, match="outside the range"):
            ServedRelease.parse("notes", served.custom(), sha256=sha256, size_bytes=size_bytes)
