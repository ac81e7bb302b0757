"""A message as a document for JSON: names as in the protocol, enums by name, numbers as numbers.

Every plain field is there, also with its default, so that readers need not know defaults; a message inside is there only
when it was set. What is marked debug_redact is `***`.
"""

from typing import Any

from google.protobuf.message import Message


def as_document(message: Message) -> dict[str, Any]:
    """The fields of a message, by name, in the order of the protocol."""
    document: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            document[field.name] = {str(key): value[key] for key in sorted(value)}
        elif field.is_repeated:
            document[field.name] = [_one(field, each) for each in value]
        elif field.message_type is None or message.HasField(field.name):
            document[field.name] = _one(field, value)
    return document


def _one(field: Any, value: Any) -> Any:
    if field.GetOptions().debug_redact:
        return "***"
    if field.message_type is not None:
        return as_document(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
