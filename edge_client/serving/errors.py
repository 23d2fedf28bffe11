"""What a request can be refused with, in the form of OpenAI's API.

::

    ApiError                     status, type, code, param and a sentence
    ├── InvalidRequestError      400: what was sent cannot be answered
    ├── AccessError              401 or 403: no key, wrong key, or a page of a browser
    ├── NotFoundError            404: no such model or address
    ├── TooLargeError            413: the body is over the limit
    ├── QueueFullError           429: too many wait already
    └── EngineFailedError        503: the native runtime failed; the next request starts it again

`param` names the field of the request, `code` is for programs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class ApiError(Exception):
    """A request that is refused.

    Args:
        message: for a person: what was expected, and what to do.
        param: the field that is wrong.
        code: for programs.
        headers: for the answer.
    """

    status: int = 500
    type: ClassVar[str] = "server_error"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code
        self.headers = dict(headers or {})
        if status is not None:
            self.status = status

    def body(self) -> dict[str, object]:
        """The answer's JSON."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class InvalidRequestError(ApiError):
    """What was sent cannot be answered."""

    status = 400
    type = "invalid_request_error"


class AccessError(ApiError):
    """No key, a wrong one, or a page of a browser that has no business here."""

    status = 401
    type = "invalid_request_error"


class NotFoundError(ApiError):
    """No such model or address."""

    status = 404
    type = "invalid_request_error"


class TooLargeError(ApiError):
    """The body is over the limit."""

    status = 413
    type = "invalid_request_error"


class QueueFullError(ApiError):
    """As many requests wait as may wait."""

    status = 429
    type = "rate_limit_error"


class EngineFailedError(ApiError):
    """The native runtime failed on this request."""

    status = 503
    type = "server_error"
