"""One TOML file, an environment, flags: who wins, and where each value came from.

Precedence: flag > environment > file > device profile > default. An unknown key or variable is
an error with a suggestion, because a misspelt limit that is silently ignored
is a limit that the owner believes in and does not have.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from nightshift.protocol.errors import UsageError

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Loaded(Generic[M]):
    """A validated configuration and the origin of each dotted key ("default" if absent)."""

    values: M
    origins: Mapping[str, str]


def load(
    model: type[M],
    *,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    prefix: str = "NIGHTSHIFT_",
    overrides: Mapping[str, Any] | None = None,
    reserved: Iterable[str] = (),
    profile: Mapping[str, Any] | None = None,
    profile_name: str = "",
) -> Loaded[M]:
    """Read, merge and validate.

    Args:
        model: pydantic model whose fields are sections, themselves models.
        file: TOML file; absent or missing means no file.
        environment: defaults to the process's; `PREFIX_SECTION_KEY=value` sets section.key.
        prefix: of the variables that are read.
        overrides: dotted key -> value, from flags.
        reserved: variables with the prefix that mean something else.
        profile: dotted key -> value, the advice of a device profile; everything else overrides it.
        profile_name: of that profile, for the origin.

    Raises:
        UsageError: unreadable file, unknown key or variable, or a value out of range.
    """
    known = _dotted_keys(model)
    sections_known = {key.rsplit(".", 1)[0] + "." for key in known if "." in key}
    merged: dict[str, tuple[Any, str]] = {}
    for key, value in (profile or {}).items():
        origin = f"device profile {profile_name}"
        merged[_known_key(key, known, f"in {origin}")] = (value, origin)
    if file is not None:
        for key, value in _flatten(_read_toml(file)).items():
            if value == {} and key + "." in sections_known:
                continue
            merged[_known_key(key, known, f"in {file}")] = (value, str(file))
    variables = os.environ if environment is None else environment
    unread = set(reserved)
    by_variable = {prefix + key.upper().replace(".", "_"): key for key in known}
    for name, text in variables.items():
        if not name.startswith(prefix) or name in unread:
            continue
        if name not in by_variable:
            raise UsageError(f"unknown variable {name}{_suggestion(name, by_variable)}")
        merged[by_variable[name]] = (text, f"environment {name}")
    for key, value in (overrides or {}).items():
        merged[_known_key(key, known, "on the command line")] = (value, "command line")
    nested: dict[str, Any] = {}
    for key, (value, _) in merged.items():
        target = nested
        *sections, leaf = key.split(".")
        for section in sections:
            target = target.setdefault(section, {})
        target[leaf] = value
    origins = {key: origin for key, (_, origin) in merged.items()}
    return Loaded(validated(model, nested, str(file or "configuration"), origins), origins)


def validated(model: type[M], data: Mapping[str, Any], source: str, origins: Mapping[str, str] | None = None) -> M:
    """Validate data against a model, with one readable sentence per problem.

    Args:
        model: what is valid.
        data: as read.
        source: where it was read, for the message.
        origins: dotted key -> where its value came from, if not from the source.

    Raises:
        UsageError: names the source, each key and what was expected.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        known = _dotted_keys(model)
        problems = []
        for problem in error.errors(include_url=False):
            key = ".".join(str(part) for part in problem["loc"])
            origin = (origins or {}).get(key, source)
            named = key if origin == source else f"{key} ({origin})"
            hint = ""
            if problem["type"] == "extra_forbidden":
                *table, leaf = problem["loc"]
                within = "".join(f"{part}." for part in table)
                hint = _suggestion(str(leaf), _fields_at(model, table), within) or _suggestion(key, known)
            sentence = _sentence(problem) + hint
            problems.append(f"{named}: {sentence}" if named else sentence)
        raise UsageError(f"{source}: " + "; ".join(problems)) from error


def _sentence(problem: ErrorDetails) -> str:
    """What is wrong, without the words of the library that found it."""
    if problem["type"] == "value_error":  # raised by a validator of ours
        return str(problem["ctx"]["error"])
    if problem["type"] == "missing":
        return "is missing"
    return problem["msg"].replace("Input should", "must", 1)


def read_toml(file: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        UsageError: absent, unreadable, or not TOML; names line and column.
    """
    if not file.exists():
        raise UsageError(f"{file} does not exist")
    return _read_toml(file)


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            return tomllib.load(stream)
    except FileNotFoundError:
        return {}
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} could not be read as TOML: {error}") from error


def _dotted_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += _dotted_keys(field.annotation, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def _fields_at(model: type[BaseModel], location: Iterable[int | str]) -> list[str]:
    """The keys of a table, also inside an optional table or an array of tables."""
    table: Any = model
    for part in location:
        if isinstance(part, str):  # a number is a place in an array
            field = getattr(table, "model_fields", {}).get(part)
            table = _table_in(field.annotation) if field is not None else None
    return list(getattr(table, "model_fields", {}))


def _table_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((table for part in get_args(annotation) if (table := _table_in(part)) is not None), None)


def _flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _known_key(key: str, known: Iterable[str], where: str) -> str:
    if key not in known:
        raise UsageError(f"unknown key {key!r} {where}{_suggestion(key, known)}")
    return key


def _suggestion(word: str, known: Iterable[str], within: str = "") -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {within + close[0]!r}?" if close else ""
