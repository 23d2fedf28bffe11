"""Errors of training.

::

    NightshiftError
    └── TrainingError               training cannot start, or has gone wrong
        ├── NoExamplesError         nothing to train on
        ├── DivergedError           a loss or gradient that is not finite
        ├── NothingLearntError      the adapter is what it was before
        └── ChildFailedError        the training process ended without a result
            ├── ChildCrashedError   it died of a signal or an internal error
            └── ChildTimeoutError   it did not stop when told to
    ResourceError
    └── ChildOutOfMemoryError       it met its memory ceiling
    DeclinedError
    ├── TooLittleTextError          fewer examples than what comes out could rest on
    └── TrainingStoppedError        it was told to end; a checkpoint waits
"""

from __future__ import annotations

from nightshift.protocol.errors import DeclinedError, NightshiftError, ResourceError


class TrainingError(NightshiftError):
    """Training cannot start, or has gone wrong."""


class NoExamplesError(TrainingError):
    """There is nothing to train on."""


class DivergedError(TrainingError):
    """A loss or gradient is not finite."""


class NothingLearntError(TrainingError):
    """The trained adapter equals the one before."""


class ChildFailedError(TrainingError):
    """The training process ended without a result."""


class ChildCrashedError(ChildFailedError):
    """The training process died of a signal or an internal error."""


class ChildTimeoutError(ChildFailedError):
    """The training process did not stop when told to."""


class ChildOutOfMemoryError(ResourceError):
    """The training process met its memory ceiling."""


class TooLittleTextError(DeclinedError):
    """There are fewer examples than what comes out could rest on; nothing was trained."""


class TrainingStoppedError(DeclinedError):
    """Training was told to end before its last step; a checkpoint waits to be continued."""
