from nightshift.v1 import plan_pb2 as _plan_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DecisionKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DECISION_KIND_UNSPECIFIED: _ClassVar[DecisionKind]
    DECISION_KIND_FIRST: _ClassVar[DecisionKind]
    DECISION_KIND_UNGATED: _ClassVar[DecisionKind]
    DECISION_KIND_PROMOTED: _ClassVar[DecisionKind]
    DECISION_KIND_DROPPED: _ClassVar[DecisionKind]
    DECISION_KIND_SET_ASIDE: _ClassVar[DecisionKind]
    DECISION_KIND_PROMOTED_BY_OPERATOR: _ClassVar[DecisionKind]
    DECISION_KIND_ROLLED_BACK: _ClassVar[DecisionKind]
DECISION_KIND_UNSPECIFIED: DecisionKind
DECISION_KIND_FIRST: DecisionKind
DECISION_KIND_UNGATED: DecisionKind
DECISION_KIND_PROMOTED: DecisionKind
DECISION_KIND_DROPPED: DecisionKind
DECISION_KIND_SET_ASIDE: DecisionKind
DECISION_KIND_PROMOTED_BY_OPERATOR: DecisionKind
DECISION_KIND_ROLLED_BACK: DecisionKind

class Release(_message.Message):
    __slots__ = ("task", "number", "parent", "base_model", "layout", "adapter_sha256", "adapter_size_bytes", "time_unix_s", "plan_hashes", "contributors", "restores")
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
    RESTORES_FIELD_NUMBER: _ClassVar[int]
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
    restores: bytes
    def __init__(self, task: _Optional[str] = ..., number: _Optional[int] = ..., parent: _Optional[bytes] = ..., base_model: _Optional[bytes] = ..., layout: _Optional[_Union[_plan_pb2.AdapterLayout, _Mapping]] = ..., adapter_sha256: _Optional[bytes] = ..., adapter_size_bytes: _Optional[int] = ..., time_unix_s: _Optional[int] = ..., plan_hashes: _Optional[_Iterable[bytes]] = ..., contributors: _Optional[int] = ..., restores: _Optional[bytes] = ...) -> None: ...

class GateMeasurement(_message.Message):
    __slots__ = ("plan_hashes", "devices", "loss_served", "loss_candidate", "devices_better", "share_better")
    PLAN_HASHES_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    LOSS_SERVED_FIELD_NUMBER: _ClassVar[int]
    LOSS_CANDIDATE_FIELD_NUMBER: _ClassVar[int]
    DEVICES_BETTER_FIELD_NUMBER: _ClassVar[int]
    SHARE_BETTER_FIELD_NUMBER: _ClassVar[int]
    plan_hashes: _containers.RepeatedScalarFieldContainer[bytes]
    devices: int
    loss_served: float
    loss_candidate: float
    devices_better: int
    share_better: float
    def __init__(self, plan_hashes: _Optional[_Iterable[bytes]] = ..., devices: _Optional[int] = ..., loss_served: _Optional[float] = ..., loss_candidate: _Optional[float] = ..., devices_better: _Optional[int] = ..., share_better: _Optional[float] = ...) -> None: ...

class Decision(_message.Message):
    __slots__ = ("task", "number", "kind", "served", "served_number", "judged", "next_parent", "time_unix_s", "reason", "measurement")
    TASK_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SERVED_FIELD_NUMBER: _ClassVar[int]
    SERVED_NUMBER_FIELD_NUMBER: _ClassVar[int]
    JUDGED_FIELD_NUMBER: _ClassVar[int]
    NEXT_PARENT_FIELD_NUMBER: _ClassVar[int]
    TIME_UNIX_S_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MEASUREMENT_FIELD_NUMBER: _ClassVar[int]
    task: str
    number: int
    kind: DecisionKind
    served: bytes
    served_number: int
    judged: bytes
    next_parent: bytes
    time_unix_s: int
    reason: str
    measurement: GateMeasurement
    def __init__(self, task: _Optional[str] = ..., number: _Optional[int] = ..., kind: _Optional[_Union[DecisionKind, str]] = ..., served: _Optional[bytes] = ..., served_number: _Optional[int] = ..., judged: _Optional[bytes] = ..., next_parent: _Optional[bytes] = ..., time_unix_s: _Optional[int] = ..., reason: _Optional[str] = ..., measurement: _Optional[_Union[GateMeasurement, _Mapping]] = ...) -> None: ...
