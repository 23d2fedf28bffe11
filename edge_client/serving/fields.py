"""Reading the fields of a JSON object that a stranger sent."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, NoReturn

from edge_client.serving.errors import InvalidRequestError


def parse_object(body: bytes) -> dict[str, Any]:
    """Reads a request body.

    Raises:
        InvalidRequestError: it is not a JSON object.
    """
    try:
        value = json.loads(body, parse_constant=_no_constant)
        # Escapes can spell half a character, which no answer could carry.
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(
            "the request body is not valid JSON; expected an object in UTF-8", code="invalid_json"
        ) from error
    if not isinstance(value, dict):
        raise InvalidRequestError("the request body is JSON, but not an object", code="invalid_json")
    return value


class Fields:
    """The fields of one object; null counts as absent, and what nobody asked for is refused.

    Args:
        values: the object.
        where: its place in the request, for messages: "" or "messages[2].".
    """

    def __init__(self, values: dict[str, Any], where: str = "") -> None:
        self._values = {name: value for name, value in values.items() if value is not None}
        self._where = where
        self._read: set[str] = set()

    def error(self, name: str, expected: str, *, code: str = "invalid_value") -> InvalidRequestError:
        """The error for a field."""
        return InvalidRequestError(f"{self._where}{name}: {expected}", param=self._where + name, code=code)

    def take(self, name: str) -> Any:
        """The raw value, or None."""
        self._read.add(name)
        return self._values.get(name)

    def text(self, name: str, *, longest: int = 1 << 16) -> str | None:
        """A string, or None."""
        value = self.take(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self.error(name, "expected a string", code="invalid_type")
        if len(value) > longest:
            raise self.error(name, f"expected at most {longest} characters")
        return value

    def flag(self, name: str) -> bool:
        """A boolean; absent is False."""
        value = self.take(name)
        if value is not None and not isinstance(value, bool):
            raise self.error(name, "expected true or false", code="invalid_type")
        return bool(value)

    def number(self, name: str, default: float, lowest: float, highest: float) -> float:
        """A number in a range."""
        value = self.take(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(name, "expected a number", code="invalid_type")
        # The comparison also keeps out integers that no float can hold.
        if not (lowest <= value <= highest) or not math.isfinite(value):
            raise self.error(name, f"expected a number from {lowest:g} to {highest:g}")
        return float(value)

    def integer(self, name: str, lowest: int, highest: int) -> int | None:
        """An integer in a range, or None."""
        value = self.take(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(name, "expected an integer", code="invalid_type")
        if not lowest <= value <= highest:
            raise self.error(name, f"expected an integer from {lowest} to {highest}")
        return int(value)

    def only(self, name: str, accepted: Sequence[object] = ()) -> None:
        """A field that this server takes only where it changes nothing."""
        value = self.take(name)
        # `True == 1` in Python, not in JSON.
        if value is not None and not any(value == each and type(value) is type(each) for each in accepted):
            shown = " or ".join(json.dumps(each) for each in accepted)
            hint = f"leave it out or send {shown}" if accepted else "leave it out"
            raise self.error(name, f"this server does not support it; {hint}", code="unsupported_parameter")

    def ignore(self, *names: str) -> None:
        """Fields without any effect on the answer."""
        self._read.update(names)

    def finish(self) -> None:
        """Refuses every field that nothing has read.

        Raises:
            InvalidRequestError: there is one; names the first.
        """
        for name in self._values:
            if name not in self._read:
                raise self.error(name[:80], "this server does not know this parameter", code="unknown_parameter")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
