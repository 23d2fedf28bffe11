"""Whole fleets as real processes: set up once a session, kept as snapshots of directories, copied by each test.

A coordinator in one directory and devices in others are all the state there
is, so a copy of them served again on the same ports is the same fleet at the
same moment. `Snapshots` walks a night step by step and keeps what each step
left; a test starts from the step it needs and pays for nothing before it.
Tests must not run at the same time: the ports are in the devices' memberships.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightshift.host import clock
from scripts.night.fleet import Coordinator, Device, installed
from tests.support.stories import COMMANDS, build_stories

TASK = "commands"
ROWS_PER_DEVICE = 64
WINDOW_S = 6 * 3600
DAY_S = 86_400
SIGKILLED = -9

DEVICE_CONFIG = """[policy]
minimum_cohort = 3
[training]
threads = 1
rank = 32
[debug]
keep_encoded_vector = true
"""


WINDOWS = f"""upload_window_s = {WINDOW_S}
answer_window_s = {WINDOW_S}
"""


def task_toml(devices: int, n_min: int, *, steps: int = 2, windows: str = WINDOWS, gate: bool = False) -> str:
    """A small task: steps of four examples, a cohort of all devices, rounds opened by hand.

    The adapter is large enough for a contribution of more than one piece on the wire.
    """
    return f"""name = "{TASK}"
model = "stories260K"
[adapter]
rank = 8
alpha = 16.0
method = "alternate"
[training]
steps = {steps}
batch_size = 4
learning_rate = 1e-2
max_tokens = 48
[encoding]
value_clip = 1.0
clip_norm = 0.0
[cohort]
n_min = {n_min}
n_max = {devices}
pool_min = {devices}
[gate]
enabled = {str(gate).lower()}
[rounds]
open = "operator"
{windows}"""


@dataclass
class Fleet:
    """A coordinator, its devices, and the clock that all of them read.

    Attributes:
        directory: of everything.
        coordinator: below `coordinator/`.
        devices: below `device1/`, `device2/` ...
    """

    directory: Path
    coordinator: Coordinator
    devices: list[Device]

    @classmethod
    def at(cls, directory: Path) -> Fleet:
        """The fleet whose directories lie here."""
        environment = {clock.ENVIRONMENT_VARIABLE: str(directory / "clock")}
        homes = sorted(directory.glob("device*"), key=lambda home: int(home.name.removeprefix("device")))
        coordinator = Coordinator(directory / "coordinator", environment, ports=_ports(directory / "coordinator"))
        return cls(directory, coordinator, [Device(home, environment) for home in homes])

    def move_clock(self, seconds: float) -> None:
        """Let all processes see a time so much later than it is."""
        path = self.directory / "clock"
        past = float(path.read_text("ascii")) if path.exists() else 0.0
        temporary = path.with_suffix(".new")
        temporary.write_text(f"{past + seconds}", "ascii")
        os.replace(temporary, path)

    @contextmanager
    def serving(self, **environment: str) -> Iterator[Coordinator]:
        """The coordinator's process, for the length of a block."""
        self.coordinator.serve(environment)
        try:
            yield self.coordinator
        finally:
            self.coordinator.stop()

    def open_round(self) -> dict[str, Any]:
        """Open the next round; what `coordinator round open --json` says."""
        opened: dict[str, Any] = self.coordinator.command("round", "open", TASK, "--json").json
        return opened

    def round(self, number: int = 1) -> dict[str, Any]:
        """What `coordinator round show --json` says of a round."""
        shown: dict[str, Any] = self.coordinator.command("round", "show", f"{TASK}/{number}", "--json").json
        return shown

    def cohort(self, number: int = 1) -> sqlite3.Row:
        """The coordinator's row of a round's cohort."""
        return query(self.database, "SELECT * FROM cohorts WHERE round_number = ?", number)[0]

    def releases(self) -> list[int]:
        """Numbers of the published releases."""
        return [row["number"] for row in query(self.database, "SELECT number FROM releases ORDER BY number")]

    def sum_is_exact(self, devices: Sequence[Device], number: int = 1) -> bool:
        """Whether the opened vector is, integer for integer, the sum of what exactly these devices encrypted."""
        cohort = self.cohort(number)["cohort_id"].hex()
        opened = np.load(self.coordinator.directory / "objects" / "sums" / f"{cohort}.npy")
        total = np.sum([encoded(device, cohort) for device in devices], axis=0, dtype=np.uint64)
        return np.array_equal(opened, total)

    @property
    def database(self) -> Path:
        """The coordinator's rows, for tests that look at them."""
        return self.coordinator.directory / "coordinator.sqlite3"

    def counted(self, number: int = 1) -> dict[str, bytes]:
        """Device id -> signature of the body that the coordinator counted: its last 64 bytes, over all the others."""
        return {
            row["device_id"].hex(): row["signature"] for row in self._contributions(number) if row["state"] == "counted"
        }

    def contributions(self, number: int = 1) -> dict[str, str]:
        """Device id -> state of whatever the coordinator knows of that device's contribution."""
        return {row["device_id"].hex(): row["state"] for row in self._contributions(number)}

    def _contributions(self, number: int) -> list[sqlite3.Row]:
        return query(
            self.database,
            "SELECT b.device_id, b.state, b.signature FROM contributions b JOIN cohorts c ON c.cohort_id = b.cohort_id"
            " WHERE c.round_number = ?",
            number,
        )


