from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

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
    __slots__ = ("certificate", "signing_certificate", "log_origin", "protocol_version")
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    SIGNING_CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    LOG_ORIGIN_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    certificate: bytes
    signing_certificate: bytes
    log_origin: str
    protocol_version: int
    def __init__(self, certificate: _Optional[bytes] = ..., signing_certificate: _Optional[bytes] = ..., log_origin: _Optional[str] = ..., protocol_version: _Optional[int] = ...) -> None: ...
