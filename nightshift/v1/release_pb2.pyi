from nightshift.v1 import plan_pb2 as _plan_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Release(_message.Message):
    __slots__ = ("task", "number", "parent", "base_model", "layout", "adapter_sha256", "adapter_size_bytes", "time_unix_s", "plan_hashes", "contributors")
    TASK_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_SHA256_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    TIME_UNIX_S_FIELD_NUMBER: _ClassVar[int]
    PLAN_HASHES_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTORS_FIELD_NUMBER: _ClassVar[int]
    task: str
    number: int
    parent: bytes
    base_model: bytes
    layout: _plan_pb2.AdapterLayout
    adapter_sha256: bytes
    adapter_size_bytes: int
    time_unix_s: int
    plan_hashes: _containers.RepeatedScalarFieldContainer[bytes]
    contributors: int
    def __init__(self, task: _Optional[str] = ..., number: _Optional[int] = ..., parent: _Optional[bytes] = ..., base_model: _Optional[bytes] = ..., layout: _Optional[_Union[_plan_pb2.AdapterLayout, _Mapping]] = ..., adapter_sha256: _Optional[bytes] = ..., adapter_size_bytes: _Optional[int] = ..., time_unix_s: _Optional[int] = ..., plan_hashes: _Optional[_Iterable[bytes]] = ..., contributors: _Optional[int] = ...) -> None: ...
