"""Messages of a compiled .proto, by protobuf's part in C alone.

Code that protoc generates loads protobuf's Python as well, a second implementation that nobody asks here: 1.7 MiB of an idle
daemon and 10 ms of its start. The part in C has no public name; where it is not as we know it, the public modules do the same.
"""

from typing import TYPE_CHECKING, Any

from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper  # the part in C loads it anyway
from google.protobuf.message import Message

if TYPE_CHECKING:
    from google.protobuf.descriptor import FileDescriptor

_Made = tuple["FileDescriptor", dict[str, type[Message]]]
"""A file, and the classes of its messages; those of messages within messages follow by themselves."""


def declare(compiled: bytes, names: dict[str, Any]) -> "FileDescriptor":
    """Add the messages, enums and their values of a file to a module's names; `compiled` is its FileDescriptorProto."""
    try:
        described, messages = _by_c(compiled, names["__name__"])
    except (ImportError, AttributeError, TypeError):
        described, messages = _by_any(compiled)
    for name, enum in described.enum_types_by_name.items():
        names[name] = EnumTypeWrapper(enum)
        names |= {value.name: value.number for value in enum.values}
    names |= messages
    return described


def _by_c(compiled: bytes, module: str) -> _Made:
    from google._upb import _message

    pool: Any = _message.default_pool
    kind: Any = _message.MessageMeta
    described: FileDescriptor = pool.AddSerializedFile(compiled)
    found = described.message_types_by_name.items()
    return described, {name: kind(name, (Message,), {"DESCRIPTOR": each, "__module__": module}) for name, each in found}


def _by_any(compiled: bytes) -> _Made:
    from google.protobuf import descriptor_pool, message_factory

    described: FileDescriptor = descriptor_pool.Default().AddSerializedFile(compiled)
    found = described.message_types_by_name.items()
    return described, {name: message_factory.GetMessageClass(each) for name, each in found}
