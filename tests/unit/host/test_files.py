"""Files under real kills, real full disks and real second processes."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nightshift.host.files import (
    exclusive_lock,
    is_locked,
    make_private_directory,
    read_private,
    remove_temporaries,
    require_free_space,
    write_atomic,
)
from nightshift.protocol.errors import BusyError, ExitCode, ResourceError, UsageError

ROOT = Path(__file__).resolve().parents[3]
SIZE_BYTES = 300_000


@contextmanager
def running(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A Python process that has said "ready"; killed at the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


WRITES_FOREVER = """
import itertools, sys
from pathlib import Path
from nightshift.host.files import write_atomic
path, size = Path(sys.argv[1]), int(sys.argv[2])
write_atomic(path, b"0" * size)
print("ready", flush=True)
for number in itertools.count(1):
    write_atomic(path, str(number % 10).encode() * size)
"""


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_the_old_content_or_the_new(tmp_path: Path) -> None:
    chance = random.Random(20260101)
    path = tmp_path / "state"
    interrupted = 0
    for _ in range(25):
        with running(WRITES_FOREVER, path, SIZE_BYTES) as process:
            time.sleep(chance.uniform(0.0, 0.03))
            process.send_signal(signal.SIGKILL)
            process.wait()
        content = path.read_bytes()
        assert len(content) == SIZE_BYTES
        assert len(set(content)) == 1, "a mixture of two writes"
        left = [entry for entry in tmp_path.iterdir() if entry != path]
        assert remove_temporaries(tmp_path) == len(left)
        assert list(tmp_path.iterdir()) == [path]
        interrupted += bool(left)
    assert interrupted > 0, "no kill fell into a write: the test has proved nothing"


def test_what_is_written_is_read_back_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "key"
    for data in (b"", b"one", os.urandom(100_000)):
        write_atomic(path, data)
        assert path.read_bytes() == data
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    write_atomic(path, b"public", mode=0o644)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644 & ~current_umask()
    assert list(tmp_path.iterdir()) == [path]


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_write_is_new_content_under_the_name_not_in_the_file(tmp_path: Path) -> None:
    """A reader that has the old file open goes on reading the old content."""
    path = tmp_path / "state"
    write_atomic(path, b"old")
    with path.open("rb") as reader:
        write_atomic(path, b"new")
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new"


def test_a_temporary_file_is_told_from_files_that_look_like_one(tmp_path: Path) -> None:
    stay = [".hidden", "a.tmp", ".x.tmp", ".state.0123456789abcdeg.tmp", "state.0123456789abcdef.tmp", ".env"]
    for name in [*stay, ".state.0123456789abcdef.tmp"]:
        (tmp_path / name).touch()
    assert remove_temporaries(tmp_path) == 1
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted(stay)


FULL_DISK = """
import os, sys
from pathlib import Path
from nightshift.host.files import write_atomic, exclusive_lock, make_private_directory
from nightshift.protocol.errors import ResourceError

disk = Path(sys.argv[1])
write_atomic(disk / "state", b"old")

def refused(what):
    try:
        what()
    except ResourceError as error:
        return str(error)
    raise SystemExit(f"no ResourceError from {what}")

message = refused(lambda: write_atomic(disk / "state", bytes(2**20)))
assert "No space left" in message and str(disk / "state") in message, message
assert (disk / "state").read_bytes() == b"old"
assert os.listdir(disk) == ["state"], os.listdir(disk)
write_atomic(disk / "state", b"new")

