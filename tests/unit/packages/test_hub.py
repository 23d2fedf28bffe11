"""Hub names, and fetching from a real HTTP server with the real client: resumed, bounded, checked, explained."""

from __future__ import annotations

import os
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import huggingface_hub.file_download
import pytest

from nightshift.host import files
from nightshift.packages.hub import HubFile, HubListing, HubReference, choose_gguf, list_files, parse_reference
from nightshift.packages.hub_download import fetch
from nightshift.protocol.errors import (
    HashMismatchError,
    MalformedError,
    NightshiftError,
    NotFoundError,
    OverloadedError,
    ResourceError,
    UnreachableError,
    UsageError,
)
from tests.support.model_hub import ModelHub, Repository, Trouble, model_hub

SMALL, LARGE = b'{"model_type": "llama"}', os.urandom(25_000_000)
MIDDLE = os.urandom(200_000)
NAME = "organisation/model"
REFERENCE = HubReference(NAME)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelHub]:
    with model_hub({NAME: Repository({"config.json": SMALL, "a/b.gguf": MIDDLE, "large.gguf": LARGE})}) as served:
        # The library reads its variables when it is imported, which an earlier test may have done.
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", served.address)
        template = served.address + "/{repo_id}/resolve/{revision}/{filename}"
        for module in (huggingface_hub.constants, huggingface_hub.file_download):
            monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        yield served


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("organisation/model", HubReference("organisation/model")),
        ("hf:organisation/model", HubReference("organisation/model")),
        ("Organisation/Model-0.5B_x:q4_0", HubReference("Organisation/Model-0.5B_x", "", "q4_0")),
        ("a/b@v1.0:sub/f.gguf", HubReference("a/b", "v1.0", "sub/f.gguf")),
        ("a/b@refs/pr/3", HubReference("a/b", "refs/pr/3", "")),
        ("model.gguf", None),
        ("./a/b", None),
        ("/a/b", None),
        ("a/b/c", None),
        ("../b", None),
        ("a/..", None),
        ("a/b:../../etc/passwd", None),
        ("a/b\n", None),
        ("", None),
        ("commands", None),
    ],
)
def test_what_a_name_means(text: str, expected: HubReference | None) -> None:
    assert parse_reference(text) == expected


def listing(*names: str) -> HubListing:
    return HubListing(NAME, "ab" * 20, "", {name: HubFile(name, 1, "", "cd" * 20) for name in names})


@pytest.mark.parametrize(
    ("names", "wanted", "chosen"),
    [
        (["m.gguf", "config.json"], "", "m.gguf"),
        (["m-q4_0.gguf", "m-q8_0.gguf", "m-q4_k_m.gguf"], "", "m-q8_0.gguf"),
        (["m-q4_0.gguf", "m-q8_0.gguf"], "Q4_0", "m-q4_0.gguf"),
        (["m-q4_0_4_4.gguf", "m-q4_0.gguf"], "q4_0", "m-q4_0.gguf"),
        (["m-q4_0.gguf", "x-q4_0.gguf"], "x-q4_0.gguf", "x-q4_0.gguf"),
        (["model.safetensors"], "", None),
    ],
)
def test_which_file_is_meant(names: list[str], wanted: str, chosen: str | None) -> None:
    found = choose_gguf(listing(*names), wanted, ["Q8_0", "Q4_0"])
    assert (None if found is None else found.name) == chosen


def test_a_choice_that_is_not_clear_is_left_to_the_person() -> None:
    with pytest.raises(UsageError, match=r"name one after a colon: a\.gguf, b\.gguf"):
        choose_gguf(listing("a.gguf", "b.gguf"), "", ["Q8_0"])
    with pytest.raises(NotFoundError, match=r"no GGUF file 'Q5_K_M'; it has: a\.gguf"):
        choose_gguf(listing("a.gguf"), "Q5_K_M", [])
    with pytest.raises(UsageError, match="one of several parts"):
        choose_gguf(listing("a-00001-of-00003.gguf"), "", [])


def test_a_listing_is_pinned_to_a_commit(hub: ModelHub) -> None:
    found = list_files(HubReference(NAME, "v1.0"))
    assert found.revision == hub.repositories[NAME].commit
    assert found.licence == "apache-2.0"
    assert found.files["large.gguf"].size_bytes == len(LARGE)
    assert len(found.files["large.gguf"].sha256) == 64
    assert found.files["config.json"].sha256 == ""
    assert hub.asked == [("GET", f"/api/models/{NAME}/revision/v1.0", "")]  # and nothing about this machine


def test_names_that_would_leave_the_folder_are_not_listed(hub: ModelHub) -> None:
    hub.repositories[NAME].files |= {"../../evil.gguf": b"x", "/evil.gguf": b"x", "a/../../e.gguf": b"x", ".ssh": b"x"}
    assert set(list_files(REFERENCE).files) == {"config.json", "a/b.gguf", "large.gguf"}


