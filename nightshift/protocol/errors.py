"""What can go wrong between a device and its coordinator.

::

    NightshiftError
    ├── UsageError                 what was typed or configured cannot work
    ├── DeclinedError              the owner's policy, or the conditions, say no
    ├── NotJoinedError             this device belongs to no coordinator
    ├── BusyError                  another run holds the lock
    ├── RevokedError               the certificate is revoked, expired or unknown
    │   └── ClonedIdentityError    two devices speak with one key
    ├── UnreachableError           the coordinator does not answer; try later
    ├── VerificationError          a signature, hash, proof or fingerprint is wrong
    │   ├── SignatureInvalidError
    │   ├── HashMismatchError
    │   ├── LogInconsistentError   the log forks, shrinks or lacks an entry
    │   ├── EquivocationError      two different things said where one is allowed
    │   ├── RolledBackError        release metadata older than some that was seen
    │   ├── FrozenError            release metadata whose time is over
    │   ├── MixedError             release metadata of different states, put together
    │   ├── MemberRevokedError     a committee member that no longer counts
    │   └── WrongServerError       whoever answers is not the coordinator
    ├── IncompatibleError          protocol version or model that this build cannot use
    ├── ResourceError              not enough disk or memory
    ├── PartialError               trained, but not sent
    ├── RequestError               the other side sent what this side must refuse
    │   ├── MalformedError         wrong length, garbage, unknown field value
    │   ├── StateConflictError     right message, wrong moment (late, second upload)
    │   ├── NotFoundError          no such task, cohort, artefact
    │   └── TokenError             a join token that is unknown, used up or expired
    └── OverloadedError            ask again after the time given
        └── UnavailableError       a store of the coordinator does not answer

Each leaf carries a reason (travels as google.rpc.ErrorInfo), a gRPC status
name and an exit code; `by_reason` lists them all and a test keeps them distinct.
A message names the input, what was expected, and the next step.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """What a command's exit status means (docs/operations.md)."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    PARTIAL = 3
    NOT_NOW = 4
    NOT_JOINED = 10
    LOCKED = 11
    REVOKED = 12
    UNREACHABLE = 13
    VERIFICATION_FAILED = 14
    INCOMPATIBLE = 15
    NO_SPACE = 16


class NightshiftError(Exception):
    """An error that a person should read; the message says what to do next."""

    reason: ClassVar[str] = "INTERNAL"
    grpc_status: ClassVar[str] = "INTERNAL"
    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL


class UsageError(NightshiftError):
    """What was typed or configured cannot work."""

    reason = "USAGE"
    grpc_status = "INVALID_ARGUMENT"
    exit_code = ExitCode.USAGE


class DeclinedError(NightshiftError):
    """The owner's policy, or the conditions of the moment, say no."""

    reason = "DECLINED"
    grpc_status = "FAILED_PRECONDITION"
    exit_code = ExitCode.NOT_NOW


class NotJoinedError(NightshiftError):
    """This device belongs to no coordinator."""

    reason = "NOT_JOINED"
    grpc_status = "UNAUTHENTICATED"
    exit_code = ExitCode.NOT_JOINED


class BusyError(NightshiftError):
    """Another run holds the lock of this home directory."""

    reason = "LOCKED"
    grpc_status = "ABORTED"
    exit_code = ExitCode.LOCKED


class RevokedError(NightshiftError):
    """The device's certificate is revoked, expired or not known."""

    reason = "REVOKED"
    grpc_status = "PERMISSION_DENIED"
    exit_code = ExitCode.REVOKED


class ClonedIdentityError(RevokedError):
    """Two devices speak with one key, or an old copy of one came back."""

    reason = "CLONED_IDENTITY"


class UnreachableError(NightshiftError):
    """The coordinator does not answer, or something between does not let it."""

    reason = "UNREACHABLE"
    grpc_status = "UNAVAILABLE"
    exit_code = ExitCode.UNREACHABLE


class VerificationError(NightshiftError):
    """Something that must be authentic is not; nothing was sent or used."""

    reason = "VERIFICATION_FAILED"
    grpc_status = "DATA_LOSS"
    exit_code = ExitCode.VERIFICATION_FAILED


