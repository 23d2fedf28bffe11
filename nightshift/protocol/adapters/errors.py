"""Errors of adapter layouts and files.

::

    MalformedError
    └── AdapterError
        ├── LayoutError    the layout itself is impossible or beyond the caps
        └── FormatError    bytes or tensors do not match the layout they were checked against

They keep the reason MALFORMED: on the wire both are a value that must be refused.
"""

from __future__ import annotations

from nightshift.protocol.errors import MalformedError


class AdapterError(MalformedError):
    """An adapter, its layout or its file cannot be used."""


class LayoutError(AdapterError):
    """The layout has an impossible value, or one beyond the caps."""


class FormatError(AdapterError):
    """Bytes or tensors do not match the expected layout."""
