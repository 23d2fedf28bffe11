"""Ending a text before the first of some words, while the text still grows."""

from __future__ import annotations

from collections.abc import Sequence


class StopScanner:
    """Passes on text that can no longer become the beginning of a stop text.

    Args:
        stops: non-empty texts; none lets everything through at once.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found = False

    def push(self, piece: str) -> str:
        """Takes the next piece and returns what may be shown; after `found` always nothing."""
        if self.found:
            return ""
        text = self._held + piece
        starts = [start for start in (text.find(stop) for stop in self._stops) if start >= 0]
        if starts:
            self.found, self._held = True, ""
            return text[: min(starts)]
        held = self._could_begin(text)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def flush(self) -> str:
        """The text is over: returns what was held back."""
        text, self._held = self._held, ""
        return text

    def _could_begin(self, text: str) -> int:
        """Characters at the end of the text that a stop text begins with, at most."""
        longest = max((len(stop) for stop in self._stops), default=0) - 1
        for size in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-size:]) for stop in self._stops):
                return size
        return 0
