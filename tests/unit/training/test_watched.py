"""Fault 7 with a real training process and a recorded laptop whose cable is pulled while it trains."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

import pytest

from edge_client.conditions.heat import Heat
from edge_client.conditions.idleness import LastInput
from edge_client.conditions.power import MainsPower, SupplyVoltage
from edge_client.conditions.reading import Condition
from edge_client.conditions.system_bus import SystemBus
from edge_client.conditions.watch import INTERVAL_S, Watch
from edge_client.data.sources import DataSource
from edge_client.engines.sessions import RuntimeSettings, layout_for
from edge_client.machine_files import MachineFiles
from edge_client.training.exchange import ChildRequest
from edge_client.training.settings import TrainingSettings
from edge_client.training.supervise import STOP_WITHIN_S, train_in_child
from edge_client.training.trainer import Progress
from nightshift.packages.package import ModelPackage
from nightshift.protocol.adapters import Side, initialise
from nightshift.protocol.adapters.formats import to_safetensors
from tests.support.stories import commands

pytestmark = pytest.mark.slow

MACHINES = Path(__file__).parents[2] / "data" / "machines"
BEYOND_STEP = 5


def request_for(stories: ModelPackage, source: DataSource, steps: int) -> ChildRequest:
    layout = layout_for(stories.manifest, rank=4, alpha=8)
    adapter = to_safetensors(initialise(layout, bytes(32)), layout)
    settings = TrainingSettings(steps=steps, batch_size=4, micro_batch_size=4, max_tokens=48)
    return ChildRequest(stories.directory, adapter, Side.B, settings, (source,), runtime=RuntimeSettings(threads=1))


def pull_the_cable(root: Path) -> None:
    (root / "sys/class/power_supply/AC/online").write_text("0\n")


def heat_up(root: Path) -> None:
    (root / "sys/class/thermal/thermal_zone0/temp").write_text("97000\n")


def weaken_the_supply(root: Path) -> None:
    alarm = root / "sys/class/hwmon/hwmon0"
    (alarm / "name").write_text("rpi_volt\n")
    (alarm / "in0_lcrit_alarm").write_text("1\n")


def type_something(root: Path) -> None:
    (root / "dev/pts").mkdir(parents=True)
    (root / "dev/pts/0").touch()


@pytest.mark.parametrize(
    ("happening", "reason"),
    [
        (pull_the_cable, "runs on its battery"),
        (heat_up, "it is too hot (97 °C"),
        (weaken_the_supply, "voltage is too low"),
        (type_something, "somebody used the machine"),
    ],
)
def test_training_ends_within_five_seconds_at_a_checkpoint(
    stories: ModelPackage, tmp_path: Path, happening: object, reason: str
) -> None:
    root = tmp_path / "machine"
    shutil.copytree(MACHINES / "laptop-x86", root)
    files = MachineFiles(root)
    conditions: list[Condition] = [
        MainsPower(files, required=True, minimum_percent=20),
        SupplyVoltage(files),
        Heat(files, 85),
        LastInput(files, SystemBus(("there-is-no-such-program",)), 600),
    ]
    request = request_for(stories, commands(tmp_path / "rows", rows=60), steps=100_000)
    begun, happened_at = threading.Event(), [0.0]

    def after_a_while(progress: Progress) -> None:
        if progress.step > BEYOND_STEP and not begun.is_set():
            begun.set()
            happening(root)  # type: ignore[operator]  # one of the four above
            happened_at[0] = time.monotonic()

    watch = Watch(conditions)
    assert watch() is None, "the recorded machine is plugged in, cool and alone"
    result = train_in_child(request, tmp_path / "child", should_stop=watch, on_step=after_a_while)
    took_s = time.monotonic() - happened_at[0]
    assert result.outcome.stopped is not None
    assert reason in result.outcome.stopped
    assert took_s < INTERVAL_S + STOP_WITHIN_S, took_s
    assert result.outcome.steps_done > BEYOND_STEP
    assert (tmp_path / "child" / "checkpoint").exists()
    resumed: list[int] = []
    train_in_child(
        request,
        tmp_path / "child",
        should_stop=lambda: "seen enough" if resumed else None,
        on_step=lambda progress: resumed.append(progress.step),
    )
    assert resumed[0] == result.outcome.steps_done + 1
