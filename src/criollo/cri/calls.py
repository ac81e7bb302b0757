"""What every call goes through: request id, debug log without secrets, deadline, error mapping.

`answer` and `answers` are the border of a request: nothing but `Refused` and cancellation leaves them. A client that hangs
up cancels its request; the jobs of the domain that it had joined run on.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import msgspec
from google.protobuf.message import DecodeError, Message

from criollo.cri.errors import Code, Refused, bug, refusal
from criollo.errors import CriolloError
from criollo.telemetry import hooks
from criollo.telemetry.log import context, get_logger
from criollo.telemetry.trail import CALL, Trail

if TYPE_CHECKING:
    from google.protobuf.descriptor import FieldDescriptor

log = get_logger(__name__)

Reply = Message | bytes  # bytes: a message somebody has encoded already
Handler = Callable[[Any], Awaitable[Reply]] | Callable[[Any], Reply]  # the plain kind answers from memory, in microseconds
StreamHandler = Callable[[Any], AsyncGenerator[Reply, None]]

SHOWN_CHARACTERS = 4000
SHOWN_DEPTH = 12

_ID_BEGINS: Final = str(uuid.uuid4())[:24]  # ids of calls look like any UUID; their last part counts
_NUMBERS: Final = count(1)


def after(refresh: Callable[[], Awaitable[None]], handler: Callable[[Any], Reply]) -> Handler:
    """A handler that answers when `refresh` is done."""

    async def answer(request: Any) -> Reply:
        await refresh()
        return handler(request)

    return answer


class Method(msgspec.Struct, frozen=True):
    """A method of a service and who answers it; None: nobody yet."""

    service: str
    name: str
    request_type: type[Message]
    reply_type: type[Message]
    streams: bool
    handler: Any  # Handler, StreamHandler where `streams`, or None
    is_plain: bool = False  # the handler is no coroutine: it answers at once, from memory

    @property
    def path(self) -> str:
        return f"/{self.service}/{self.name}"


Observer = Callable[[str, float, Code], None]


class Calls:
    """Runs handlers. `observe` is told method, seconds and code of every call that ended (metrics)."""

    def __init__(self, observe: Observer | None = None) -> None:
        self._observe = observe

    def answer_at_once(self, method: Method, body: bytes) -> bytes:
        """One request, one reply, of a method whose handler is plain; needs no task. Raises Refused."""
        with _Border(method, self._observe):
            return _encode(method, method.handler(_decode(method, body)))

    async def answer(self, method: Method, body: bytes, deadline: float | None) -> bytes:
        """One request, one reply. `deadline` is a time of the loop. Raises Refused."""
        if method.is_plain:
            return self.answer_at_once(method, body)
        with _Border(method, self._observe):
            request = _decode(method, body)
            async with _within(deadline, method.name):
                reply = await method.handler(request)
            return _encode(method, reply)

    async def answers(self, method: Method, body: bytes, deadline: float | None) -> AsyncGenerator[bytes, None]:
        """One request, replies as the handler makes them. Raises Refused."""
        with _Border(method, self._observe):
            request = _decode(method, body)
            async with _within(deadline, method.name), aclosing(method.handler(request)) as replies:
                async for reply in replies:
                    yield _encode(method, reply)


class _Border:
    """Gives a call its id in the log, and lets nothing but `Refused` and cancellation out."""

    __slots__ = ("_method", "_observe", "_outside", "_started", "_trail")

    def __init__(self, method: Method, observe: Observer | None) -> None:
        self._method, self._observe = method, observe

    def __enter__(self) -> None:
        self._outside = context.get()  # a call that is answered at once shares the context of its connection
        context.set({"id": f"{_ID_BEGINS}{next(_NUMBERS):012x}", "name": self._method.path})
        self._started = time.monotonic() if self._observe else 0.0
        self._trail = None if hooks.tracer is None else Trail(CALL, self._method.path).__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        code, told = Code.OK, None
        try:
            if error is not None:
                code, told = self._judge(error)
        finally:
            context.set(self._outside)
            if self._trail is not None:
                self._trail.__exit__(None, told or error, None)
            if self._observe:
                self._observe(self._method.name, time.monotonic() - self._started, code)
        if told is not None:
            raise told from error

    def _judge(self, error: BaseException) -> tuple[Code, Refused | None]:
        """The code for an end that is not a good one, and what to raise instead of the error, if anything."""
        if isinstance(error, Refused):
            return error.code, None
        if isinstance(error, CriolloError):
            told = refusal(error, self._method.name)
            log.debug("call failed", code=told.code.name, error=error)
            return told.code, told
        if not isinstance(error, Exception) or isinstance(error, asyncio.CancelledError):
            log.debug("call cancelled by its client")
            return Code.CANCELLED, None
        told = bug()  # of ours, told once, with its number
        log.exception("call failed by a bug", error=told.text)  # noqa: LOG004 `__exit__` runs while the error is handled
        return told.code, told


@asynccontextmanager
async def _within(deadline: float | None, name: str) -> AsyncIterator[None]:
    """`asyncio.timeout_at` that knows its own expiry from a TimeoutError of the handler's making."""
    try:
        async with asyncio.timeout_at(deadline) as timer:
            yield
    except TimeoutError as error:
        if timer.expired():
            notes = getattr(error.__context__, "__notes__", ())  # which job, and where it is (aio.jobs)
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
    if log.is_debug:
        shown = method.reply_type.FromString(reply) if isinstance(reply, bytes) else reply
        is_list = isinstance(reply, bytes) or method.name.startswith(("List", "Stream"))
        log.debug("Response", body=f"*v1.{_brief(shown) if is_list else show(shown)}")
    return reply if isinstance(reply, bytes) else reply.SerializeToString()


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


def _items(field: "FieldDescriptor", values: Any, parts: list[str], depth: int) -> None:
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


def _scalar(field: "FieldDescriptor", value: Any) -> str:
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else str(value)
    if isinstance(value, bytes):
        return f"({len(value)} bytes)"
    return value[:400] if isinstance(value, str) else str(value)


def _pairs(values: Mapping[str, Any]) -> str:
    shown = list(values.items())[:50]
    return "{" + ",".join(f"{str(key)[:200]}:{str(value)[:200]}" for key, value in shown) + "}"
