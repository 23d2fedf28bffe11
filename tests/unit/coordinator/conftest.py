from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coordinator.deployment import Deployment
from coordinator.home import Home
from coordinator.service.server import serving
from nightshift.packages.build import build_package
from tests.support.coordinators import make_home, make_token, open_home
from tests.support.operator_commands import Operate, operating
from tests.support.scripted_device import ScriptedDevice

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real model as a package."""
    folder = tmp_path_factory.mktemp("package") / "stories"
    build_package(ROOT / "data" / "stories260K" / "stories260K-f32.gguf", folder)
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_home(tmp_path / "coordinator")


@pytest.fixture
def operate(home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Operate:
    """Runs `coordinator ...` in this process, on the test's directory or another."""
    return operating(monkeypatch, capsys, home.directory)


@pytest.fixture
def deployment(home: Home) -> Iterator[Deployment]:
    with open_home(home) as opened:
        yield opened


@pytest.fixture
def served(deployment: Deployment) -> Iterator[Deployment]:
    with serving(deployment):
        yield deployment


@pytest.fixture
def join(served: Deployment) -> Iterator[Callable[[], ScriptedDevice]]:
    """Makes devices that have joined the served coordinator."""
    token = make_token(served)
    devices: list[ScriptedDevice] = []

    def joined() -> ScriptedDevice:
        device = ScriptedDevice(token, name=f"device {len(devices)}")
        device.join()
        devices.append(device)
        return device

    yield joined
    for device in devices:
        device.close()


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves protocol time forward by so many seconds from the real one."""
    file = tmp_path / "clock-offset"
    monkeypatch.setenv("NIGHTSHIFT_CLOCK_OFFSET_FILE", str(file))

    def move(seconds: float) -> None:
        file.write_text(str(seconds), "ascii")

    move(0)
    return move
