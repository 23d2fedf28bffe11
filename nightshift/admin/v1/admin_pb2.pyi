import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Page(_message.Message):
    __slots__ = ("size", "token")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    size: int
    token: str
    def __init__(self, size: _Optional[int] = ..., token: _Optional[str] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("serving", "device_address", "join_address", "devices_enrolled", "devices_held", "devices_revoked", "devices_in_pool", "intermediate_days", "log_size", "tasks", "rounds")
    SERVING_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    JOIN_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    DEVICES_ENROLLED_FIELD_NUMBER: _ClassVar[int]
    DEVICES_HELD_FIELD_NUMBER: _ClassVar[int]
    DEVICES_REVOKED_FIELD_NUMBER: _ClassVar[int]
    DEVICES_IN_POOL_FIELD_NUMBER: _ClassVar[int]
    INTERMEDIATE_DAYS_FIELD_NUMBER: _ClassVar[int]
    LOG_SIZE_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    serving: bool
    device_address: str
    join_address: str
    devices_enrolled: int
    devices_held: int
    devices_revoked: int
    devices_in_pool: int
    intermediate_days: int
    log_size: int
    tasks: _containers.RepeatedCompositeFieldContainer[Task]
    rounds: _containers.RepeatedCompositeFieldContainer[Round]
    def __init__(self, serving: _Optional[bool] = ..., device_address: _Optional[str] = ..., join_address: _Optional[str] = ..., devices_enrolled: _Optional[int] = ..., devices_held: _Optional[int] = ..., devices_revoked: _Optional[int] = ..., devices_in_pool: _Optional[int] = ..., intermediate_days: _Optional[int] = ..., log_size: _Optional[int] = ..., tasks: _Optional[_Iterable[_Union[Task, _Mapping]]] = ..., rounds: _Optional[_Iterable[_Union[Round, _Mapping]]] = ...) -> None: ...

class Token(_message.Message):
    __slots__ = ("token_id", "state", "uses", "uses_allowed", "created", "expires")
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    USES_FIELD_NUMBER: _ClassVar[int]
    USES_ALLOWED_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    token_id: str
    state: str
    uses: int
    uses_allowed: int
    created: _timestamp_pb2.Timestamp
    expires: _timestamp_pb2.Timestamp
    def __init__(self, token_id: _Optional[str] = ..., state: _Optional[str] = ..., uses: _Optional[int] = ..., uses_allowed: _Optional[int] = ..., created: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expires: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class CreateTokenRequest(_message.Message):
    __slots__ = ("uses", "ttl_s")
    USES_FIELD_NUMBER: _ClassVar[int]
    TTL_S_FIELD_NUMBER: _ClassVar[int]
    uses: int
    ttl_s: int
    def __init__(self, uses: _Optional[int] = ..., ttl_s: _Optional[int] = ...) -> None: ...

class CreateTokenResponse(_message.Message):
    __slots__ = ("token", "token_id", "uses_allowed", "expires")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    USES_ALLOWED_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    token: str
    token_id: str
    uses_allowed: int
    expires: _timestamp_pb2.Timestamp
    def __init__(self, token: _Optional[str] = ..., token_id: _Optional[str] = ..., uses_allowed: _Optional[int] = ..., expires: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ListTokensRequest(_message.Message):
    __slots__ = ("page",)
    PAGE_FIELD_NUMBER: _ClassVar[int]
    page: Page
    def __init__(self, page: _Optional[_Union[Page, _Mapping]] = ...) -> None: ...

class ListTokensResponse(_message.Message):
    __slots__ = ("tokens", "next_page")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedCompositeFieldContainer[Token]
    next_page: str
    def __init__(self, tokens: _Optional[_Iterable[_Union[Token, _Mapping]]] = ..., next_page: _Optional[str] = ...) -> None: ...

class RevokeTokenRequest(_message.Message):
    __slots__ = ("token_id",)
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    token_id: str
    def __init__(self, token_id: _Optional[str] = ...) -> None: ...

class RevokeTokenResponse(_message.Message):
    __slots__ = ("token",)
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    token: Token
    def __init__(self, token: _Optional[_Union[Token, _Mapping]] = ...) -> None: ...

class Device(_message.Message):
    __slots__ = ("device_id", "fingerprint", "name", "state", "enrolled", "last_seen", "last_contribution", "client_version", "certificate_expires", "certificate_days", "held_since", "suspicion", "suspected_with", "shares_refused_by", "refused_without_need", "kept_off_committees", "quarantined_since", "prekeys", "rank_limit")
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ENROLLED_FIELD_NUMBER: _ClassVar[int]
    LAST_SEEN_FIELD_NUMBER: _ClassVar[int]
    LAST_CONTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    CLIENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_EXPIRES_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_DAYS_FIELD_NUMBER: _ClassVar[int]
    HELD_SINCE_FIELD_NUMBER: _ClassVar[int]
    SUSPICION_FIELD_NUMBER: _ClassVar[int]
    SUSPECTED_WITH_FIELD_NUMBER: _ClassVar[int]
    SHARES_REFUSED_BY_FIELD_NUMBER: _ClassVar[int]
    REFUSED_WITHOUT_NEED_FIELD_NUMBER: _ClassVar[int]
    KEPT_OFF_COMMITTEES_FIELD_NUMBER: _ClassVar[int]
    QUARANTINED_SINCE_FIELD_NUMBER: _ClassVar[int]
    PREKEYS_FIELD_NUMBER: _ClassVar[int]
    RANK_LIMIT_FIELD_NUMBER: _ClassVar[int]
    device_id: str
    fingerprint: str
    name: str
    state: str
    enrolled: _timestamp_pb2.Timestamp
    last_seen: _timestamp_pb2.Timestamp
    last_contribution: _timestamp_pb2.Timestamp
    client_version: str
    certificate_expires: _timestamp_pb2.Timestamp
    certificate_days: int
    held_since: _timestamp_pb2.Timestamp
    suspicion: str
    suspected_with: int
    shares_refused_by: int
    refused_without_need: int
    kept_off_committees: bool
    quarantined_since: _timestamp_pb2.Timestamp
    prekeys: int
    rank_limit: int
    def __init__(self, device_id: _Optional[str] = ..., fingerprint: _Optional[str] = ..., name: _Optional[str] = ..., state: _Optional[str] = ..., enrolled: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_seen: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_contribution: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., client_version: _Optional[str] = ..., certificate_expires: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., certificate_days: _Optional[int] = ..., held_since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., suspicion: _Optional[str] = ..., suspected_with: _Optional[int] = ..., shares_refused_by: _Optional[int] = ..., refused_without_need: _Optional[int] = ..., kept_off_committees: _Optional[bool] = ..., quarantined_since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., prekeys: _Optional[int] = ..., rank_limit: _Optional[int] = ...) -> None: ...

class ListDevicesRequest(_message.Message):
    __slots__ = ("page",)
    PAGE_FIELD_NUMBER: _ClassVar[int]
    page: Page
    def __init__(self, page: _Optional[_Union[Page, _Mapping]] = ...) -> None: ...

class ListDevicesResponse(_message.Message):
    __slots__ = ("devices", "next_page")
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_FIELD_NUMBER: _ClassVar[int]
    devices: _containers.RepeatedCompositeFieldContainer[Device]
    next_page: str
    def __init__(self, devices: _Optional[_Iterable[_Union[Device, _Mapping]]] = ..., next_page: _Optional[str] = ...) -> None: ...

class GetDeviceRequest(_message.Message):
    __slots__ = ("device_id",)
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    device_id: str
    def __init__(self, device_id: _Optional[str] = ...) -> None: ...

class GetDeviceResponse(_message.Message):
    __slots__ = ("device",)
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    device: Device
    def __init__(self, device: _Optional[_Union[Device, _Mapping]] = ...) -> None: ...

class RevokeDeviceRequest(_message.Message):
    __slots__ = ("device_id", "reason")
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    device_id: str
    reason: str
    def __init__(self, device_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class RevokeDeviceResponse(_message.Message):
    __slots__ = ("device",)
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    device: Device
    def __init__(self, device: _Optional[_Union[Device, _Mapping]] = ...) -> None: ...

class ClearDeviceRequest(_message.Message):
    __slots__ = ("device_id",)
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    device_id: str
    def __init__(self, device_id: _Optional[str] = ...) -> None: ...

class ClearDeviceResponse(_message.Message):
    __slots__ = ("device",)
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    device: Device
    def __init__(self, device: _Optional[_Union[Device, _Mapping]] = ...) -> None: ...

class AcquitDeviceRequest(_message.Message):
    __slots__ = ("device_id",)
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    device_id: str
    def __init__(self, device_id: _Optional[str] = ...) -> None: ...

class AcquitDeviceResponse(_message.Message):
    __slots__ = ("device",)
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    device: Device
    def __init__(self, device: _Optional[_Union[Device, _Mapping]] = ...) -> None: ...

class StoreArtefactRequest(_message.Message):
    __slots__ = ("sha256", "size_bytes", "data")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    sha256: bytes
    size_bytes: int
    data: bytes
    def __init__(self, sha256: _Optional[bytes] = ..., size_bytes: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class StoreArtefactResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Model(_message.Message):
    __slots__ = ("alias", "package_id", "family", "quantisation", "uses", "licence", "openness_class", "weights_licence", "source", "size_bytes", "added")
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    PACKAGE_ID_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    QUANTISATION_FIELD_NUMBER: _ClassVar[int]
    USES_FIELD_NUMBER: _ClassVar[int]
    LICENCE_FIELD_NUMBER: _ClassVar[int]
    OPENNESS_CLASS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_LICENCE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ADDED_FIELD_NUMBER: _ClassVar[int]
    alias: str
    package_id: str
    family: str
    quantisation: str
    uses: str
    licence: str
    openness_class: str
    weights_licence: str
    source: str
    size_bytes: int
    added: _timestamp_pb2.Timestamp
    def __init__(self, alias: _Optional[str] = ..., package_id: _Optional[str] = ..., family: _Optional[str] = ..., quantisation: _Optional[str] = ..., uses: _Optional[str] = ..., licence: _Optional[str] = ..., openness_class: _Optional[str] = ..., weights_licence: _Optional[str] = ..., source: _Optional[str] = ..., size_bytes: _Optional[int] = ..., added: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class AddModelRequest(_message.Message):
    __slots__ = ("manifest", "alias")
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    manifest: bytes
    alias: str
    def __init__(self, manifest: _Optional[bytes] = ..., alias: _Optional[str] = ...) -> None: ...

class AddModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ("page",)
    PAGE_FIELD_NUMBER: _ClassVar[int]
    page: Page
    def __init__(self, page: _Optional[_Union[Page, _Mapping]] = ...) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models", "next_page")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    next_page: str
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ..., next_page: _Optional[str] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class Task(_message.Message):
    __slots__ = ("name", "state", "model", "package_id", "method", "rank", "rounds_open", "rounds_held", "releases", "releases_wanted", "created", "turn", "served", "ranks")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PACKAGE_ID_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_OPEN_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_HELD_FIELD_NUMBER: _ClassVar[int]
    RELEASES_FIELD_NUMBER: _ClassVar[int]
    RELEASES_WANTED_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    TURN_FIELD_NUMBER: _ClassVar[int]
    SERVED_FIELD_NUMBER: _ClassVar[int]
    RANKS_FIELD_NUMBER: _ClassVar[int]
    name: str
    state: str
    model: str
    package_id: str
    method: str
    rank: int
    rounds_open: str
    rounds_held: int
    releases: int
    releases_wanted: int
    created: _timestamp_pb2.Timestamp
    turn: int
    served: _timestamp_pb2.Timestamp
    ranks: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., state: _Optional[str] = ..., model: _Optional[str] = ..., package_id: _Optional[str] = ..., method: _Optional[str] = ..., rank: _Optional[int] = ..., rounds_open: _Optional[str] = ..., rounds_held: _Optional[int] = ..., releases: _Optional[int] = ..., releases_wanted: _Optional[int] = ..., created: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., turn: _Optional[int] = ..., served: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., ranks: _Optional[_Iterable[int]] = ...) -> None: ...

class CreateTaskRequest(_message.Message):
    __slots__ = ("settings",)
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    settings: str
    def __init__(self, settings: _Optional[str] = ...) -> None: ...

class CreateTaskResponse(_message.Message):
    __slots__ = ("task",)
    TASK_FIELD_NUMBER: _ClassVar[int]
    task: Task
    def __init__(self, task: _Optional[_Union[Task, _Mapping]] = ...) -> None: ...

class ListTasksRequest(_message.Message):
    __slots__ = ("page",)
    PAGE_FIELD_NUMBER: _ClassVar[int]
    page: Page
    def __init__(self, page: _Optional[_Union[Page, _Mapping]] = ...) -> None: ...

class ListTasksResponse(_message.Message):
    __slots__ = ("tasks", "next_page")
    TASKS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_FIELD_NUMBER: _ClassVar[int]
    tasks: _containers.RepeatedCompositeFieldContainer[Task]
    next_page: str
    def __init__(self, tasks: _Optional[_Iterable[_Union[Task, _Mapping]]] = ..., next_page: _Optional[str] = ...) -> None: ...

class PauseTaskRequest(_message.Message):
    __slots__ = ("name", "paused")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    name: str
    paused: bool
    def __init__(self, name: _Optional[str] = ..., paused: _Optional[bool] = ...) -> None: ...

class PauseTaskResponse(_message.Message):
    __slots__ = ("task",)
    TASK_FIELD_NUMBER: _ClassVar[int]
    task: Task
    def __init__(self, task: _Optional[_Union[Task, _Mapping]] = ...) -> None: ...

class Member(_message.Message):
    __slots__ = ("index", "device_id", "said")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    SAID_FIELD_NUMBER: _ClassVar[int]
    index: int
    device_id: str
    said: str
    def __init__(self, index: _Optional[int] = ..., device_id: _Optional[str] = ..., said: _Optional[str] = ...) -> None: ...

class Cohort(_message.Message):
    __slots__ = ("cohort", "cohort_id", "state", "contributions", "n_min", "n_max", "answers", "refusals", "erasures", "threshold", "uploads_until", "answers_until", "ended", "reason", "plan_hash", "metrics", "sum_object", "members_outside", "members_disputed", "committee", "trained_rank")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    COHORT_FIELD_NUMBER: _ClassVar[int]
    COHORT_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    N_MIN_FIELD_NUMBER: _ClassVar[int]
    N_MAX_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    REFUSALS_FIELD_NUMBER: _ClassVar[int]
    ERASURES_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    UPLOADS_UNTIL_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_UNTIL_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PLAN_HASH_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    SUM_OBJECT_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_OUTSIDE_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_DISPUTED_FIELD_NUMBER: _ClassVar[int]
    COMMITTEE_FIELD_NUMBER: _ClassVar[int]
    TRAINED_RANK_FIELD_NUMBER: _ClassVar[int]
    cohort: int
    cohort_id: str
    state: str
    contributions: int
    n_min: int
    n_max: int
    answers: int
    refusals: int
    erasures: int
    threshold: int
    uploads_until: _timestamp_pb2.Timestamp
    answers_until: _timestamp_pb2.Timestamp
    ended: _timestamp_pb2.Timestamp
    reason: str
    plan_hash: str
    metrics: _containers.ScalarMap[str, float]
    sum_object: str
    members_outside: _containers.RepeatedScalarFieldContainer[int]
    members_disputed: _containers.RepeatedScalarFieldContainer[int]
    committee: _containers.RepeatedCompositeFieldContainer[Member]
    trained_rank: int
    def __init__(self, cohort: _Optional[int] = ..., cohort_id: _Optional[str] = ..., state: _Optional[str] = ..., contributions: _Optional[int] = ..., n_min: _Optional[int] = ..., n_max: _Optional[int] = ..., answers: _Optional[int] = ..., refusals: _Optional[int] = ..., erasures: _Optional[int] = ..., threshold: _Optional[int] = ..., uploads_until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., answers_until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., ended: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., reason: _Optional[str] = ..., plan_hash: _Optional[str] = ..., metrics: _Optional[_Mapping[str, float]] = ..., sum_object: _Optional[str] = ..., members_outside: _Optional[_Iterable[int]] = ..., members_disputed: _Optional[_Iterable[int]] = ..., committee: _Optional[_Iterable[_Union[Member, _Mapping]]] = ..., trained_rank: _Optional[int] = ...) -> None: ...

class Round(_message.Message):
    __slots__ = ("task", "round", "state", "contributions", "cohorts_opened", "cohorts_void", "opened", "ended", "reason", "parent_release", "release_id", "metrics", "cohorts")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    TASK_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    COHORTS_OPENED_FIELD_NUMBER: _ClassVar[int]
    COHORTS_VOID_FIELD_NUMBER: _ClassVar[int]
    OPENED_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PARENT_RELEASE_FIELD_NUMBER: _ClassVar[int]
    RELEASE_ID_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    COHORTS_FIELD_NUMBER: _ClassVar[int]
    task: str
    round: int
    state: str
    contributions: int
    cohorts_opened: int
    cohorts_void: int
    opened: _timestamp_pb2.Timestamp
    ended: _timestamp_pb2.Timestamp
    reason: str
    parent_release: str
    release_id: str
    metrics: _containers.ScalarMap[str, float]
    cohorts: _containers.RepeatedCompositeFieldContainer[Cohort]
    def __init__(self, task: _Optional[str] = ..., round: _Optional[int] = ..., state: _Optional[str] = ..., contributions: _Optional[int] = ..., cohorts_opened: _Optional[int] = ..., cohorts_void: _Optional[int] = ..., opened: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., ended: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., reason: _Optional[str] = ..., parent_release: _Optional[str] = ..., release_id: _Optional[str] = ..., metrics: _Optional[_Mapping[str, float]] = ..., cohorts: _Optional[_Iterable[_Union[Cohort, _Mapping]]] = ...) -> None: ...

class OpenRoundRequest(_message.Message):
    __slots__ = ("task",)
    TASK_FIELD_NUMBER: _ClassVar[int]
    task: str
    def __init__(self, task: _Optional[str] = ...) -> None: ...

class OpenRoundResponse(_message.Message):
    __slots__ = ("round",)
    ROUND_FIELD_NUMBER: _ClassVar[int]
    round: Round
    def __init__(self, round: _Optional[_Union[Round, _Mapping]] = ...) -> None: ...

class ListRoundsRequest(_message.Message):
    __slots__ = ("page", "task")
    PAGE_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    page: Page
    task: str
    def __init__(self, page: _Optional[_Union[Page, _Mapping]] = ..., task: _Optional[str] = ...) -> None: ...

class ListRoundsResponse(_message.Message):
    __slots__ = ("rounds", "next_page")
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_FIELD_NUMBER: _ClassVar[int]
    rounds: _containers.RepeatedCompositeFieldContainer[Round]
    next_page: str
    def __init__(self, rounds: _Optional[_Iterable[_Union[Round, _Mapping]]] = ..., next_page: _Optional[str] = ...) -> None: ...

class GetRoundRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetRoundResponse(_message.Message):
    __slots__ = ("round",)
    ROUND_FIELD_NUMBER: _ClassVar[int]
    round: Round
    def __init__(self, round: _Optional[_Union[Round, _Mapping]] = ...) -> None: ...

class WatchRoundRequest(_message.Message):
    __slots__ = ("name", "every_s")
    NAME_FIELD_NUMBER: _ClassVar[int]
    EVERY_S_FIELD_NUMBER: _ClassVar[int]
    name: str
    every_s: float
    def __init__(self, name: _Optional[str] = ..., every_s: _Optional[float] = ...) -> None: ...

class WatchRoundResponse(_message.Message):
    __slots__ = ("round",)
    ROUND_FIELD_NUMBER: _ClassVar[int]
    round: Round
    def __init__(self, round: _Optional[_Union[Round, _Mapping]] = ...) -> None: ...

class AbortRoundRequest(_message.Message):
    __slots__ = ("name", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    reason: str
    def __init__(self, name: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class AbortRoundResponse(_message.Message):
    __slots__ = ("round",)
    ROUND_FIELD_NUMBER: _ClassVar[int]
    round: Round
    def __init__(self, round: _Optional[_Union[Round, _Mapping]] = ...) -> None: ...

class Release(_message.Message):
    __slots__ = ("task", "number", "release_id", "parent", "contributors", "adapter_sha256", "adapter_size_bytes", "published", "log_position", "served", "next_parent", "restores")
    TASK_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    RELEASE_ID_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTORS_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_SHA256_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_FIELD_NUMBER: _ClassVar[int]
    LOG_POSITION_FIELD_NUMBER: _ClassVar[int]
    SERVED_FIELD_NUMBER: _ClassVar[int]
    NEXT_PARENT_FIELD_NUMBER: _ClassVar[int]
    RESTORES_FIELD_NUMBER: _ClassVar[int]
    task: str
    number: int
    release_id: str
    parent: str
    contributors: int
    adapter_sha256: str
    adapter_size_bytes: int
    published: _timestamp_pb2.Timestamp
    log_position: int
    served: bool
    next_parent: bool
    restores: str
    def __init__(self, task: _Optional[str] = ..., number: _Optional[int] = ..., release_id: _Optional[str] = ..., parent: _Optional[str] = ..., contributors: _Optional[int] = ..., adapter_sha256: _Optional[str] = ..., adapter_size_bytes: _Optional[int] = ..., published: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., log_position: _Optional[int] = ..., served: _Optional[bool] = ..., next_parent: _Optional[bool] = ..., restores: _Optional[str] = ...) -> None: ...

class ListReleasesRequest(_message.Message):
    __slots__ = ("page", "task")
    PAGE_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    page: Page
    task: str
    def __init__(self, page: _Optional[_Union[Page, _Mapping]] = ..., task: _Optional[str] = ...) -> None: ...

class ListReleasesResponse(_message.Message):
    __slots__ = ("releases", "next_page")
    RELEASES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_FIELD_NUMBER: _ClassVar[int]
    releases: _containers.RepeatedCompositeFieldContainer[Release]
    next_page: str
    def __init__(self, releases: _Optional[_Iterable[_Union[Release, _Mapping]]] = ..., next_page: _Optional[str] = ...) -> None: ...

class GetReleaseRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetReleaseResponse(_message.Message):
    __slots__ = ("release",)
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    release: Release
    def __init__(self, release: _Optional[_Union[Release, _Mapping]] = ...) -> None: ...

class Decision(_message.Message):
    __slots__ = ("task", "number", "kind", "served", "judged", "next_parent", "reason", "decided", "log_position", "decision_id")
    TASK_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SERVED_FIELD_NUMBER: _ClassVar[int]
    JUDGED_FIELD_NUMBER: _ClassVar[int]
    NEXT_PARENT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DECIDED_FIELD_NUMBER: _ClassVar[int]
    LOG_POSITION_FIELD_NUMBER: _ClassVar[int]
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    task: str
    number: int
    kind: str
    served: int
    judged: int
    next_parent: int
    reason: str
    decided: _timestamp_pb2.Timestamp
    log_position: int
    decision_id: str
    def __init__(self, task: _Optional[str] = ..., number: _Optional[int] = ..., kind: _Optional[str] = ..., served: _Optional[int] = ..., judged: _Optional[int] = ..., next_parent: _Optional[int] = ..., reason: _Optional[str] = ..., decided: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., log_position: _Optional[int] = ..., decision_id: _Optional[str] = ...) -> None: ...

class PromoteReleaseRequest(_message.Message):
    __slots__ = ("name", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    reason: str
    def __init__(self, name: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class PromoteReleaseResponse(_message.Message):
    __slots__ = ("decision",)
    DECISION_FIELD_NUMBER: _ClassVar[int]
    decision: Decision
    def __init__(self, decision: _Optional[_Union[Decision, _Mapping]] = ...) -> None: ...

class RollBackReleaseRequest(_message.Message):
    __slots__ = ("name", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    reason: str
    def __init__(self, name: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class RollBackReleaseResponse(_message.Message):
    __slots__ = ("decision",)
    DECISION_FIELD_NUMBER: _ClassVar[int]
    decision: Decision
    def __init__(self, decision: _Optional[_Union[Decision, _Mapping]] = ...) -> None: ...

class ListDecisionsRequest(_message.Message):
    __slots__ = ("page", "task")
    PAGE_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    page: Page
    task: str
    def __init__(self, page: _Optional[_Union[Page, _Mapping]] = ..., task: _Optional[str] = ...) -> None: ...

class ListDecisionsResponse(_message.Message):
    __slots__ = ("decisions", "next_page")
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_FIELD_NUMBER: _ClassVar[int]
    decisions: _containers.RepeatedCompositeFieldContainer[Decision]
    next_page: str
    def __init__(self, decisions: _Optional[_Iterable[_Union[Decision, _Mapping]]] = ..., next_page: _Optional[str] = ...) -> None: ...

class ExportReleaseRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ExportReleaseResponse(_message.Message):
    __slots__ = ("release", "data")
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    release: Release
    data: bytes
    def __init__(self, release: _Optional[_Union[Release, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class VerifyLogRequest(_message.Message):
    __slots__ = ("heads",)
    HEADS_FIELD_NUMBER: _ClassVar[int]
    heads: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, heads: _Optional[_Iterable[str]] = ...) -> None: ...

class VerifyLogResponse(_message.Message):
    __slots__ = ("origin", "size", "root", "short", "note", "verifier_key", "kinds", "objects", "compared")
    class KindsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    SHORT_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    VERIFIER_KEY_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    COMPARED_FIELD_NUMBER: _ClassVar[int]
    origin: str
    size: int
    root: str
    short: str
    note: str
    verifier_key: str
    kinds: _containers.ScalarMap[str, int]
    objects: int
    compared: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, origin: _Optional[str] = ..., size: _Optional[int] = ..., root: _Optional[str] = ..., short: _Optional[str] = ..., note: _Optional[str] = ..., verifier_key: _Optional[str] = ..., kinds: _Optional[_Mapping[str, int]] = ..., objects: _Optional[int] = ..., compared: _Optional[_Iterable[int]] = ...) -> None: ...

class AuditEntry(_message.Message):
    __slots__ = ("audit_id", "time", "actor", "verb", "subject", "detail")
    AUDIT_ID_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    VERB_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    audit_id: int
    time: _timestamp_pb2.Timestamp
    actor: str
    verb: str
    subject: str
    detail: str
    def __init__(self, audit_id: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., actor: _Optional[str] = ..., verb: _Optional[str] = ..., subject: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...

class ListAuditRequest(_message.Message):
    __slots__ = ("page", "since", "actor", "verb")
    PAGE_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    VERB_FIELD_NUMBER: _ClassVar[int]
    page: Page
    since: _timestamp_pb2.Timestamp
    actor: str
    verb: str
    def __init__(self, page: _Optional[_Union[Page, _Mapping]] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., actor: _Optional[str] = ..., verb: _Optional[str] = ...) -> None: ...

class ListAuditResponse(_message.Message):
    __slots__ = ("entries", "next_page")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[AuditEntry]
    next_page: str
    def __init__(self, entries: _Optional[_Iterable[_Union[AuditEntry, _Mapping]]] = ..., next_page: _Optional[str] = ...) -> None: ...

class Admin(_message.Message):
    __slots__ = ("name", "admin_id", "role", "state", "issued", "expires", "last_seen")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADMIN_ID_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ISSUED_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    LAST_SEEN_FIELD_NUMBER: _ClassVar[int]
    name: str
    admin_id: str
    role: str
    state: str
    issued: _timestamp_pb2.Timestamp
    expires: _timestamp_pb2.Timestamp
    last_seen: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., admin_id: _Optional[str] = ..., role: _Optional[str] = ..., state: _Optional[str] = ..., issued: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expires: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_seen: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class IssueAdminRequest(_message.Message):
    __slots__ = ("name", "role", "days", "certificate_request")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    DAYS_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_REQUEST_FIELD_NUMBER: _ClassVar[int]
    name: str
    role: str
    days: int
    certificate_request: bytes
    def __init__(self, name: _Optional[str] = ..., role: _Optional[str] = ..., days: _Optional[int] = ..., certificate_request: _Optional[bytes] = ...) -> None: ...

class IssueAdminResponse(_message.Message):
    __slots__ = ("admin", "certificate", "root", "address", "server_name")
    ADMIN_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    SERVER_NAME_FIELD_NUMBER: _ClassVar[int]
    admin: Admin
    certificate: bytes
    root: bytes
    address: str
    server_name: str
    def __init__(self, admin: _Optional[_Union[Admin, _Mapping]] = ..., certificate: _Optional[bytes] = ..., root: _Optional[bytes] = ..., address: _Optional[str] = ..., server_name: _Optional[str] = ...) -> None: ...

class ListAdminsRequest(_message.Message):
    __slots__ = ("page",)
    PAGE_FIELD_NUMBER: _ClassVar[int]
    page: Page
    def __init__(self, page: _Optional[_Union[Page, _Mapping]] = ...) -> None: ...

class ListAdminsResponse(_message.Message):
    __slots__ = ("admins", "next_page")
    ADMINS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_FIELD_NUMBER: _ClassVar[int]
    admins: _containers.RepeatedCompositeFieldContainer[Admin]
    next_page: str
    def __init__(self, admins: _Optional[_Iterable[_Union[Admin, _Mapping]]] = ..., next_page: _Optional[str] = ...) -> None: ...

class RevokeAdminRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class RevokeAdminResponse(_message.Message):
    __slots__ = ("admin",)
    ADMIN_FIELD_NUMBER: _ClassVar[int]
    admin: Admin
    def __init__(self, admin: _Optional[_Union[Admin, _Mapping]] = ...) -> None: ...
