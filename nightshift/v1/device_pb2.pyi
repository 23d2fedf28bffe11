from nightshift.v1 import log_pb2 as _log_pb2
from nightshift.v1 import plan_pb2 as _plan_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ShareFault(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SHARE_FAULT_UNSPECIFIED: _ClassVar[ShareFault]
    SHARE_FAULT_DOES_NOT_OPEN: _ClassVar[ShareFault]
    SHARE_FAULT_NOT_IN_FIELD: _ClassVar[ShareFault]
SHARE_FAULT_UNSPECIFIED: ShareFault
SHARE_FAULT_DOES_NOT_OPEN: ShareFault
SHARE_FAULT_NOT_IN_FIELD: ShareFault

class CheckInRequest(_message.Message):
    __slots__ = ("protocol_version_min", "protocol_version_max", "client_version", "log_size", "prekeys", "epoch", "no_plan", "last_nonce", "next_nonce", "rank_limit", "without_tasks", "night_hours")
    PROTOCOL_VERSION_MIN_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_VERSION_MAX_FIELD_NUMBER: _ClassVar[int]
    CLIENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    LOG_SIZE_FIELD_NUMBER: _ClassVar[int]
    PREKEYS_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    NO_PLAN_FIELD_NUMBER: _ClassVar[int]
    LAST_NONCE_FIELD_NUMBER: _ClassVar[int]
    NEXT_NONCE_FIELD_NUMBER: _ClassVar[int]
    RANK_LIMIT_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_TASKS_FIELD_NUMBER: _ClassVar[int]
    NIGHT_HOURS_FIELD_NUMBER: _ClassVar[int]
    protocol_version_min: int
    protocol_version_max: int
    client_version: str
    log_size: int
    prekeys: _containers.RepeatedCompositeFieldContainer[_plan_pb2.Prekey]
    epoch: int
    no_plan: bool
    last_nonce: bytes
    next_nonce: bytes
    rank_limit: int
    without_tasks: _containers.RepeatedScalarFieldContainer[str]
    night_hours: NightHours
    def __init__(self, protocol_version_min: _Optional[int] = ..., protocol_version_max: _Optional[int] = ..., client_version: _Optional[str] = ..., log_size: _Optional[int] = ..., prekeys: _Optional[_Iterable[_Union[_plan_pb2.Prekey, _Mapping]]] = ..., epoch: _Optional[int] = ..., no_plan: _Optional[bool] = ..., last_nonce: _Optional[bytes] = ..., next_nonce: _Optional[bytes] = ..., rank_limit: _Optional[int] = ..., without_tasks: _Optional[_Iterable[str]] = ..., night_hours: _Optional[_Union[NightHours, _Mapping]] = ...) -> None: ...

class NightHours(_message.Message):
    __slots__ = ("begin_hour_utc", "length_h")
    BEGIN_HOUR_UTC_FIELD_NUMBER: _ClassVar[int]
    LENGTH_H_FIELD_NUMBER: _ClassVar[int]
    begin_hour_utc: int
    length_h: int
    def __init__(self, begin_hour_utc: _Optional[int] = ..., length_h: _Optional[int] = ...) -> None: ...

class Duty(_message.Message):
    __slots__ = ("cohort_id",)
    COHORT_ID_FIELD_NUMBER: _ClassVar[int]
    cohort_id: bytes
    def __init__(self, cohort_id: _Optional[bytes] = ...) -> None: ...

class PlanOffer(_message.Message):
    __slots__ = ("plan", "signature", "plan_proof", "pool_proof", "seed_path", "member_enrolments")
    PLAN_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    PLAN_PROOF_FIELD_NUMBER: _ClassVar[int]
    POOL_PROOF_FIELD_NUMBER: _ClassVar[int]
    SEED_PATH_FIELD_NUMBER: _ClassVar[int]
    MEMBER_ENROLMENTS_FIELD_NUMBER: _ClassVar[int]
    plan: bytes
    signature: bytes
    plan_proof: _log_pb2.LogProof
    pool_proof: _log_pb2.LogProof
    seed_path: _containers.RepeatedScalarFieldContainer[bytes]
    member_enrolments: _containers.RepeatedCompositeFieldContainer[_log_pb2.LogProof]
    def __init__(self, plan: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., plan_proof: _Optional[_Union[_log_pb2.LogProof, _Mapping]] = ..., pool_proof: _Optional[_Union[_log_pb2.LogProof, _Mapping]] = ..., seed_path: _Optional[_Iterable[bytes]] = ..., member_enrolments: _Optional[_Iterable[_Union[_log_pb2.LogProof, _Mapping]]] = ...) -> None: ...

class ReleaseOffer(_message.Message):
    __slots__ = ("release", "signature", "proof")
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    release: bytes
    signature: bytes
    proof: _log_pb2.LogProof
    def __init__(self, release: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., proof: _Optional[_Union[_log_pb2.LogProof, _Mapping]] = ...) -> None: ...

class DecisionOffer(_message.Message):
    __slots__ = ("decision", "signature", "proof")
    DECISION_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    decision: bytes
    signature: bytes
    proof: _log_pb2.LogProof
    def __init__(self, decision: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., proof: _Optional[_Union[_log_pb2.LogProof, _Mapping]] = ...) -> None: ...

class RevocationList(_message.Message):
    __slots__ = ("number", "device_ids", "signature")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    DEVICE_IDS_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    number: int
    device_ids: _containers.RepeatedScalarFieldContainer[bytes]
    signature: bytes
    def __init__(self, number: _Optional[int] = ..., device_ids: _Optional[_Iterable[bytes]] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Addresses(_message.Message):
    __slots__ = ("number", "join_address", "device_address", "signature")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    JOIN_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    number: int
    join_address: str
    device_address: str
    signature: bytes
    def __init__(self, number: _Optional[int] = ..., join_address: _Optional[str] = ..., device_address: _Optional[str] = ..., signature: _Optional[bytes] = ...) -> None: ...

class RenewCertificateRequest(_message.Message):
    __slots__ = ("certificate_request",)
    CERTIFICATE_REQUEST_FIELD_NUMBER: _ClassVar[int]
    certificate_request: bytes
    def __init__(self, certificate_request: _Optional[bytes] = ...) -> None: ...

class RenewCertificateResponse(_message.Message):
    __slots__ = ("certificate",)
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    certificate: bytes
    def __init__(self, certificate: _Optional[bytes] = ...) -> None: ...

class NextCheckIn(_message.Message):
    __slots__ = ("not_before_s", "window_s")
    NOT_BEFORE_S_FIELD_NUMBER: _ClassVar[int]
    WINDOW_S_FIELD_NUMBER: _ClassVar[int]
    not_before_s: int
    window_s: int
    def __init__(self, not_before_s: _Optional[int] = ..., window_s: _Optional[int] = ...) -> None: ...

class CheckInResponse(_message.Message):
    __slots__ = ("protocol_version", "time_unix_s", "checkpoint", "consistency_path", "duties", "plan", "releases", "revocation", "next_check_in", "prekeys_held", "voids", "addresses", "erasures", "release_metadata", "decisions", "turns")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    TIME_UNIX_S_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_PATH_FIELD_NUMBER: _ClassVar[int]
    DUTIES_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    RELEASES_FIELD_NUMBER: _ClassVar[int]
    REVOCATION_FIELD_NUMBER: _ClassVar[int]
    NEXT_CHECK_IN_FIELD_NUMBER: _ClassVar[int]
    PREKEYS_HELD_FIELD_NUMBER: _ClassVar[int]
    VOIDS_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    ERASURES_FIELD_NUMBER: _ClassVar[int]
    RELEASE_METADATA_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    TURNS_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    time_unix_s: int
    checkpoint: _log_pb2.Checkpoint
    consistency_path: _containers.RepeatedScalarFieldContainer[bytes]
    duties: _containers.RepeatedCompositeFieldContainer[Duty]
    plan: PlanOffer
    releases: _containers.RepeatedCompositeFieldContainer[ReleaseOffer]
    revocation: RevocationList
    next_check_in: NextCheckIn
    prekeys_held: int
    voids: _containers.RepeatedCompositeFieldContainer[VoidCohort]
    addresses: Addresses
    erasures: _containers.RepeatedCompositeFieldContainer[Duty]
    release_metadata: ReleaseMetadataHead
    decisions: _containers.RepeatedCompositeFieldContainer[DecisionOffer]
    turns: _containers.RepeatedCompositeFieldContainer[TaskTurn]
    def __init__(self, protocol_version: _Optional[int] = ..., time_unix_s: _Optional[int] = ..., checkpoint: _Optional[_Union[_log_pb2.Checkpoint, _Mapping]] = ..., consistency_path: _Optional[_Iterable[bytes]] = ..., duties: _Optional[_Iterable[_Union[Duty, _Mapping]]] = ..., plan: _Optional[_Union[PlanOffer, _Mapping]] = ..., releases: _Optional[_Iterable[_Union[ReleaseOffer, _Mapping]]] = ..., revocation: _Optional[_Union[RevocationList, _Mapping]] = ..., next_check_in: _Optional[_Union[NextCheckIn, _Mapping]] = ..., prekeys_held: _Optional[int] = ..., voids: _Optional[_Iterable[_Union[VoidCohort, _Mapping]]] = ..., addresses: _Optional[_Union[Addresses, _Mapping]] = ..., erasures: _Optional[_Iterable[_Union[Duty, _Mapping]]] = ..., release_metadata: _Optional[_Union[ReleaseMetadataHead, _Mapping]] = ..., decisions: _Optional[_Iterable[_Union[DecisionOffer, _Mapping]]] = ..., turns: _Optional[_Iterable[_Union[TaskTurn, _Mapping]]] = ...) -> None: ...

class TaskTurn(_message.Message):
    __slots__ = ("task", "served_unix_s", "plan_waits")
    TASK_FIELD_NUMBER: _ClassVar[int]
    SERVED_UNIX_S_FIELD_NUMBER: _ClassVar[int]
    PLAN_WAITS_FIELD_NUMBER: _ClassVar[int]
    task: str
    served_unix_s: int
    plan_waits: bool
    def __init__(self, task: _Optional[str] = ..., served_unix_s: _Optional[int] = ..., plan_waits: _Optional[bool] = ...) -> None: ...

class VoidCohort(_message.Message):
    __slots__ = ("proof", "erasures")
    PROOF_FIELD_NUMBER: _ClassVar[int]
    ERASURES_FIELD_NUMBER: _ClassVar[int]
    proof: _log_pb2.LogProof
    erasures: _containers.RepeatedCompositeFieldContainer[ErasureStatement]
    def __init__(self, proof: _Optional[_Union[_log_pb2.LogProof, _Mapping]] = ..., erasures: _Optional[_Iterable[_Union[ErasureStatement, _Mapping]]] = ...) -> None: ...

class ErasureStatement(_message.Message):
    __slots__ = ("member", "signature")
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    member: bytes
    signature: bytes
    def __init__(self, member: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class OpenUploadRequest(_message.Message):
    __slots__ = ("cohort_id", "plan_hash", "size_bytes", "signature")
    COHORT_ID_FIELD_NUMBER: _ClassVar[int]
    PLAN_HASH_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    cohort_id: bytes
    plan_hash: bytes
    size_bytes: int
    signature: bytes
    def __init__(self, cohort_id: _Optional[bytes] = ..., plan_hash: _Optional[bytes] = ..., size_bytes: _Optional[int] = ..., signature: _Optional[bytes] = ...) -> None: ...

class OpenUploadResponse(_message.Message):
    __slots__ = ("offset", "complete")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    offset: int
    complete: bool
    def __init__(self, offset: _Optional[int] = ..., complete: _Optional[bool] = ...) -> None: ...

class UploadRequest(_message.Message):
    __slots__ = ("cohort_id", "offset", "data")
    COHORT_ID_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    cohort_id: bytes
    offset: int
    data: bytes
    def __init__(self, cohort_id: _Optional[bytes] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class UploadResponse(_message.Message):
    __slots__ = ("offset", "complete")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    offset: int
    complete: bool
    def __init__(self, offset: _Optional[int] = ..., complete: _Optional[bool] = ...) -> None: ...

class GetBundleRequest(_message.Message):
    __slots__ = ("cohort_id", "log_size")
    COHORT_ID_FIELD_NUMBER: _ClassVar[int]
    LOG_SIZE_FIELD_NUMBER: _ClassVar[int]
    cohort_id: bytes
    log_size: int
    def __init__(self, cohort_id: _Optional[bytes] = ..., log_size: _Optional[int] = ...) -> None: ...

class BundleHeader(_message.Message):
    __slots__ = ("plan", "signature", "plan_proof", "set_hash", "set_proof", "checkpoint", "consistency_path", "contributors")
    PLAN_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    PLAN_PROOF_FIELD_NUMBER: _ClassVar[int]
    SET_HASH_FIELD_NUMBER: _ClassVar[int]
    SET_PROOF_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_PATH_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTORS_FIELD_NUMBER: _ClassVar[int]
    plan: bytes
    signature: bytes
    plan_proof: _log_pb2.LogProof
    set_hash: bytes
    set_proof: _log_pb2.LogProof
    checkpoint: _log_pb2.Checkpoint
    consistency_path: _containers.RepeatedScalarFieldContainer[bytes]
    contributors: int
    def __init__(self, plan: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., plan_proof: _Optional[_Union[_log_pb2.LogProof, _Mapping]] = ..., set_hash: _Optional[bytes] = ..., set_proof: _Optional[_Union[_log_pb2.LogProof, _Mapping]] = ..., checkpoint: _Optional[_Union[_log_pb2.Checkpoint, _Mapping]] = ..., consistency_path: _Optional[_Iterable[bytes]] = ..., contributors: _Optional[int] = ...) -> None: ...

class BundleEntry(_message.Message):
    __slots__ = ("certificate", "ciphertext_tag", "sealed_sha256", "sealed", "signature", "enrolment")
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    CIPHERTEXT_TAG_FIELD_NUMBER: _ClassVar[int]
    SEALED_SHA256_FIELD_NUMBER: _ClassVar[int]
    SEALED_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    ENROLMENT_FIELD_NUMBER: _ClassVar[int]
    certificate: bytes
    ciphertext_tag: bytes
    sealed_sha256: _containers.RepeatedScalarFieldContainer[bytes]
    sealed: bytes
    signature: bytes
    enrolment: _log_pb2.LogProof
    def __init__(self, certificate: _Optional[bytes] = ..., ciphertext_tag: _Optional[bytes] = ..., sealed_sha256: _Optional[_Iterable[bytes]] = ..., sealed: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., enrolment: _Optional[_Union[_log_pb2.LogProof, _Mapping]] = ...) -> None: ...

class GetBundleResponse(_message.Message):
    __slots__ = ("header", "entry")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    header: BundleHeader
    entry: BundleEntry
    def __init__(self, header: _Optional[_Union[BundleHeader, _Mapping]] = ..., entry: _Optional[_Union[BundleEntry, _Mapping]] = ...) -> None: ...

class AnswerRequest(_message.Message):
    __slots__ = ("cohort_id", "set_hash", "index", "vector", "signature")
    COHORT_ID_FIELD_NUMBER: _ClassVar[int]
    SET_HASH_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    cohort_id: bytes
    set_hash: bytes
    index: int
    vector: bytes
    signature: bytes
    def __init__(self, cohort_id: _Optional[bytes] = ..., set_hash: _Optional[bytes] = ..., index: _Optional[int] = ..., vector: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class AnswerResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UnusableShare(_message.Message):
    __slots__ = ("contributor", "fault")
    CONTRIBUTOR_FIELD_NUMBER: _ClassVar[int]
    FAULT_FIELD_NUMBER: _ClassVar[int]
    contributor: bytes
    fault: ShareFault
    def __init__(self, contributor: _Optional[bytes] = ..., fault: _Optional[_Union[ShareFault, str]] = ...) -> None: ...

class RefuseRequest(_message.Message):
    __slots__ = ("cohort_id", "set_hash", "shares", "signature", "erasure")
    COHORT_ID_FIELD_NUMBER: _ClassVar[int]
    SET_HASH_FIELD_NUMBER: _ClassVar[int]
    SHARES_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    ERASURE_FIELD_NUMBER: _ClassVar[int]
    cohort_id: bytes
    set_hash: bytes
    shares: _containers.RepeatedCompositeFieldContainer[UnusableShare]
    signature: bytes
    erasure: bytes
    def __init__(self, cohort_id: _Optional[bytes] = ..., set_hash: _Optional[bytes] = ..., shares: _Optional[_Iterable[_Union[UnusableShare, _Mapping]]] = ..., signature: _Optional[bytes] = ..., erasure: _Optional[bytes] = ...) -> None: ...

class RefuseResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetVoidRequest(_message.Message):
    __slots__ = ("cohort_id", "log_size")
    COHORT_ID_FIELD_NUMBER: _ClassVar[int]
    LOG_SIZE_FIELD_NUMBER: _ClassVar[int]
    cohort_id: bytes
    log_size: int
    def __init__(self, cohort_id: _Optional[bytes] = ..., log_size: _Optional[int] = ...) -> None: ...

class GetVoidResponse(_message.Message):
    __slots__ = ("plan", "signature", "plan_proof", "void_proof", "checkpoint", "consistency_path")
    PLAN_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    PLAN_PROOF_FIELD_NUMBER: _ClassVar[int]
    VOID_PROOF_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_PATH_FIELD_NUMBER: _ClassVar[int]
    plan: bytes
    signature: bytes
    plan_proof: _log_pb2.LogProof
    void_proof: _log_pb2.LogProof
    checkpoint: _log_pb2.Checkpoint
    consistency_path: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, plan: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., plan_proof: _Optional[_Union[_log_pb2.LogProof, _Mapping]] = ..., void_proof: _Optional[_Union[_log_pb2.LogProof, _Mapping]] = ..., checkpoint: _Optional[_Union[_log_pb2.Checkpoint, _Mapping]] = ..., consistency_path: _Optional[_Iterable[bytes]] = ...) -> None: ...

class StateErasureRequest(_message.Message):
    __slots__ = ("cohort_id", "signature")
    COHORT_ID_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    cohort_id: bytes
    signature: bytes
    def __init__(self, cohort_id: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class StateErasureResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class FetchArtefactRequest(_message.Message):
    __slots__ = ("sha256", "offset")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    sha256: bytes
    offset: int
    def __init__(self, sha256: _Optional[bytes] = ..., offset: _Optional[int] = ...) -> None: ...

class FetchArtefactResponse(_message.Message):
    __slots__ = ("size_bytes", "data")
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    size_bytes: int
    data: bytes
    def __init__(self, size_bytes: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class ReleaseMetadataHead(_message.Message):
    __slots__ = ("version", "sha256")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    version: int
    sha256: bytes
    def __init__(self, version: _Optional[int] = ..., sha256: _Optional[bytes] = ...) -> None: ...

class GetReleaseMetadataRequest(_message.Message):
    __slots__ = ("role", "version")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    role: str
    version: int
    def __init__(self, role: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class GetReleaseMetadataResponse(_message.Message):
    __slots__ = ("document",)
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    document: bytes
    def __init__(self, document: _Optional[bytes] = ...) -> None: ...

class ReadLogRequest(_message.Message):
    __slots__ = ("first", "end")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    first: int
    end: int
    def __init__(self, first: _Optional[int] = ..., end: _Optional[int] = ...) -> None: ...

class ReadLogResponse(_message.Message):
    __slots__ = ("entries",)
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, entries: _Optional[_Iterable[bytes]] = ...) -> None: ...
