"""Everything that the device needs comes as a wheel on a 64-bit Raspberry Pi; checked without a network.

tests/data/wheels lists the files that pip chose (scripts/wheel-list writes them).
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.markers import Environment
from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

ROOT = Path(__file__).parents[3]
LISTS = ROOT / "tests" / "data" / "wheels"
GLIBC_MINOR = {"3.11": 36, "3.13": 41}
"""Of the Raspberry Pi OS that brings this Python: bookworm and trixie."""


def dependencies() -> list[Requirement]:
    return [
        Requirement(text)
        for text in tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    ]


def platforms(architecture: str, minor: int) -> list[str]:
    return [f"manylinux_2_{each}_{architecture}" for each in range(minor, 16, -1)] + [f"manylinux2014_{architecture}"]


def tags(python: str, architecture: str) -> set[Tag]:
    """What pip accepts on that machine (PEP 425, PEP 600)."""
    version = tuple(map(int, python.split(".")))
    there = platforms(architecture, GLIBC_MINOR[python])
    return {*cpython_tags(version, platforms=there), *compatible_tags(version, f"cp{version[0]}{version[1]}", there)}


def listed(python: str) -> dict[str, tuple[Version, frozenset[Tag]]]:
    found = {}
    for line in lines(python):
        if line.startswith(" "):
            continue
        name, version, _, wheel_tags = parse_wheel_filename(line)
        assert name not in found, f"{name} twice"
        found[str(name)] = (version, wheel_tags)
    return found


def required(python: str) -> dict[str, list[Requirement]]:
    """What each listed wheel requires, as its own metadata say."""
    found: dict[str, list[Requirement]] = {}
    name = ""
    for line in lines(python):
        if line.startswith(" "):
            found[name].append(Requirement(line.strip()))
        else:
            name = str(parse_wheel_filename(line)[0])
            found[name] = []
    return found


def lines(python: str) -> list[str]:
    return (LISTS / f"aarch64-python{python}.txt").read_text("utf-8").splitlines()


def environment_of_a_pi(python: str) -> Environment:
    return {
        "python_version": python,
        "python_full_version": f"{python}.2",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "os_name": "posix",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "aarch64",
        "platform_release": "",
        "platform_version": "",
        "implementation_version": f"{python}.2",
    }


def needed(python: str) -> dict[str, list[Requirement]]:
    """The base install with all that it brings along there."""
    environment, brought = environment_of_a_pi(python), required(python)
    found: dict[str, list[Requirement]] = {}
    pending = [(requirement, "") for requirement in dependencies()]
    done: set[tuple[str, str]] = set()
    while pending:
        requirement, extra = pending.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({**environment, "extra": extra}):
            continue
        name = str(canonicalize_name(requirement.name))
        found.setdefault(name, []).append(requirement)
        for wanted in ("", *requirement.extras):
            if (name, wanted) in done:
                continue
            done.add((name, wanted))
            pending += [(each, wanted) for each in brought.get(name, [])]
    return found


@pytest.mark.parametrize("python", sorted(GLIBC_MINOR))
def test_every_dependency_has_a_wheel_for_a_64_bit_raspberry_pi(python: str) -> None:
    wheels, accepted = listed(python), tags(python, "aarch64")
    missing = sorted(set(needed(python)) - set(wheels))
    assert not missing, f"run scripts/wheel-list: no wheel is listed for {missing}"
    unfit = [name for name, (_, wheel_tags) in wheels.items() if not wheel_tags & accepted]
    assert not unfit, f"no Raspberry Pi OS takes these wheels: {unfit}"


@pytest.mark.parametrize("python", sorted(GLIBC_MINOR))
def test_the_listed_versions_are_those_that_the_project_allows(python: str) -> None:
    wheels = listed(python)
    wrong = [
        f"{requirement} but {wheels[name][0]} is listed"
        for name, requirements in needed(python).items()
        for requirement in requirements
        if name in wheels and not requirement.specifier.contains(wheels[name][0], prereleases=True)
    ]
    assert not wrong, f"run scripts/wheel-list: {wrong}"


@pytest.mark.parametrize("architecture", ["armv7l", "x86_64"])
def test_another_machine_would_not_take_them(architecture: str) -> None:
    """The check can fail: the native libraries' wheels are for one architecture."""
    accepted = tags("3.11", architecture)
    refused = {name for name, (_, wheel_tags) in listed("3.11").items() if not wheel_tags & accepted}
    assert {"numpy", "onnxruntime", "grpcio", "cryptography"} <= refused
    assert "click" not in refused


def test_an_older_system_would_not_take_them() -> None:
    """Raspberry Pi OS 11 has glibc 2.31 (and Python 3.9)."""
    there = platforms("aarch64", 31)
    old = {*cpython_tags((3, 11), platforms=there), *compatible_tags((3, 11), "cp311", there)}
    assert "cryptography" in {name for name, (_, wheel_tags) in listed("3.11").items() if not wheel_tags & old}


def test_the_lists_name_files_and_no_addresses() -> None:
    for path in LISTS.iterdir():
        text = path.read_text("utf-8")
        assert "/" not in text
        assert all(line.startswith(" ") or line.endswith(".whl") for line in text.splitlines())


def test_no_torch_and_no_compiler_on_the_device() -> None:
    for python in GLIBC_MINOR:
        assert not {"torch", "transformers", "llama-cpp-python", "onnx", "setuptools"} & set(listed(python))