def encoded(device: Device, cohort_id: str) -> NDArray[np.uint64]:
    """What a device with debug.keep_encoded_vector says that it encrypted for a cohort (hex)."""
    vector: NDArray[np.uint64] = np.load(device.home / "debug" / f"encoded-{cohort_id}.npy")
    return vector


def device_id(device: Device) -> str:
    """Hex."""
    identifier: str = status(device)["device_id"]
    return identifier


def status(device: Device) -> dict[str, Any]:
    """What `edge-client status --json` says."""
    shown: dict[str, Any] = device.command("status", "--json").json
    return shown


def query(database: Path, statement: str, *parameters: object) -> list[sqlite3.Row]:
    """Read rows of a SQLite file that another process may hold open."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)) as connection:
        connection.row_factory = sqlite3.Row
        return connection.execute(statement, parameters).fetchall()


def wait_until(condition: Callable[[], bool], *, limit_s: float = 60.0) -> None:
    """Wait for something that another process does by itself.

    Raises:
        AssertionError: it did not happen in time.
    """
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.1)


def write_commands(path: Path, *, first: int, rows: int = ROWS_PER_DEVICE, marked: str = "") -> None:
    """Private text of one device: real home-assistant commands with their scenarios."""
    records = [json.loads(line) for line in COMMANDS.read_text("utf-8").splitlines()[first : first + rows]]
    pairs = [{"prompt": marked + record["text"], "completion": record["scenario"]} for record in records]
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), "utf-8")


def set_up(directory: Path, package: Path, *, devices: int, n_min: int) -> Fleet:
    """A coordinator with a model and a task, and devices that joined and have their text; nothing is running after.

    Args:
        directory: does not exist yet.
        package: of the model.
        devices: how many join.
        n_min: fewest contributors of a round.
    """
    fleet, token = found(directory, package, devices=devices, task=task_toml(devices, n_min))
    with fleet.serving():
        for number in range(1, devices + 1):
            device = Device(directory / f"device{number}", fleet.coordinator.environment)
            join(device, token, first=ROWS_PER_DEVICE * number)
            device.command("model", "pull", TASK)
    return Fleet.at(directory)


def found(directory: Path, package: Path, *, devices: int, task: str) -> tuple[Fleet, str]:
    """A coordinator with a model and a task, no devices yet, and a token with which so many may join."""
    directory.mkdir(parents=True, exist_ok=True)
    environment = {clock.ENVIRONMENT_VARIABLE: str(directory / "clock")}
    coordinator = Coordinator.init(directory / "coordinator", environment)
    coordinator.command("model", "add", str(package), "--alias", "stories260K")
    file = directory / "task.toml"
    file.write_text(task, "utf-8")
    coordinator.command("task", "create", "-f", str(file))
    token: str = coordinator.command("token", "create", "--uses", str(devices), "--json").json["token"]
    return Fleet.at(directory), token


def join(device: Device, token: str, *, first: int, marked: str = "", more: str = "", expect: int = 0) -> None:
    """Make a home with private text, and join.

    Args:
        device: its home does not exist yet.
        token: to join with.
        first: row of the commands with which its text begins.
        marked: put before every command, to be looked for later.
        more: sections of the configuration beside the usual ones.
        expect: exit code of the join.
    """
    device.home.mkdir(mode=0o700)
    (device.home / "config.toml").write_text(DEVICE_CONFIG + more, "utf-8")
    text = device.home / "commands.jsonl"
    write_commands(text, first=first, marked=marked)
    device.command("join", token, "--name", device.home.name, expect=expect)
    device.command("data", "add", str(text), "--format", "prompt")


def kill_while_training(device: Device, *, beyond_step: int) -> list[int]:
    """Kill a run when its training has come so far; the steps that this run did."""
    running = subprocess.Popen(
        [installed("edge-client"), "--home", str(device.home), "run", "--now"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **device.environment},
    )
    steps: list[int] = []

    def far_enough() -> bool:
        assert running.poll() is None, "the run ended before it was killed"
        for path in (device.home / "training").glob("*/progress"):
            complete = path.read_text("utf-8").split("\n")[:-1]
            steps[:] = [json.loads(line)[0] for line in complete]
        return bool(steps) and steps[-1] > beyond_step

    wait_until(far_enough)
    running.kill()
    assert running.wait() == SIGKILLED
    return steps


class Snapshots:
    """The same fleets at several moments of their first night, each made once and on demand.

    Args:
        directory: to keep them in.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._made: set[str] = set()

    def package(self) -> Path:
        """The package of the model that every fleet learns with."""
        target = self._directory / "package"
        if not target.exists():
            build_stories(target)
        return target

    def joined(self, devices: int) -> Path:
        """Everybody joined; no round was opened yet."""

        def make(target: Path) -> None:
            set_up(target, self.package(), devices=devices, n_min=3)

        return self._kept(f"joined-{devices}", make)

    def opened(self, devices: int) -> Path:
        """Round 1 is open; nobody has checked in for it."""
        return self._next(f"opened-{devices}", self.joined(devices), lambda fleet: fleet.open_round())

    def uploaded(self, devices: int, uploads: int) -> Path:
        """The first `uploads` devices have contributed to round 1. With all of them its set is frozen."""
        if uploads == 0:
            return self.opened(devices)

        def upload(fleet: Fleet) -> None:
            with fleet.serving():
                sent = fleet.devices[uploads - 1].run().json["sent"]
            assert sent == [f"{TASK}/1"]

        return self._next(f"uploaded-{devices}-{uploads}", self.uploaded(devices, uploads - 1), upload)

    def answered(self, devices: int, answers: int) -> Path:
        """All have contributed, and the first `answers` of them have answered as committee members."""
        if answers == 0:
            return self.uploaded(devices, devices)

        def answer(fleet: Fleet) -> None:
            with fleet.serving():
                answered = fleet.devices[answers - 1].run().json["answered"]
            assert answered == [fleet.round()["cohorts"][0]["cohort_id"]]

        return self._next(f"answered-{devices}-{answers}", self.answered(devices, answers - 1), answer)

    def second_night(self, devices: int) -> Path:
        """All but the last device adopted release 1, and round 2 is open; nobody has checked in for it."""

        def adopt(fleet: Fleet) -> None:
            with fleet.serving():
                for device in fleet.devices[:-1]:
                    assert device.run().json["adopted"] == [f"{TASK}/1"]
            fleet.open_round()

        return self._next(f"second-night-{devices}", self.answered(devices, devices), adopt)

    def _next(self, name: str, before: Path, step: Callable[[Fleet], object]) -> Path:
        def make(target: Path) -> None:
            step(copy_fleet(before, target))

        return self._kept(name, make)

    def _kept(self, name: str, make: Callable[[Path], None]) -> Path:
        # Not renamed into place: the devices' stores hold the paths of their texts.
        target = self._directory / name
        if name not in self._made:
            shutil.rmtree(target, ignore_errors=True)
            make(target)
            self._made.add(name)
        return target


def copy_fleet(snapshot: Path, target: Path) -> Fleet:
    """The fleet of a snapshot in a directory of its own."""
    shutil.copytree(snapshot, target)
    return Fleet.at(target)


def _ports(coordinator: Path) -> tuple[int, int]:
    import tomllib

    listen = tomllib.loads((coordinator / "coordinator.toml").read_text("utf-8"))["listen"]
    return listen["port"], listen["join_port"]