class WrongServerError(VerificationError):
    """Whoever answers at the address is not the coordinator: somebody in between, or a captive portal."""

    reason = "WRONG_SERVER"


class SignatureInvalidError(VerificationError):
    """A signature does not verify under the key that should have made it."""

    reason = "SIGNATURE_INVALID"
    grpc_status = "INVALID_ARGUMENT"


class HashMismatchError(VerificationError):
    """Bytes do not have the hash that was promised."""

    reason = "HASH_MISMATCH"


class LogInconsistentError(VerificationError):
    """The log forks, shrinks, or lacks an entry that it must hold."""

    reason = "LOG_INCONSISTENT"


class EquivocationError(VerificationError):
    """The coordinator said two different things where the protocol allows one."""

    reason = "EQUIVOCATION"


class RolledBackError(VerificationError):
    """Release metadata is older than some that was seen: releases that were left behind would come back."""

    reason = "ROLLED_BACK"


class FrozenError(VerificationError):
    """The time of the newest release metadata is over: newer releases may be withheld."""

    reason = "FROZEN"


class MixedError(VerificationError):
    """Release metadata of different states was put together."""

    reason = "MIXED"


class MemberRevokedError(VerificationError):
    """A committee member is revoked, or its certificate is not valid now."""

    reason = "MEMBER_REVOKED"


class IncompatibleError(NightshiftError):
    """A protocol version or model that this build cannot use."""

    reason = "INCOMPATIBLE"
    grpc_status = "UNIMPLEMENTED"
    exit_code = ExitCode.INCOMPATIBLE


class ResourceError(NightshiftError):
    """Not enough disk or memory."""

    reason = "NO_SPACE"
    grpc_status = "RESOURCE_EXHAUSTED"
    exit_code = ExitCode.NO_SPACE


class PartialError(NightshiftError):
    """The work was done and kept, but not all of it was sent."""

    reason = "PARTIAL"
    grpc_status = "ABORTED"
    exit_code = ExitCode.PARTIAL


class RequestError(NightshiftError):
    """The other side sent what this side must refuse."""

    reason = "REFUSED"
    grpc_status = "INVALID_ARGUMENT"
    exit_code = ExitCode.INTERNAL


class MalformedError(RequestError):
    """Wrong length, garbage, or a value outside its range."""

    reason = "MALFORMED"
    grpc_status = "INVALID_ARGUMENT"
    exit_code = ExitCode.VERIFICATION_FAILED


class StateConflictError(RequestError):
    """The right message at the wrong moment: late, or a second one."""

    reason = "STATE_CONFLICT"
    grpc_status = "FAILED_PRECONDITION"
    exit_code = ExitCode.PARTIAL


class NotFoundError(RequestError):
    """No such task, cohort, model or artefact."""

    reason = "NOT_FOUND"
    grpc_status = "NOT_FOUND"
    exit_code = ExitCode.USAGE


class TokenError(RequestError):
    """A join token that is malformed, unknown, used up or expired."""

    reason = "TOKEN_REFUSED"
    grpc_status = "UNAUTHENTICATED"
    exit_code = ExitCode.USAGE


class OverloadedError(NightshiftError):
    """The coordinator is busy; ask again later.

    Attributes:
        retry_after_s: travels as google.rpc.RetryInfo; whoever raises it may know better than the default.
    """

    retry_after_s: int = 60
    reason = "OVERLOADED"
    grpc_status = "RESOURCE_EXHAUSTED"
    exit_code = ExitCode.UNREACHABLE


class UnavailableError(OverloadedError):
    """The coordinator answers, but its database or its objects do not; what it did not acknowledge may be repeated."""

    reason = "UNAVAILABLE"
    grpc_status = "UNAVAILABLE"


def by_reason() -> dict[str, type[NightshiftError]]:
    """Reason -> error class: how a reason that came over the wire becomes an exception again.

    Holds every class of the tree that has been imported, also those that other modules add to it.
    """
    return {error.reason: error for error in _family(NightshiftError) if "reason" in vars(error)}


def _family(root: type[NightshiftError]) -> list[type[NightshiftError]]:
    return [root, *(leaf for child in root.__subclasses__() for leaf in _family(child))]
