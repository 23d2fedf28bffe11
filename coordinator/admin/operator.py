"""Who asks, and of which coordinator; how long lists are cut into pages."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from coordinator.deployment import Deployment
from nightshift.admin.v1 import admin_pb2
from nightshift.host.clock import now_unix_s
from nightshift.protocol.errors import UsageError

T = TypeVar("T")

PAGE_ROWS = 200
MOST_PAGE_ROWS = 500


@dataclass(frozen=True, slots=True)
class Operator:
    """What each verb takes beside its request.

    Attributes:
        deployment: the opened coordinator.
        leaving: set when whoever asked is gone, or the service ends; long answers end then.
    """

    deployment: Deployment
    leaving: threading.Event = field(default_factory=threading.Event)

    @property
    def now_unix_s(self) -> int:
        """By the coordinator's clock."""
        return now_unix_s()


def page_of(rows: Sequence[T], page: admin_pb2.Page) -> tuple[Sequence[T], str]:
    """The wanted part of a list, and the token of the part behind it; "" behind the last.

    Raises:
        UsageError: the token is none that this coordinator gave out.
    """
    first = page_start(page)
    last = first + page_rows(page)
    return rows[first:last], str(last) if last < len(rows) else ""


def page_rows(page: admin_pb2.Page) -> int:
    """How many entries a reply may hold."""
    return min(page.size or PAGE_ROWS, MOST_PAGE_ROWS)


def page_start(page: admin_pb2.Page) -> int:
    """The number that a page's token states; 0 for the first page.

    Raises:
        UsageError: it states none.
    """
    if not page.token:
        return 0
    if not page.token.isascii() or not page.token.isdecimal() or len(page.token) > 18:
        raise UsageError("the page token is not one of this coordinator; ask for the first page again")
    return int(page.token)