def test_files_come_whole_and_only_once(hub: ModelHub, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    names = ["config.json", "a/b.gguf"]
    folder = fetch(list_files(REFERENCE), names, tmp_path, progress=lambda *now: told.append(now))
    assert (folder / "config.json").read_bytes() == SMALL
    assert (folder / "a/b.gguf").read_bytes() == MIDDLE
    assert told == sorted(told)
    assert told[-1] == (len(SMALL) + len(MIDDLE),) * 2
    asked = len(hub.asked)
    assert fetch(list_files(REFERENCE), names, tmp_path) == folder
    assert len(hub.asked) == asked + 1  # the listing alone


def test_an_interrupted_file_goes_on_where_it_ended(hub: ModelHub, tmp_path: Path) -> None:
    found = list_files(REFERENCE)
    (tmp_path / f"{found.files['large.gguf'].sha256}.partial").write_bytes(LARGE[:12_345_678])
    told: list[int] = []
    folder = fetch(found, ["large.gguf"], tmp_path, progress=lambda done, _: told.append(done))
    assert (folder / "large.gguf").read_bytes() == LARGE
    assert hub.ranges() == ["bytes=12345678-"]
    assert told == sorted(told)
    assert told[0] == 12_345_678
    assert hub.sent_bytes == len(LARGE) - 12_345_678


def test_a_line_that_dies_again_and_again_is_no_reason_to_begin_again(hub: ModelHub, tmp_path: Path) -> None:
    hub.trouble.cut_after_bytes = 11_000_000  # the client takes ten million at a time
    folder = fetch(list_files(REFERENCE), ["large.gguf"], tmp_path)
    assert (folder / "large.gguf").read_bytes() == LARGE
    assert hub.ranges() == ["", "bytes=10485760-", "bytes=20971520-"]


def test_progress_stands_still_where_a_server_ignores_ranges(hub: ModelHub, tmp_path: Path) -> None:
    found = list_files(REFERENCE)
    (tmp_path / f"{found.files['large.gguf'].sha256}.partial").write_bytes(LARGE[:20_000_000])
    hub.trouble.ignores_ranges = True
    told: list[int] = []
    folder = fetch(found, ["large.gguf"], tmp_path, progress=lambda done, _: told.append(done))
    assert (folder / "large.gguf").read_bytes() == LARGE
    assert told == sorted(told)


@pytest.mark.parametrize("name", ["a/b.gguf", "config.json"])
def test_other_bytes_than_the_hash_promises_are_deleted(hub: ModelHub, tmp_path: Path, name: str) -> None:
    found = list_files(REFERENCE)
    hub.trouble.other_bytes = True
    if name == "config.json":  # a small file is known by its git hash
        hub.repositories[NAME].files[name] = SMALL[:-1] + b" "
        found = HubListing(NAME, hub.repositories[NAME].commit, "", found.files)
    with pytest.raises(HashMismatchError, match="they were deleted"):
        fetch(found, [name], tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_more_bytes_than_announced_are_not_written(hub: ModelHub, tmp_path: Path) -> None:
    hub.trouble.more_bytes = 40_000_000
    with pytest.raises(MalformedError, match="more than the 200000 bytes"):
        fetch(list_files(REFERENCE), ["a/b.gguf"], tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_full_disk_is_found_before_anything_is_fetched(
    hub: ModelHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: usage(10**9, 10**9, 2**20))
    with pytest.raises(ResourceError, match="MiB free"):
        fetch(list_files(REFERENCE), ["large.gguf"], tmp_path)
    assert hub.ranges() == []


@pytest.mark.parametrize(
    ("trouble", "expected", "words"),
    [
        (Trouble(status=401, error_code="GatedRepo"), UsageError, "accept its terms.*HF_TOKEN"),
        (Trouble(status=403), UsageError, "refuses this account"),
        (Trouble(status=401, error_code="RepoNotFound"), NotFoundError, "no repository.*or it is private"),
        (Trouble(status=404, error_code="RevisionNotFound"), NotFoundError, "no such revision"),
        (Trouble(status=429), OverloadedError, "no more requests.*Wait"),
        (Trouble(status=500), UnreachableError, "answered 500"),
    ],
)
def test_a_refusal_is_a_sentence_with_the_next_step(
    hub: ModelHub, trouble: Trouble, expected: type[NightshiftError], words: str
) -> None:
    hub.trouble = trouble
    with pytest.raises(expected, match=words):
        list_files(REFERENCE)


def test_terms_that_are_asked_for_at_the_file_alone(hub: ModelHub, tmp_path: Path) -> None:
    hub.trouble = Trouble(file_status=403, error_code="GatedRepo")
    with pytest.raises(UsageError, match="accept its terms"):
        fetch(list_files(REFERENCE), ["a/b.gguf"], tmp_path)


def test_a_hub_that_is_gone_and_one_that_talks_nonsense(hub: ModelHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Repository, "commit", "main")
    with pytest.raises(MalformedError, match="names no commit"):
        list_files(REFERENCE)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UnreachableError, match="import its path"):
        list_files(REFERENCE)
