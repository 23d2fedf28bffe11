"""Training that must end now: the owner wants the machine, systemd stops the service, the machine goes to sleep.

Faults 7 and 12 (docs/faults.md), with both real programs. What a sensor says is tested with recorded
machines in tests/unit/conditions and with a real training process in tests/unit/training/test_watched.py.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from edge_client.training.supervise import STOP_WITHIN_S
from scripts.night.fleet import Device, free_port, installed
from tests.support.broken_wire import BrokenWire
from tests.support.fleets import TASK, Fleet, Snapshots, query, status, task_toml, wait_until

pytestmark = pytest.mark.slow

FleetFrom = Callable[[Path], Fleet]
NOT_NOW, PARTIAL, INTERRUPTED = 4, 3, 130
LONGER = "longer"
WATCHED = {  # everything is asked, and this machine's own sensors decide nothing
    "EDGE_CLIENT_CONDITIONS_MAXIMUM_LOAD": "1000",
    "EDGE_CLIENT_CONDITIONS_POWER": "mains",
    "EDGE_CLIENT_CONDITIONS_METERED": "no",
    "EDGE_CLIENT_CONDITIONS_MINIMUM_IDLE_S": "0",
    "EDGE_CLIENT_CONDITIONS_MAXIMUM_TEMPERATURE_CELSIUS": "120",
    "EDGE_CLIENT_CONDITIONS_BEGIN_BELOW_CELSIUS": "120",
    "EDGE_CLIENT_CONDITIONS_MINIMUM_FREE_DISK_MB": "0",
    "EDGE_CLIENT_CONDITIONS_MINIMUM_FREE_MEMORY_MB": "0",
}


@pytest.fixture
def fleet(snapshots: Snapshots, fleet_from: FleetFrom) -> Fleet:
    """Three devices, and an open round whose training takes a while."""
    made = fleet_from(snapshots.joined(3))
    task = made.directory / "longer.toml"
    text = task_toml(3, 3).replace(f'name = "{TASK}"', f'name = "{LONGER}"')
    task.write_text(text.replace("steps = 2\n", "steps = 400\n"), "utf-8")
    made.coordinator.command("task", "create", "-f", str(task))
    made.coordinator.command("round", "open", LONGER)
    let_the_timer_come(made)
    return made


def let_the_timer_come(fleet: Fleet) -> None:
    """Past the moment that the coordinator named at the last check-in (coordinator/rounds/offers.py)."""
    fleet.move_clock(5400)


class Training:
    """A run whose training process is at work."""

    def __init__(self, device: Device, *arguments: str) -> None:
        self._device = device
        self.process = subprocess.Popen(
            [installed("edge-client"), "--home", str(device.home), "run", "--json", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **device.environment, **WATCHED},
        )

    def wait_beyond(self, step: int) -> int:
        """Wait until it has done so many steps; returns the first step that this run did."""
        steps: list[int] = []

        def far_enough() -> bool:
            assert self.process.poll() is None, self.process.communicate()
            steps[:] = steps_done(self._device)
            return bool(steps) and steps[-1] > step

        wait_until(far_enough, limit_s=120)
        return steps[0]

    def end(self, limit_s: float) -> tuple[int, str]:
        """Wait for its end; (exit status, what it printed)."""
        stdout, stderr = self.process.communicate(timeout=limit_s)
        return self.process.returncode, (stdout + stderr).decode()


def steps_done(device: Device) -> list[int]:
    """The steps of the training process that works, or worked last."""
    lines = [path.read_text("utf-8").split("\n")[:-1] for path in (device.home / "training").glob("*/progress")]
    return [json.loads(line)[0] for line in lines[0]] if lines else []


def test_the_owner_says_pause_and_gets_the_machine_back_within_five_seconds(fleet: Fleet) -> None:
    """Tries: `edge-client pause` while a pass of the timer trains. A reason to stop like any sensor's.

    Stopped by edge_client/conditions/watch.py; the checkpoint is continued by the pass after `resume`.
    """
    device = fleet.devices[0]
    with fleet.serving():
        training = Training(device)
        training.wait_beyond(25)
        assert status(device)["health"] == "healthy; at work now"
        assert status(device)["last_pass"].endswith("under way")
        device.command("pause", "3d")
        asked = time.monotonic()
        code, said = training.end(60)
        took_s = time.monotonic() - asked
        assert code == NOT_NOW, said
        assert "paused by its owner until" in said
        assert "goes on from the last checkpoint" in said
        # A second until it is noticed, the process's own time to end, and what a busy machine needs for the rest.
        assert took_s < 1 + STOP_WITHIN_S + 4, took_s
        assert "paused" in status(device)["health"]
        assert "exit 4" in status(device)["last_pass"]
        done_before = steps_done(device)[-1]
        assert Training(device).end(60)[0] == NOT_NOW, "a paused device does not begin"
        assert status(device)["cut_off_until"] is not None
        device.command("resume")
        # The coordinator named a later moment at the check-in; what was cut off does not wait for it.
        again = Training(device)
        assert again.wait_beyond(done_before) >= done_before, "training began again"
        assert again.end(300)[0] == 0
    assert len(query(fleet.database, "SELECT 1 FROM contributions WHERE state = 'counted'")) == 1


def test_after_a_power_cut_the_timers_next_pass_goes_on(fleet: Fleet) -> None:
    """Tries: kill -9 of a pass of the timer while it trains, without notice. The next one, a moment later, goes on.

    What stops the coordinator's pace from holding it: the note of edge_client/agent/pace.py, `going_on_later`,
    written before training begins.
    """
    device = fleet.devices[0]
    with fleet.serving():
        training = Training(device)
        training.wait_beyond(25)
        orphans = psutil.Process(training.process.pid).children(recursive=True)
        training.process.kill()
        training.process.communicate()
        assert not psutil.wait_procs(orphans, timeout=30)[1], "the training process outlives its pass"
        shown = status(device)
        assert shown["last_pass"].endswith("cut off")
        assert shown["cut_off_until"] is not None
        done_before = steps_done(device)[-1]
        again = Training(device)
        # A checkpoint is written every twenty steps (edge_client/agent/contribution.py).
        assert again.wait_beyond(done_before) > done_before - 20 - 1, "training began again"
        code, said = again.end(300)
        assert code == 0, said
        assert status(device)["cut_off_until"] is None
        assert "nothing is due before" in Training(device).end(60)[1], "what is done waits for the pace again"
    assert len(query(fleet.database, "SELECT 1 FROM contributions WHERE state = 'counted'")) == 1


def test_systemd_stops_the_service_and_training_is_put_away(fleet: Fleet) -> None:
    """Tries: SIGTERM to the pass, as `systemctl stop` and a shutdown send it.

    Stopped by edge_client/agent/stopping.py: it is a reason to end at a checkpoint.
    """
    device = fleet.devices[0]
    with fleet.serving():
        training = Training(device, "--now")
        training.wait_beyond(25)
        training.process.send_signal(signal.SIGTERM)
        asked = time.monotonic()
        code, said = training.end(60)
        assert time.monotonic() - asked < STOP_WITHIN_S + 4
        assert code == NOT_NOW, said
        assert "told to end (SIGTERM)" in said
        done_before = steps_done(device)[-1]
        again = Training(device, "--now")
        assert again.wait_beyond(done_before) >= done_before, "training began again"
        again.process.kill()
        again.process.communicate()


def test_a_machine_that_sleeps_in_the_middle_of_a_pass(fleet: Fleet) -> None:
    """Tries: the lid closes while it trains, and when it opens the connection is dead and the sensors have changed.

    A stopped process stands in for a sleeping machine: its sockets are cut meanwhile. The pass
    connects again by itself, or leaves the rest to the next.
    """
    device = fleet.devices[0]
    known, moved = fleet.coordinator.ports[0], free_port()
    configuration = fleet.coordinator.directory / "coordinator.toml"
    text = configuration.read_text("utf-8")
    here = f'port = {moved}\npublic_device_address = "127.0.0.1:{known}"\n'
    configuration.write_text(text.replace(f"\nport = {known}\n", f"\n{here}"), "utf-8")
    with fleet.serving():
        with BrokenWire(known, moved, []).serving():
            training = Training(device, "--now")
            training.wait_beyond(5)
            training.process.send_signal(signal.SIGSTOP)
        with BrokenWire(known, moved, []).serving():
            training.process.send_signal(signal.SIGCONT)
            code, said = training.end(300)
            assert code in (0, PARTIAL), said
            if code == PARTIAL:
                assert device.run().json["sent"] == [f"{LONGER}/1"]
    assert len(query(fleet.database, "SELECT 1 FROM contributions WHERE state = 'counted'")) == 1
