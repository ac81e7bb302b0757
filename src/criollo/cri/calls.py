"""What every call goes through: request id, debug log without secrets, deadline, error mapping.

`answer` and `answers` are the border of a request: nothing but `Refused` and cancellation leaves them. A client that hangs
up cancels its request; the jobs of the domain that it had joined run on.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any

import msgspec
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from criollo.cri.errors import Code, Refused, bug, refusal
from criollo.errors import CriolloError
from criollo.telemetry.log import context, get_logger

log = get_logger(__name__)

Reply = Message | bytes  # bytes: a message somebody has encoded already
Handler = Callable[[Any], Awaitable[Reply]]
StreamHandler = Callable[[Any], AsyncGenerator[Reply, None]]

SHOWN_CHARACTERS = 4000
SHOWN_DEPTH = 12


class Method(msgspec.Struct, frozen=True):
    """A method of a service and who answers it; None: nobody yet."""

    service: str
    name: str
    request_type: type[Message]
    reply_type: type[Message]
    streams: bool
    handler: Any  # Handler, StreamHandler where `streams`, or None

    @property
    def path(self) -> str:
        return f"/{self.service}/{self.name}"


Observer = Callable[[str, float, Code], None]


class Calls:
    """Runs handlers. `observe` is told method, seconds and code of every call that ended (metrics)."""

    def __init__(self, observe: Observer | None = None) -> None:
        self._observe = observe

    async def answer(self, method: Method, body: bytes, deadline: float | None) -> bytes:
        """One request, one reply. `deadline` is a time of the loop. Raises Refused."""
        with self._border(method):
            request = _decode(method, body)
            async with _within(deadline, method.name):
                reply = await method.handler(request)
            return _encode(method, reply)

    async def answers(self, method: Method, body: bytes, deadline: float | None) -> AsyncGenerator[bytes, None]:
        """One request, replies as the handler makes them. Raises Refused."""
        with self._border(method):
            request = _decode(method, body)
            async with _within(deadline, method.name), aclosing(method.handler(request)) as replies:
                async for reply in replies:
                    yield _encode(method, reply)

    @contextmanager
    def _border(self, method: Method) -> Iterator[None]:
        fields: Mapping[str, object] = {"id": str(uuid.uuid4()), "name": method.path}
        context.set(fields)
        started, code = time.monotonic(), Code.CANCELLED
        try:
            yield
            code = Code.OK
        except Refused as refused:
            code = refused.code
            raise
        except CriolloError as error:
            told = refusal(error, method.name)
            code = told.code
            log.debug("call failed", code=code.name, error=error)
            raise told from error
        except (asyncio.CancelledError, GeneratorExit):
            log.debug("call cancelled by its client")
            raise
        except Exception as error:  # the border of a request: a bug of ours, told once, with its number
            told = bug()
            code = told.code
            log.exception("call failed by a bug", error=told.text)
            raise told from error
        finally:
            if self._observe:
                self._observe(method.name, time.monotonic() - started, code)


@asynccontextmanager
async def _within(deadline: float | None, name: str) -> AsyncIterator[None]:
    """`asyncio.timeout_at` that knows its own expiry from a TimeoutError of the handler's making."""
    try:
        async with asyncio.timeout_at(deadline) as timer:
            yield
    except TimeoutError as error:
        if timer.expired():
            notes = getattr(error.__cause__, "__notes__", ())  # which job was waited for, and where it is (aio.jobs)
            text = "; ".join((f"{name} did not finish before the caller's deadline", *notes))
            raise Refused(Code.DEADLINE_EXCEEDED, text) from error
        raise


def _decode(method: Method, body: bytes) -> Message:
    try:
        request = method.request_type.FromString(body)
    except (DecodeError, RecursionError) as error:
        kind = method.request_type.DESCRIPTOR.name
        raise Refused(Code.INVALID_ARGUMENT, f"cannot decode {kind}: malformed or nested too deeply") from error
    if log.is_debug:
        log.debug("Request", body=f"*v1.{show(request)}")
    return request


def _encode(method: Method, reply: Reply) -> bytes:
    if isinstance(reply, bytes):
        if log.is_debug:
            log.debug("Response", body=f"*v1.{method.reply_type.DESCRIPTOR.name}: {len(reply)} bytes")
        return reply
    if log.is_debug:
        log.debug("Response", body=f"*v1.{_brief(reply) if method.name.startswith(('List', 'Stream')) else show(reply)}")
    return reply.SerializeToString()


def show(message: Message) -> str:
    """`TypeName: field:value …` of a message, bounded, values marked debug_redact as ***."""
    parts: list[str] = []
    _walk(message, parts, 0)
    text = " ".join(parts)
    if len(text) > SHOWN_CHARACTERS:
        text = text[:SHOWN_CHARACTERS] + " …"
    return f"{message.DESCRIPTOR.name}: {text}"


def _brief(reply: Message) -> str:
    counts = [f"{field.name}:{len(value)} items" for field, value in reply.ListFields() if field.is_repeated]
    return f"{reply.DESCRIPTOR.name}: {' '.join(counts)}"


def _walk(message: Message, parts: list[str], depth: int) -> None:
    for field, value in message.ListFields():
        if len(parts) * 4 > SHOWN_CHARACTERS or depth > SHOWN_DEPTH:
            parts.append("…")
            return
        if field.GetOptions().debug_redact:
            parts.append(f"{field.name}:***")
        elif field.message_type is not None and field.message_type.GetOptions().map_entry:
            parts.append(f"{field.name}:{_pairs(value)}")
        elif field.is_repeated:
            _items(field, value, parts, depth)
        elif field.message_type is not None:
            _nested(field.name, value, parts, depth)
        else:
            parts.append(f"{field.name}:{_scalar(field, value)}")


def _items(field: FieldDescriptor, values: Any, parts: list[str], depth: int) -> None:
    for value in values[:20]:
        if field.message_type is not None:
            _nested(field.name, value, parts, depth)
        else:
            parts.append(f"{field.name}:{_scalar(field, value)}")
    if len(values) > 20:
        parts.append(f"{field.name}:({len(values)} in all)")


def _nested(name: str, value: Message, parts: list[str], depth: int) -> None:
    parts.append(f"{name}:{{")
    _walk(value, parts, depth + 1)
    parts.append("}")


def _scalar(field: FieldDescriptor, value: Any) -> str:
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else str(value)
    if isinstance(value, bytes):
        return f"({len(value)} bytes)"
    return value[:400] if isinstance(value, str) else str(value)


def _pairs(values: Mapping[str, Any]) -> str:
    shown = list(values.items())[:50]
    return "{" + ",".join(f"{str(key)[:200]}:{str(value)[:200]}" for key, value in shown) + "}"
