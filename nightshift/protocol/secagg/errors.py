"""Why a cohort's sum cannot be had, or why a member refuses to answer.

::

    VerificationError
    ├── ShareRefusedError          a contributor's sealed share is not what it signed
    ├── SharesUnusableError        what contributors signed does not open, or is no vector of the field
    └── SumAbsentError             no sum; nobody is blamed
        ├── TooFewAnswersError     fewer than T answers
        ├── NoSubsetPassesError    every subset of T answers was tried; none passes the residual check
        ├── WorkBoundError         subsets remain, but the work bound is reached
        └── SumOutOfRangeError     the sum opened, but no honest contributors add up to it

The reasons join `nightshift.protocol.errors.by_reason` when this module is imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nightshift.protocol.errors import ExitCode, VerificationError
from nightshift.protocol.identity import DeviceId

if TYPE_CHECKING:
    from nightshift.protocol.secagg.refusal import UnusableShare


class ShareRefusedError(VerificationError):
    """What the coordinator shows as a contributor's share is not what that contributor signed.

    Nothing is said about the contributor: the coordinator checked the same at the upload, and may
    show the right bytes next time. The member keeps its prekey.

    Attributes:
        contributor: whose share it should be.
    """

    reason = "SHARE_REFUSED"
    grpc_status = "INVALID_ARGUMENT"

    def __init__(self, message: str, *, contributor: DeviceId) -> None:
        super().__init__(message)
        self.contributor = contributor


class SharesUnusableError(VerificationError):
    """Contributors signed shares that do not open, or are no field elements; the member cannot answer.

    It says so to the coordinator (`nightshift.protocol.secagg.refusal`). One member's word convicts nobody.

    Attributes:
        shares: which, by ascending contributor.
    """

    reason = "SHARES_UNUSABLE"
    grpc_status = "INVALID_ARGUMENT"

    def __init__(self, message: str, *, shares: Sequence[UnusableShare]) -> None:
        super().__init__(message)
        self.shares = tuple(shares)


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