os.system(f"mount -o remount,ro {disk}")
message = refused(lambda: write_atomic(disk / "state", b"newer"))
assert "Read-only" in message, message
assert (disk / "state").read_bytes() == b"new"
refused(lambda: make_private_directory(disk / "a" / "b"))
refused(lambda: exclusive_lock(disk / "lock").__enter__())
print("survived")
"""


def test_a_full_and_a_read_only_disk(tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(tmp_path)]
    probe = [unshare or "", "--map-root-user", "--mount", *mount]
    if unshare is None or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("this system lets nobody mount a small disk in a namespace of his own")
    script = 'mount -t tmpfs -o size=64k none "$1" && exec "$2" -c "$3" "$1"'
    done = subprocess.run(
        [unshare, "--map-root-user", "--mount", "sh", "-c", script, "sh", tmp_path, sys.executable, FULL_DISK],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "survived\n"), done.stderr


def test_a_file_larger_than_the_system_allows(tmp_path: Path) -> None:
    """Works without any privilege: the kernel refuses the write as it would on a full disk."""
    path = tmp_path / "state"
    write_atomic(path, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(ResourceError, match="cannot write") as caught:
            write_atomic(path, bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.exit_code is ExitCode.NO_SPACE
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_that_is_not_about_space_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "absent" / "state", b"x")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o606, 0o610, 0o601, 0o777])
def test_a_key_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "identity.key"
    write_atomic(path, b"secret")
    path.chmod(mode)
    with pytest.raises(UsageError, match=f"mode {mode:04o}, expected 0600; run: chmod 600") as caught:
        read_private(path)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_key_that_only_its_owner_reads_is_read(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "identity.key"
    write_atomic(path, b"secret")
    path.chmod(mode)
    assert read_private(path) == b"secret"


def test_a_key_that_is_missing_or_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is missing; it holds a private key"):
        read_private(tmp_path / "identity.key")
    (tmp_path / "directory").mkdir(mode=0o700)
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        read_private(tmp_path / "directory")


def test_a_private_directory_and_those_above_it(tmp_path: Path) -> None:
    previous = os.umask(0o022)
    try:
        make_private_directory(tmp_path / "a" / "b" / "c")
    finally:
        os.umask(previous)
    for part in ("a", "a/b", "a/b/c"):
        assert stat.S_IMODE((tmp_path / part).stat().st_mode) == 0o700, part
    make_private_directory(tmp_path / "a" / "b" / "c")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot create"):
        make_private_directory(tmp_path / "file")


HOLDS = """
import subprocess, sys, time
from pathlib import Path
from nightshift.host.files import exclusive_lock
with exclusive_lock(Path(sys.argv[1])):
    child = subprocess.Popen(["sleep", "30"])
    Path(sys.argv[2]).write_text(str(child.pid))
    print("ready", flush=True)
    time.sleep(30)
"""
TRIES = """
import sys
from pathlib import Path
from nightshift.host.console import exit_with
from nightshift.host.files import exclusive_lock
def command():
    with exclusive_lock(Path(sys.argv[1])):
        print("taken")
sys.exit(exit_with(command))
"""


def test_a_second_run_is_turned_away_and_a_killed_one_holds_nothing(tmp_path: Path) -> None:
    lock, child = tmp_path / "lock", tmp_path / "child"
    assert not is_locked(lock), "there is no such file yet"
    with running(HOLDS, lock, child) as holder:
        assert is_locked(lock)
        with pytest.raises(BusyError, match="another run holds"), exclusive_lock(lock):
            pass
        second = subprocess.run(
            [sys.executable, "-c", TRIES, lock], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
        assert (second.returncode, second.stdout) == (ExitCode.LOCKED, "")
        assert second.stderr.startswith("error: another run holds")

        holder.send_signal(signal.SIGKILL)
        holder.wait()
        orphan = int(child.read_text())
        try:
            os.kill(orphan, 0)  # what the dead run had started lives on, without the lock
            with exclusive_lock(lock):
                pass
        finally:
            os.kill(orphan, signal.SIGKILL)


def test_a_lock_is_free_again_after_its_block(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    for _ in range(3):
        with exclusive_lock(lock), pytest.raises(BusyError), exclusive_lock(lock):
            pass
    with pytest.raises(ZeroDivisionError), exclusive_lock(lock):
        raise ZeroDivisionError
    with exclusive_lock(lock):
        pass


def test_a_lock_where_there_is_no_directory(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot lock"), exclusive_lock(tmp_path / "absent" / "lock"):
        pass


def test_room_is_asked_for_before_it_is_needed(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    require_free_space(tmp_path, 1, reserve_bytes=0)
    with pytest.raises(ResourceError, match="are needed"):
        require_free_space(tmp_path, free * 2)
    with pytest.raises(ResourceError, match="are needed"):
        require_free_space(tmp_path, 1, reserve_bytes=free * 2)
