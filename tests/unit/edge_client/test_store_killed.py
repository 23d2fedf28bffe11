"""kill -9 at any moment: the answer and the erasure of its prekey are one step, or none."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge_client.home import Home
from edge_client.store import open_store

COHORTS = 400

WRITER = """
import sys
from pathlib import Path
from edge_client.home import Home
from edge_client.store import open_store
from edge_client.store.answers import Kind, StoredAnswer
directory = Path(sys.argv[1])
with open_store(Home(directory / "config.toml", directory, directory / "cache")) as store:
    for prekey in store.prekeys.unspent():
        name = prekey.serial.to_bytes(32, "big")
        answer = StoredAnswer(name, name, Kind.ANSWER, b"s" * 32, name * 512, 2_000_000_000, None)
        store.answers.record(answer, prekey_public=prekey.public_key, now_unix_s=1_800_000_000)
        print(prekey.serial, flush=True)
"""

FILLER = """
import os, sys
from pathlib import Path
from edge_client.home import Home
from edge_client.store import open_store
from edge_client.store.prekeys import StoredPrekey
directory, count = Path(sys.argv[1]), int(sys.argv[2])
with open_store(Home(directory / "config.toml", directory, directory / "cache")) as store:
    store.prekeys.add([
        StoredPrekey(1, serial, os.urandom(32), serial.to_bytes(32, "big"), 2_000_000_000, b"", None)
        for serial in range(1, count + 1)
    ])
"""


@pytest.mark.parametrize("delay_s", [0.0, 0.02, 0.05, 0.11])
def test_an_answer_and_the_erasure_of_its_prekey_survive_together_or_not_at_all(tmp_path: Path, delay_s: float) -> None:
    subprocess.run([sys.executable, "-c", FILLER, str(tmp_path), str(COHORTS)], check=True)
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    confirmed = [int(writer.stdout.readline())]
    time.sleep(delay_s)
    writer.send_signal(signal.SIGKILL)
    rest, _ = writer.communicate()
    assert writer.returncode == -signal.SIGKILL, "the writer ended before it was killed; give it more to do"
    confirmed += [int(line) for line in rest.splitlines() if line.isdigit()]
    with open_store(Home(tmp_path / "config.toml", tmp_path, tmp_path / "cache")) as store:
        for serial in range(1, COHORTS + 1):
            name = serial.to_bytes(32, "big")
            answer, prekey = store.answers.find(name), store.prekeys.find(name)
            assert (answer is None) != (prekey is None), f"cohort {serial} is half answered"
            assert answer is None or answer.message == name * 512
        assert all(store.answers.find(serial.to_bytes(32, "big")) for serial in confirmed)
    assert not list(tmp_path.glob("*.corrupt-*"))
