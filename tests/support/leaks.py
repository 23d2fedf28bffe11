"""Searching bytes for runs of other bytes, whatever their offset, in linear time.

A needle is cut into overlapping windows of `WINDOW_BYTES`, one every eight bytes.
A haystack that holds any `WINDOW_BYTES + 7` bytes of a needle in a row holds at
least one window whole. Windows of a few repeating bytes are left out: zeros are
in every file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

WINDOW_BYTES = 64
_KEY_BYTES = 8
_FEWEST_DISTINCT = 6
_FEWEST_DISTINCT_IN_KEY = 2


@dataclass(frozen=True)
class Needles:
    """Windows of what must not be found: the first eight bytes of each, sorted, and whose the whole is."""

    keys: NDArray[np.uint64]
    names: Mapping[bytes, frozenset[str]]

    @classmethod
    def of(cls, named: Mapping[str, bytes]) -> Needles:
        """Cut the needles into windows.

        Raises:
            AssertionError: a needle has no window at all, so that a search for it would mean nothing.
        """
        found: dict[bytes, frozenset[str]] = {}
        for name, data in named.items():
            windows = {
                data[start : start + WINDOW_BYTES] for start in range(0, len(data) - WINDOW_BYTES + 1, _KEY_BYTES)
            }
            telling = {window for window in windows if _telling(window)}
            assert telling, f"{name} has no run of {WINDOW_BYTES} bytes worth looking for"
            for window in telling:
                found[window] = found.get(window, frozenset()) | {name}
        keys = {int.from_bytes(window[:_KEY_BYTES], "little") for window in found}
        return cls(np.array(sorted(keys), dtype=np.uint64), found)

    def names_in(self, haystack: bytes) -> set[str]:
        """Names of the needles of which a window is in the haystack."""
        found: set[str] = set()
        for offset in range(min(_KEY_BYTES, len(haystack))):
            words = np.frombuffer(haystack, dtype="<u8", offset=offset, count=(len(haystack) - offset) // _KEY_BYTES)
            # Almost every word is refused here: few begin any window.
            places = np.minimum(np.searchsorted(self.keys, words), len(self.keys) - 1)
            for hit in np.nonzero(self.keys[places] == words)[0]:
                start = offset + _KEY_BYTES * int(hit)
                found |= self.names.get(haystack[start : start + WINDOW_BYTES], frozenset())
        return found


def _telling(window: bytes) -> bool:
    """Whether a window is more than zeros, or one value again and again."""
    return len(set(window)) >= _FEWEST_DISTINCT and len(set(window[:_KEY_BYTES])) >= _FEWEST_DISTINCT_IN_KEY


def files_below(directories: Iterable[Path], *, leaving_out: Iterable[Path] = ()) -> Iterator[tuple[str, bytes]]:
    """Path and content of every file, whatever its name."""
    left_out = set(leaving_out)
    for directory in directories:
        for path in sorted(directory.rglob("*")):
            if path.is_file() and path not in left_out:
                yield str(path), path.read_bytes()
