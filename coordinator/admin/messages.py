"""Between records, which commands print, and messages, which travel: field by field, by name.

A record is what `--json` shows: times as RFC 3339 text, ids as hex, None for
what is unknown or does not apply. Its message has a field for each key; a key
without a field is a mistake that is found at the first use.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

M = TypeVar("M", bound=Message)

_Field = Any  # of a message's descriptor; the types know two classes for it
_TIMESTAMP = Timestamp.DESCRIPTOR.full_name


def to_message(kind: type[M], record: Mapping[str, Any]) -> M:
    """A message of a record.

    Raises:
        LookupError: the record has a key that the message lacks.
    """
    message = kind()
    _fill(message, record)
    return message


def to_record(message: Message) -> dict[str, Any]:
    """A record of a message: every field, in the order of the proto."""
    return {field.name: _value(message, field) for field in message.DESCRIPTOR.fields}


def _fill(message: Message, record: Mapping[str, Any]) -> None:
    fields = message.DESCRIPTOR.fields_by_name
    for key, value in record.items():
        if key not in fields:
            raise LookupError(
                f"{message.DESCRIPTOR.full_name} has no field {key!r}; add it to "
                "protos/nightshift/admin/v1/admin.proto and run scripts/gen-protos"
            )
        if value is not None:
            _set(message, fields[key], value)


def _set(message: Message, field: _Field, value: Any) -> None:
    target = getattr(message, field.name)
    if _is_map(field):
        target.update(value)
    elif field.is_repeated and field.message_type is not None:
        for each in value:
            _fill(target.add(), each)
    elif field.is_repeated:
        target.extend(value)
    elif field.message_type is None:
        setattr(message, field.name, value)
    elif field.message_type.full_name == _TIMESTAMP:
        target.FromJsonString(value)
    else:
        target.SetInParent()
        _fill(target, value)


def _value(message: Message, field: _Field) -> Any:
    value = getattr(message, field.name)
    if _is_map(field):
        return dict(sorted(value.items()))
    if field.is_repeated:
        return [_plain(each) for each in value]
    if field.has_presence and not message.HasField(field.name):
        return None
    return _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Timestamp):
        return value.ToJsonString()
    return to_record(value) if isinstance(value, Message) else value


def _is_map(field: _Field) -> bool:
    return bool(field.message_type is not None and field.message_type.GetOptions().map_entry)
