"""Typed answers of the runtime's HTTP face."""

from typing import TypeVar

import msgspec

from criollo.errors import Unavailable
from criollo.kpod import http
from criollo.kpod.session import Session

T = TypeVar("T")


async def got(session: Session, path: str, query: http.Query = (), *, kind: type[T]) -> T:
    """What GET answers. Raises as `http.post`, and Unavailable for an answer of another shape."""
    return decoded(await http.get(session.socket, path, query), kind, path)


async def posted(session: Session, path: str, query: http.Query = (), *, kind: type[T], body: bytes = b"") -> T:
    """What POST answers. Raises as `got`."""
    return decoded(await http.post(session.socket, path, query, body=body), kind, path)


def decoded(raw: bytes, kind: type[T], path: str) -> T:
    """An answer as a typed value. Raises Unavailable."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Unavailable(f"the runtime's answer to {path} cannot be read: {error}") from error
