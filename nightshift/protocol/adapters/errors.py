"""Errors of adapter layouts and files.

AdapterError (a ValueError)
├── LayoutError    the layout itself is impossible or beyond the caps
└── FormatError    bytes or tensors do not match the layout they were checked against
"""

from __future__ import annotations


class AdapterError(ValueError):
    """An adapter, its layout or its file cannot be used."""


class LayoutError(AdapterError):
    """The layout has an impossible value, or one beyond the caps."""


class FormatError(AdapterError):
    """Bytes or tensors do not match the expected layout."""
