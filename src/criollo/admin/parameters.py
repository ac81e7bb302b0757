"""Parameters of a request, checked: one value, several, a yes, an absolute path, a body of JSON."""

from pathlib import Path
from typing import TypeVar

import msgspec

from criollo.aio.http_server import Reply, Request
from criollo.errors import Invalid

JSON = "application/json"
T = TypeVar("T")


def one(request: Request, key: str) -> str:
    """The value of a parameter, empty when it is absent. Raises Invalid for several."""
    values = request.query.get(key, [])
    if len(values) > 1:
        raise Invalid(key, values, "one value")
    return values[0] if values else ""


def needed(request: Request, key: str) -> str:
    """The value of a parameter that must be there. Raises Invalid."""
    value = one(request, key)
    if not value:
        raise Invalid(key, value, "a value")
    return value


def several(request: Request, key: str) -> list[str]:
    """All values of a parameter."""
    return request.query.get(key, [])


def is_set(request: Request, key: str) -> bool:
    """Whether a parameter says yes. Raises Invalid for a word that is neither."""
    value = one(request, key)
    if value not in ("", "0", "1"):
        raise Invalid(key, value, "0 or 1")
    return value == "1"


def absolute_path(request: Request, key: str) -> Path:
    """A path of this node. Raises Invalid."""
    path = Path(one(request, key))
    if not path.is_absolute() or "\0" in str(path):
        raise Invalid(key, str(path), "an absolute path on this node")
    return path


def body(request: Request, kind: type[T]) -> T:
    """The body as a typed value. Raises Invalid; what it says is not shown, since it may be secret."""
    try:
        return msgspec.json.decode(request.body or b"{}", type=kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise Invalid("body", "***", f"JSON of {kind.__name__}") from None


def as_json(value: object, *, status: int = 200) -> Reply:
    """A value as a reply."""
    return Reply(status=status, body=msgspec.json.encode(value), content_type=JSON)
