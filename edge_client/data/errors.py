"""Errors of local training data.

::

    UsageError
    └── DataError    a file, format or column that cannot be used as training data
"""

from __future__ import annotations

from nightshift.protocol.errors import UsageError


class DataError(UsageError):
    """A file, format or column cannot be used as training data."""
