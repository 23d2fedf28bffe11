"""The error tree: reasons, gRPC statuses, exit codes, and the picture in the docstring."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from enum import IntEnum
from types import ModuleType

import grpc
import pytest

import nightshift
from nightshift.protocol import errors
from nightshift.protocol.errors import ExitCode, NightshiftError, by_reason


def family(root: type[NightshiftError]) -> set[type[NightshiftError]]:
    return {root}.union(*(family(child) for child in root.__subclasses__()))


def modules_with_errors() -> list[ModuleType]:
    found = [
        importlib.import_module(module.name)
        for module in pkgutil.walk_packages(nightshift.__path__, "nightshift.")
        if module.name.rsplit(".", 1)[-1] == "errors"
    ]
    assert errors in found
    return found


def own_classes(module: ModuleType) -> set[type[NightshiftError]]:
    return {
        value
        for _, value in inspect.getmembers(module, inspect.isclass)
        if issubclass(value, NightshiftError) and value.__module__ == module.__name__
    }


ALL = sorted(
    (error for module in modules_with_errors() for error in own_classes(module)), key=lambda error: error.__qualname__
)


@pytest.mark.parametrize("error", sorted(own_classes(errors), key=str))
def test_every_class_of_the_tree_says_its_own_reason(error: type[NightshiftError]) -> None:
    assert "reason" in vars(error)
    assert by_reason()[error.reason] is error
    assert re.fullmatch("[A-Z][A-Z0-9_]{1,62}", error.reason), "google.rpc.ErrorInfo wants UPPER_SNAKE_CASE"


def test_no_two_classes_share_a_reason() -> None:
    named = [error for error in family(NightshiftError) if "reason" in vars(error)]
    assert len({error.reason for error in named}) == len(named)
    assert set(by_reason().values()) == set(named)


@pytest.mark.parametrize("error", ALL)
def test_every_class_has_a_grpc_status_and_an_exit_code(error: type[NightshiftError]) -> None:
    assert error.grpc_status in grpc.StatusCode.__members__
    assert error.grpc_status != "OK"
    assert isinstance(error.exit_code, ExitCode)
    assert error.exit_code is not ExitCode.OK
    assert inspect.getdoc(error)


def test_a_reason_is_added_by_whoever_subclasses() -> None:
    assert "SHARE_REFUSED" in by_reason()  # from nightshift.protocol.secagg.errors


@pytest.mark.parametrize("module", modules_with_errors(), ids=lambda each: str(each.__name__))
def test_the_tree_in_the_docstring_is_the_tree(module: ModuleType) -> None:
    """Each drawn line is `indentation Name`; a name hangs under the last one drawn further left."""
    assert module.__doc__ is not None
    drawn: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in module.__doc__.splitlines():
        match = re.match(r"^([ │├└─]*)([A-Z]\w+Error)\b", line)
        if match is None:
            continue
        depth, name = len(match[1]), match[2]
        above = [(column, parent) for column, parent in above if column < depth]
        if above:
            drawn[name] = above[-1][1]
        above.append((depth, name))
    real = {error.__name__: error.__bases__[0].__name__ for error in own_classes(module) - {NightshiftError}}
    assert drawn == real


def test_exit_codes_are_distinct_and_fit_a_process() -> None:
    assert issubclass(ExitCode, IntEnum)
    assert len(ExitCode.__members__) == len(set(ExitCode))
    assert all(0 <= code < 126 for code in ExitCode)
