from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class JoinRequest(_message.Message):
    __slots__ = ("token_secret", "certificate_request", "protocol_version_min", "protocol_version_max", "client_version", "device_name")
    TOKEN_SECRET_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_REQUEST_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_VERSION_MIN_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_VERSION_MAX_FIELD_NUMBER: _ClassVar[int]
    CLIENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    DEVICE_NAME_FIELD_NUMBER: _ClassVar[int]
    token_secret: bytes
    certificate_request: bytes
    protocol_version_min: int
    protocol_version_max: int
    client_version: str
    device_name: str
    def __init__(self, token_secret: _Optional[bytes] = ..., certificate_request: _Optional[bytes] = ..., protocol_version_min: _Optional[int] = ..., protocol_version_max: _Optional[int] = ..., client_version: _Optional[str] = ..., device_name: _Optional[str] = ...) -> None: ...

class JoinResponse(_message.Message):
    __slots__ = ("certificate", "signing_certificate", "log_origin", "protocol_version", "release_root", "release_root_signature")
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    SIGNING_CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    LOG_ORIGIN_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    RELEASE_ROOT_FIELD_NUMBER: _ClassVar[int]
    RELEASE_ROOT_SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    certificate: bytes
    signing_certificate: bytes
    log_origin: str
    protocol_version: int
    release_root: bytes
    release_root_signature: bytes
    def __init__(self, certificate: _Optional[bytes] = ..., signing_certificate: _Optional[bytes] = ..., log_origin: _Optional[str] = ..., protocol_version: _Optional[int] = ..., release_root: _Optional[bytes] = ..., release_root_signature: _Optional[bytes] = ...) -> None: ...

class BeginRenewalRequest(_message.Message):
    __slots__ = ("device_id",)
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    device_id: bytes
    def __init__(self, device_id: _Optional[bytes] = ...) -> None: ...

class BeginRenewalResponse(_message.Message):
    __slots__ = ("nonce", "time_unix_s", "signature")
    NONCE_FIELD_NUMBER: _ClassVar[int]
    TIME_UNIX_S_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    nonce: bytes
    time_unix_s: int
    signature: bytes
    def __init__(self, nonce: _Optional[bytes] = ..., time_unix_s: _Optional[int] = ..., signature: _Optional[bytes] = ...) -> None: ...

class EndRenewalRequest(_message.Message):
    __slots__ = ("device_id", "challenge", "certificate_request", "signature")
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    CHALLENGE_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_REQUEST_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    device_id: bytes
    challenge: BeginRenewalResponse
    certificate_request: bytes
    signature: bytes
    def __init__(self, device_id: _Optional[bytes] = ..., challenge: _Optional[_Union[BeginRenewalResponse, _Mapping]] = ..., certificate_request: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class EndRenewalResponse(_message.Message):
    __slots__ = ("certificate",)
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    certificate: bytes
    def __init__(self, certificate: _Optional[bytes] = ...) -> None: ...
