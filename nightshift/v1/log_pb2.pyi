from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LogEntryKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LOG_ENTRY_KIND_UNSPECIFIED: _ClassVar[LogEntryKind]
    LOG_ENTRY_KIND_POOL: _ClassVar[LogEntryKind]
    LOG_ENTRY_KIND_PLAN: _ClassVar[LogEntryKind]
    LOG_ENTRY_KIND_SET: _ClassVar[LogEntryKind]
    LOG_ENTRY_KIND_VOID: _ClassVar[LogEntryKind]
    LOG_ENTRY_KIND_RELEASE: _ClassVar[LogEntryKind]
    LOG_ENTRY_KIND_ENROLMENT: _ClassVar[LogEntryKind]
    LOG_ENTRY_KIND_REVOCATION: _ClassVar[LogEntryKind]
    LOG_ENTRY_KIND_DECISION: _ClassVar[LogEntryKind]
    LOG_ENTRY_KIND_EXTENSION: _ClassVar[LogEntryKind]
LOG_ENTRY_KIND_UNSPECIFIED: LogEntryKind
LOG_ENTRY_KIND_POOL: LogEntryKind
LOG_ENTRY_KIND_PLAN: LogEntryKind
LOG_ENTRY_KIND_SET: LogEntryKind
LOG_ENTRY_KIND_VOID: LogEntryKind
LOG_ENTRY_KIND_RELEASE: LogEntryKind
LOG_ENTRY_KIND_ENROLMENT: LogEntryKind
LOG_ENTRY_KIND_REVOCATION: LogEntryKind
LOG_ENTRY_KIND_DECISION: LogEntryKind
LOG_ENTRY_KIND_EXTENSION: LogEntryKind

class LogEntry(_message.Message):
    __slots__ = ("kind", "time_unix_s", "subject", "digest", "note")
    KIND_FIELD_NUMBER: _ClassVar[int]
    TIME_UNIX_S_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    kind: LogEntryKind
    time_unix_s: int
    subject: bytes
    digest: bytes
    note: str
    def __init__(self, kind: _Optional[_Union[LogEntryKind, str]] = ..., time_unix_s: _Optional[int] = ..., subject: _Optional[bytes] = ..., digest: _Optional[bytes] = ..., note: _Optional[str] = ...) -> None: ...

class Checkpoint(_message.Message):
    __slots__ = ("body", "signature")
    BODY_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    body: bytes
    signature: bytes
    def __init__(self, body: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class LogProof(_message.Message):
    __slots__ = ("entry", "index", "path")
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    entry: bytes
    index: int
    path: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, entry: _Optional[bytes] = ..., index: _Optional[int] = ..., path: _Optional[_Iterable[bytes]] = ...) -> None: ...
