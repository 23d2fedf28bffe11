"""The installer refuses what cannot work before it changes anything; the wheel is whole."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
TOOLS = ("sh", "ls", "env", "basename")

Install = Callable[..., subprocess.CompletedProcess[str]]


def program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


SPEAKING = """#!/bin/sh
case "$*" in
    "list --short") echo "{installed}" ;;
    "tool dir" | "environment --value PIPX_LOCAL_VENVS") echo {environments} ;;
    *) echo "{name} $*, home ${{UV_TOOL_DIR:-own}} ${{PIPX_HOME:-own}}" ;;
esac
"""
"""A pipx or uv that says what it is told to do."""


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """scripts/install.sh with the test's uname, id, python, pipx and uv on its path; the last two say what they got."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, tool
        (folder / tool).symlink_to(found)

    def run(
        *arguments: str,
        system: str = "Linux",
        machine: str = "aarch64",
        python: bool = True,
        tools: str = "pipx uv",
        by_pipx: bool = False,
        user: int = 1000,
    ) -> subprocess.CompletedProcess[str]:
        program(folder / "uname", f'#!/bin/sh\n[ "$1" = -s ] && echo {system} || echo {machine}\n')
        program(folder / "id", f"#!/bin/sh\necho {user}\n")
        for name in ("pipx", "uv"):
            (folder / name).unlink(missing_ok=True)
            if name in tools.split():
                installed = "nightshift 0.0.1" if by_pipx else "black 24.1"
                text = SPEAKING.format(name=name, installed=installed, environments=tmp_path / name)
                program(folder / name, text)
        (folder / "python3").unlink(missing_ok=True)
        if python:
            program(folder / "python3", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        return subprocess.run(
            ["sh", str(ROOT / "scripts" / "install.sh"), *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": str(folder)},
            timeout=60,
        )

    return run


@pytest.mark.parametrize(
    ("system", "machine", "message"),
    [
        ("Linux", "armv7l", "64-bit Raspberry Pi OS"),
        ("Linux", "armv6l", "64-bit Raspberry Pi OS"),
        ("MINGW64_NT-10.0", "x86_64", "WSL 2"),
        ("FreeBSD", "amd64", "FreeBSD is not supported"),
        ("Linux", "riscv64", "riscv64 is not supported"),
    ],
)
def test_machines_on_which_it_cannot_work(install: Install, system: str, machine: str, message: str) -> None:
    done = install(system=system, machine=machine)
    assert done.returncode == 15
    assert message in done.stderr
    assert "pipx" not in done.stdout


def test_without_a_python_or_a_tool_it_says_what_to_install(install: Install) -> None:
    assert "sudo apt install python3" in install(python=False).stderr
    assert "sudo apt install pipx" in install(tools="").stderr


def test_a_file_that_is_no_wheel(install: Install, tmp_path: Path) -> None:
    (tmp_path / "x.zip").touch()
    for wrong in ("nowhere.whl", str(tmp_path / "x.zip")):
        done = install(wrong)
        assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize(
    ("found", "command"),
    [
        ({"tools": "pipx uv"}, "uv tool install"),
        ({"tools": "uv"}, "uv tool install"),
        ({"tools": "pipx"}, "pipx install"),
        ({"tools": "pipx uv", "by_pipx": True}, "pipx install"),
    ],
)
def test_it_hands_the_wheel_to_uv_or_pipx(
    install: Install, tmp_path: Path, found: dict[str, Any], command: str
) -> None:
    """Where pipx installed it, pipx upgrades it: with uv it would be there twice."""
    wheel = tmp_path / "nightshift-0-py3-none-any.whl"
    wheel.touch()
    done = install(str(wheel), **found)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(command)
    assert f" {wheel}, home own own" in done.stdout
    assert "edge-client service install" in done.stderr
    assert " nightshift, home" in install(**found).stdout


def test_pipx_is_told_not_to_compile(install: Install) -> None:
    """What pip compiles takes more room than the target leaves (docs/benchmarks/client.md); uv compiles nothing."""
    assert " --pip-args=--no-compile " in install(tools="pipx").stdout


def test_what_the_client_uses_is_compiled_at_once(install: Install, tmp_path: Path) -> None:
    """The system's service cannot write beside the program."""
    environment = tmp_path / "uv" / "nightshift" / "bin"
    environment.mkdir(parents=True)
    compiled = tmp_path / "bytecode"
    program(environment / "python", f'#!/bin/sh\nPYTHONPYCACHEPREFIX={compiled} exec {sys.executable} "$@"\n')
    done = install(tools="uv")
    assert done.returncode == 0
    assert "compiling did not work" not in done.stderr
    there = {path.name.partition(".")[0] for path in compiled.rglob("edge_client/**/*.pyc")}
    assert there >= {path.stem for path in (ROOT / "edge_client").rglob("*.py")}
    program(environment / "python", "#!/bin/sh\nexit 1\n")
    broken = install(tools="uv")
    assert broken.returncode == 0
    assert "compiling did not work" in broken.stderr


def test_for_all_users_it_goes_where_the_service_can_read_it(install: Install) -> None:
    refused = install("--system")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "sudo scripts/install.sh --system" in refused.stderr
    done = install("--system", user=0)
    assert "home /opt/nightshift/venvs /opt/nightshift" in done.stdout
    assert "service install --system" in done.stderr
    assert install("--sytem").returncode == 2


@pytest.mark.slow
def test_the_wheel_holds_the_program_and_its_data_and_no_tests(tmp_path: Path) -> None:
    """Built from copies, as pip does it: an editable install would hide a file that is left out."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "device_profiles"):
        here = ROOT / name
        shutil.copytree(here, source / name) if here.is_dir() else shutil.copy(here, source / name)
    for room in ("nightshift", "edge_client", "coordinator"):
        shutil.copytree(ROOT / room, source / room, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "."]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    subprocess.run([*command, "-w", str(tmp_path)], check=True, cwd=source, timeout=200, env=environment)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {"edge_client/store/schema.sql", "edge_client/store/migrations/0002-traffic.sql"} <= names
    profiles = {f"edge_client/device_profiles/{path.name}" for path in (ROOT / "device_profiles").glob("*.toml")}
    assert profiles <= names
    assert not [name for name in names if name.startswith(("tests", "scripts"))]
    modules = {
        str(path.relative_to(ROOT))
        for room in ("nightshift", "edge_client", "coordinator")
        for path in (ROOT / room).rglob("*.py")
    }
    assert modules <= names
