from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from edge_client.data.errors import DataError
from edge_client.data.files import MAX_LINE_BYTES, Skip, SkipReason, open_data, read_lines, resolve


def lines_of(path: Path) -> list[str | Skip]:
    with open_data(path) as stream:
        return list(read_lines(stream))


def test_lines_come_without_their_ends_and_without_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\n\nthree")
    assert lines_of(path) == ["one", "two", "", "three"]


def test_a_line_is_whole_wherever_the_chunks_end(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    rows = ["x" * length for length in (65535, 1, 65536, 0, 65537, 200_000)]
    path.write_text("\n".join(rows) + "\n")
    assert lines_of(path) == rows


def test_a_line_at_the_limit_is_read_and_one_beyond_it_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(b"a" * MAX_LINE_BYTES + b"\n" + b"b" * (MAX_LINE_BYTES + 1) + b"\nshort\n" + b"c" * (3 << 20))
    first, second, third, last = lines_of(path)
    assert isinstance(first, str)
    assert len(first) == MAX_LINE_BYTES
    assert (second, third, last) == (Skip(SkipReason.LINE_TOO_LONG), "short", Skip(SkipReason.LINE_TOO_LONG))


def test_a_line_that_is_not_text_is_skipped_alone(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(b"good\n" * 2000 + b"caf\xe9\n" + b"nul\0byte\n" + b"end")
    assert lines_of(path)[2000:] == [Skip(SkipReason.NOT_UTF8), Skip(SkipReason.BINARY), "end"]


@pytest.mark.slow
def test_a_line_of_two_gigabytes_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    with path.open("wb") as file:
        file.write(b"first\n" + b"x" * 10_000)  # text as far as the first look goes
        file.truncate(2 << 30)  # a sparse file: the rest reads as zeros, without a line end
    script = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from edge_client.data.files import open_data, read_lines\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "with open_data(Path(sys.argv[1])) as stream:\n"
        "    rows = list(read_lines(stream))\n"
        "print(len(rows), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    rows, grown_kib = map(int, done.stdout.split())
    assert rows == 2
    assert grown_kib < 16 * 1024


def test_a_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "messages.db"
    path.write_bytes(b"SQLite format 3\0" + bytes(100))
    with pytest.raises(DataError, match=r"messages.db: looks binary.*export"):
        lines_of(path)


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (tmp_path, pipe, Path("/dev/zero")):
        with pytest.raises(DataError, match="not a regular file"):
            open_data(path)
    with pytest.raises(DataError, match="no such file"):
        open_data(tmp_path / "absent")


def test_a_loop_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(DataError, match="cannot be opened"):
        resolve(tmp_path / "a")


def test_a_link_may_not_lead_out_of_the_root(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "secret"
    root.mkdir()
    outside.write_text("private")
    (root / "inside").write_text("fine")
    (root / "link").symlink_to(outside)
    (root / "good").symlink_to(root / "inside")
    assert resolve(root / "good", root=root) == (root / "inside").resolve()
    for path in (root / "link", root / ".." / "secret"):
        with pytest.raises(DataError, match="outside"):
            resolve(path, root=root)
    sibling = tmp_path / "root-of-another"
    sibling.write_text("private")
    with pytest.raises(DataError, match="outside"):
        resolve(sibling, root=root)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_text("x")
    path.chmod(0)
    with pytest.raises(DataError, match="cannot be opened"):
        open_data(path)


def test_no_descriptor_is_left_open_when_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(b"\0")
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    for _ in range(min(soft, 2048) + 1):
        with pytest.raises(DataError, match="binary"):
            open_data(path)
