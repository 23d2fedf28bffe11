"""Why a cohort's sum cannot be had, or why a member refuses to answer.

::

    VerificationError
    ├── ShareRefusedError          a contributor's sealed share is not what it signed, or does not open
    └── SumAbsentError             no sum; nobody is blamed
        ├── TooFewAnswersError     fewer than T answers
        ├── NoSubsetPassesError    every subset of T answers was tried; none passes the residual check
        ├── WorkBoundError         subsets remain, but the work bound is reached
        └── SumOutOfRangeError     the sum opened, but no honest contributors add up to it

The reasons join `nightshift.protocol.errors.by_reason` when this module is imported.
"""

from __future__ import annotations

from nightshift.protocol.errors import ExitCode, VerificationError
from nightshift.protocol.identity import DeviceId


class ShareRefusedError(VerificationError):
    """A member refuses one contributor's share, so the cohort is void.

    Attributes:
        contributor: whose share it is. One member's word convicts nobody: the
            caller treats the contributor as a suspect (docs/protocol-secagg.md, "Failures").
    """

    reason = "SHARE_REFUSED"
    grpc_status = "INVALID_ARGUMENT"

    def __init__(self, message: str, *, contributor: DeviceId) -> None:
        super().__init__(message)
        self.contributor = contributor


class SumAbsentError(VerificationError):
    """The cohort's sum cannot be opened from these answers; nobody is blamed."""

    reason = "SUM_ABSENT"
    grpc_status = "FAILED_PRECONDITION"
    exit_code = ExitCode.VERIFICATION_FAILED


class TooFewAnswersError(SumAbsentError):
    """Fewer than T members answered."""

    reason = "TOO_FEW_ANSWERS"


class NoSubsetPassesError(SumAbsentError):
    """Every subset of T answers was tried and none passes the residual check."""

    reason = "NO_SUBSET_PASSES"


class WorkBoundError(SumAbsentError):
    """The bound on tried subsets is reached and none has passed."""

    reason = "WORK_BOUND"


class SumOutOfRangeError(SumAbsentError):
    """A slot of the opened sum holds more than honest contributors can add up to."""

    reason = "SUM_OUT_OF_RANGE"
