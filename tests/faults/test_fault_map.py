"""docs/faults.md names real tests, and says of every fault how it stands."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROW = re.compile(
    r"^\| (?P<number>\d+) \| (?P<what>[^|]+) \| (?P<result>[^|]+) \| (?P<state>[^|]+) \| (?P<tests>[^|]+) \|$"
)
NUMBERS = range(1, 39)
LINES = [line for line in (ROOT / "docs" / "faults.md").read_text("utf-8").splitlines() if re.match(r"\| \d", line)]
SINGLE_LIES = {f"test_lying_coordinator_{about}.py" for about in ("plans", "committee", "bundle")}
"""Tables of single lies against one function, each named and matched with its message."""


def rows() -> list[tuple[int, str, list[str]]]:
    """(number, state, names of tests) of each row."""
    matches = [ROW.match(line) for line in LINES]
    assert all(matches), [line for line, match in zip(LINES, matches, strict=True) if match is None]
    return [(int(m["number"]), m["state"], re.findall(r"`([^`]+)`", m["tests"])) for m in matches if m is not None]


def _tests_of(tree: ast.Module) -> set[str]:
    """Names of test functions, and of the classes that hypothesis makes of a state machine."""
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assigned = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    return functions | {target.id for target in assigned if isinstance(target, ast.Name)}


def test_every_fault_has_one_row() -> None:
    assert [number for number, _, _ in rows()] == list(NUMBERS)


@pytest.mark.parametrize(("number", "state", "names"), rows(), ids=[f"fault {number}" for number, _, _ in rows()])
def test_the_tests_of_a_fault_exist(number: int, state: str, names: list[str]) -> None:
    assert state in {"tested", "open"} or re.fullmatch(r"partly: .{10,}", state), number
    assert bool(names) == (state != "open"), "a tested fault names its tests, an open one has none"
    for name in names:
        file, _, function = name.partition("::")
        tree = ast.parse((ROOT / "tests" / file).read_text("utf-8"))
        assert function in _tests_of(tree), name


def test_every_test_that_plays_an_adversary_says_what_stops_it() -> None:
    """Each says in words what it tries, and names the file where that ends."""
    silent = []
    for path in sorted((ROOT / "tests" / "adversary").glob("test_*.py")):
        if path.name in SINGLE_LIES:
            continue
        tree = ast.parse(path.read_text("utf-8"))
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                text = ast.get_docstring(node) or ""
                if not text.startswith(("Tries:", "The control of", "The honest", "What it does not stop:")):
                    silent.append(f"{path.name}::{node.name}")
    assert silent == []
