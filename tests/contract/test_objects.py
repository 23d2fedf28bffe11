"""What every object store must do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coordinator.storage.objects import Objects
from nightshift.protocol.errors import NotFoundError


def test_what_was_put_is_got(objects: Objects) -> None:
    data = os.urandom(100_000)
    objects.put("a/b.bin", data)
    assert objects.get("a/b.bin") == data


def test_an_object_is_replaced_whole(objects: Objects) -> None:
    objects.put("key", b"a longer first content")
    objects.put("key", b"second")
    assert objects.get("key") == b"second"


def test_an_empty_object_is_an_object(objects: Objects) -> None:
    objects.put("empty", b"")
    assert objects.get("empty") == b""
    assert objects.get_range("empty", 0, 10) == b""


def test_a_file_is_put_as_its_content(objects: Objects, tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes(os.urandom(7_000_000))  # more than one part of a multipart upload
    objects.put("large", file)
    assert objects.get("large") == file.read_bytes()


@pytest.mark.parametrize(("offset", "size"), [(0, 10), (3, 4), (90, 10), (95, 50), (100, 1), (1000, 1)])
def test_a_range_is_cut_at_the_end(objects: Objects, offset: int, size: int) -> None:
    data = bytes(range(100))
    objects.put("range", data)
    assert objects.get_range("range", offset, size) == data[offset : offset + size]


def test_what_is_absent_is_said_to_be(objects: Objects) -> None:
    with pytest.raises(NotFoundError):
        objects.get("nothing")
    with pytest.raises(NotFoundError):
        objects.get_range("nothing", 0, 1)
    objects.delete("nothing")


def test_deleted_is_gone(objects: Objects) -> None:
    objects.put("x/y", b"1")
    objects.delete("x/y")
    with pytest.raises(NotFoundError):
        objects.get("x/y")


def test_a_listing_has_the_keys_below_a_prefix_in_order(objects: Objects) -> None:
    for key in ("c/2", "c/1", "c/d/3", "cc/4", "b"):
        objects.put(key, b"")
    assert list(objects.list("c")) == ["c/1", "c/2", "c/d/3"]
    assert list(objects.list("none")) == []


@pytest.mark.parametrize("key", ["", "/a", "a/", "../a", "a/../b", "a//b", "A", "a b", "a" * 600, ".hidden"])
def test_a_key_that_could_leave_the_store_is_refused(objects: Objects, key: str) -> None:
    with pytest.raises(ValueError, match="object key"):
        objects.put(key, b"")
    with pytest.raises(ValueError, match="object key"):
        objects.get(key)
    with pytest.raises(ValueError, match="object key"):
        objects.get_range(key, 0, 1)
    with pytest.raises(ValueError, match="object key"):
        objects.delete(key)
