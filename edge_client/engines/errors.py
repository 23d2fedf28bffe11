"""Errors of the inference engines.

::

    UsageError
    ├── EngineUnavailableError    a library, file or adapter that the engine needs is not there
    └── PromptError               a prompt that the model cannot continue
    NightshiftError
    └── EngineError               the native runtime failed on valid input
        └── EngineCrashedError    its process died
"""

from __future__ import annotations

from nightshift.protocol.errors import NightshiftError, UsageError


class EngineUnavailableError(UsageError):
    """The engine cannot start or take an adapter here; the message says what to do."""


class PromptError(UsageError):
    """A prompt is empty, fills the context, or has tokens of another model."""


class EngineError(NightshiftError):
    """The native runtime failed on valid input."""


class EngineCrashedError(EngineError):
    """The process that an engine ran in died; the next use starts a new one."""
