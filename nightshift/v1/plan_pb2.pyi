from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AdapterSide(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ADAPTER_SIDE_UNSPECIFIED: _ClassVar[AdapterSide]
    ADAPTER_SIDE_A: _ClassVar[AdapterSide]
    ADAPTER_SIDE_B: _ClassVar[AdapterSide]
    ADAPTER_SIDE_BOTH: _ClassVar[AdapterSide]
ADAPTER_SIDE_UNSPECIFIED: AdapterSide
ADAPTER_SIDE_A: AdapterSide
ADAPTER_SIDE_B: AdapterSide
ADAPTER_SIDE_BOTH: AdapterSide

class AdapterTarget(_message.Message):
    __slots__ = ("projection", "in_features", "out_features")
    PROJECTION_FIELD_NUMBER: _ClassVar[int]
    IN_FEATURES_FIELD_NUMBER: _ClassVar[int]
    OUT_FEATURES_FIELD_NUMBER: _ClassVar[int]
    projection: str
    in_features: int
    out_features: int
    def __init__(self, projection: _Optional[str] = ..., in_features: _Optional[int] = ..., out_features: _Optional[int] = ...) -> None: ...

class AdapterLayout(_message.Message):
    __slots__ = ("layers", "targets", "rank", "alpha")
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    layers: int
    targets: _containers.RepeatedCompositeFieldContainer[AdapterTarget]
    rank: int
    alpha: float
    def __init__(self, layers: _Optional[int] = ..., targets: _Optional[_Iterable[_Union[AdapterTarget, _Mapping]]] = ..., rank: _Optional[int] = ..., alpha: _Optional[float] = ...) -> None: ...

class TrainingSettings(_message.Message):
    __slots__ = ("steps", "batch_size", "learning_rate", "schedule", "weight_decay", "gradient_clip_norm", "max_tokens", "proximal", "examples_for_full_weight")
    STEPS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_DECAY_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_CLIP_NORM_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PROXIMAL_FIELD_NUMBER: _ClassVar[int]
    EXAMPLES_FOR_FULL_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    steps: int
    batch_size: int
    learning_rate: float
    schedule: str
    weight_decay: float
    gradient_clip_norm: float
    max_tokens: int
    proximal: float
    examples_for_full_weight: int
    def __init__(self, steps: _Optional[int] = ..., batch_size: _Optional[int] = ..., learning_rate: _Optional[float] = ..., schedule: _Optional[str] = ..., weight_decay: _Optional[float] = ..., gradient_clip_norm: _Optional[float] = ..., max_tokens: _Optional[int] = ..., proximal: _Optional[float] = ..., examples_for_full_weight: _Optional[int] = ...) -> None: ...

class VectorEncoding(_message.Message):
    __slots__ = ("delta_length", "metrics", "value_bits", "value_clip", "clip_norm", "noise_multiplier", "rotated")
    DELTA_LENGTH_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    VALUE_BITS_FIELD_NUMBER: _ClassVar[int]
    VALUE_CLIP_FIELD_NUMBER: _ClassVar[int]
    CLIP_NORM_FIELD_NUMBER: _ClassVar[int]
    NOISE_MULTIPLIER_FIELD_NUMBER: _ClassVar[int]
    ROTATED_FIELD_NUMBER: _ClassVar[int]
    delta_length: int
    metrics: _containers.RepeatedScalarFieldContainer[str]
    value_bits: int
    value_clip: float
    clip_norm: float
    noise_multiplier: float
    rotated: bool
    def __init__(self, delta_length: _Optional[int] = ..., metrics: _Optional[_Iterable[str]] = ..., value_bits: _Optional[int] = ..., value_clip: _Optional[float] = ..., clip_norm: _Optional[float] = ..., noise_multiplier: _Optional[float] = ..., rotated: _Optional[bool] = ...) -> None: ...

class Prekey(_message.Message):
    __slots__ = ("device_id", "serial", "epoch", "not_after_unix_s", "public_key", "signature")
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    SERIAL_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    NOT_AFTER_UNIX_S_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    device_id: bytes
    serial: int
    epoch: int
    not_after_unix_s: int
    public_key: bytes
    signature: bytes
    def __init__(self, device_id: _Optional[bytes] = ..., serial: _Optional[int] = ..., epoch: _Optional[int] = ..., not_after_unix_s: _Optional[int] = ..., public_key: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class CommitteeMember(_message.Message):
    __slots__ = ("index", "prekey", "certificate")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    PREKEY_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    index: int
    prekey: Prekey
    certificate: bytes
    def __init__(self, index: _Optional[int] = ..., prekey: _Optional[_Union[Prekey, _Mapping]] = ..., certificate: _Optional[bytes] = ...) -> None: ...

class Plan(_message.Message):
    __slots__ = ("protocol_version", "cohort_id", "round", "task", "base_model", "parent_release", "layout", "side", "training", "encoding", "n_max", "n_min", "pool", "committee", "threshold", "upload_deadline_unix_s", "latest_upload_deadline_unix_s", "answer_deadline_unix_s", "seed_log_size", "seed_log_root", "trained_rank", "served_release")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    COHORT_ID_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    PARENT_RELEASE_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    SIDE_FIELD_NUMBER: _ClassVar[int]
    TRAINING_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    N_MAX_FIELD_NUMBER: _ClassVar[int]
    N_MIN_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    COMMITTEE_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_DEADLINE_UNIX_S_FIELD_NUMBER: _ClassVar[int]
    LATEST_UPLOAD_DEADLINE_UNIX_S_FIELD_NUMBER: _ClassVar[int]
    ANSWER_DEADLINE_UNIX_S_FIELD_NUMBER: _ClassVar[int]
    SEED_LOG_SIZE_FIELD_NUMBER: _ClassVar[int]
    SEED_LOG_ROOT_FIELD_NUMBER: _ClassVar[int]
    TRAINED_RANK_FIELD_NUMBER: _ClassVar[int]
    SERVED_RELEASE_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    cohort_id: bytes
    round: int
    task: str
    base_model: bytes
    parent_release: bytes
    layout: AdapterLayout
    side: AdapterSide
    training: TrainingSettings
    encoding: VectorEncoding
    n_max: int
    n_min: int
    pool: _containers.RepeatedScalarFieldContainer[bytes]
    committee: _containers.RepeatedCompositeFieldContainer[CommitteeMember]
    threshold: int
    upload_deadline_unix_s: int
    latest_upload_deadline_unix_s: int
    answer_deadline_unix_s: int
    seed_log_size: int
    seed_log_root: bytes
    trained_rank: int
    served_release: bytes
    def __init__(self, protocol_version: _Optional[int] = ..., cohort_id: _Optional[bytes] = ..., round: _Optional[int] = ..., task: _Optional[str] = ..., base_model: _Optional[bytes] = ..., parent_release: _Optional[bytes] = ..., layout: _Optional[_Union[AdapterLayout, _Mapping]] = ..., side: _Optional[_Union[AdapterSide, str]] = ..., training: _Optional[_Union[TrainingSettings, _Mapping]] = ..., encoding: _Optional[_Union[VectorEncoding, _Mapping]] = ..., n_max: _Optional[int] = ..., n_min: _Optional[int] = ..., pool: _Optional[_Iterable[bytes]] = ..., committee: _Optional[_Iterable[_Union[CommitteeMember, _Mapping]]] = ..., threshold: _Optional[int] = ..., upload_deadline_unix_s: _Optional[int] = ..., latest_upload_deadline_unix_s: _Optional[int] = ..., answer_deadline_unix_s: _Optional[int] = ..., seed_log_size: _Optional[int] = ..., seed_log_root: _Optional[bytes] = ..., trained_rank: _Optional[int] = ..., served_release: _Optional[bytes] = ...) -> None: ...
