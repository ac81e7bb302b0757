"""Random CRI messages: every field may be absent, hostile or at its limit."""

from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

HOSTILE = [
    "",
    "\0",
    "\n",
    "../x",
    "/..",
    "-x",
    "%s",
    "a" * 5000,
    "/",
    "/proc/self",
    "x=y",
    "ж\u202e",
    "{}",
    "a/b",
    "1000",
    "CAP_SYS_ADMIN",
]
TEXTS = st.sampled_from(HOSTILE) | st.text(max_size=20)
_NUMBERS = {
    FieldDescriptor.TYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.TYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.TYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.TYPE_UINT64: (0, (1 << 64) - 1),
}


def fill(message: Message, draw: Any, depth: int = 0) -> Any:
    """Set some fields of `message` to random values."""
    for field in message.DESCRIPTOR.fields:
        if draw(st.booleans()):
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            getattr(message, field.name).update(draw(st.dictionaries(TEXTS, TEXTS, max_size=3)))
        elif field.message_type is not None:
            if depth < 6:
                targets = (
                    [getattr(message, field.name).add() for _ in range(draw(st.integers(0, 2)))] if field.is_repeated else None
                )
                for target in targets if targets is not None else [getattr(message, field.name)]:
                    target.SetInParent()
                    fill(target, draw, depth + 1)
        elif field.is_repeated:
            getattr(message, field.name).extend(draw(st.lists(_value(field), max_size=3)))
        else:
            setattr(message, field.name, draw(_value(field)))
    return message


def _value(field: FieldDescriptor) -> Any:
    if field.type == FieldDescriptor.TYPE_STRING:
        return TEXTS
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=20)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return st.booleans()
    if field.type == FieldDescriptor.TYPE_ENUM:
        return st.integers(-2, 70)
    low, high = _NUMBERS[field.type]
    return st.sampled_from([low, high, 0, 1, max(low, -1)]) | st.integers(low, high)


def messages(kind: type[Message]) -> Any:
    """A strategy of random messages of a kind."""

    @st.composite
    def made(draw: Any) -> Message:
        return fill(kind(), draw)

    return made()


def every_text(described: Descriptor, path: str = "") -> list[str]:
    """Paths of all string fields below a message, through messages that are not repeated."""
    found = []
    for field in described.fields:
        if field.is_repeated:
            continue
        if field.type == FieldDescriptor.TYPE_STRING:
            found.append(f"{path}{field.name}")
        elif field.message_type is not None:
            found += every_text(field.message_type, f"{path}{field.name}.")
    return found
