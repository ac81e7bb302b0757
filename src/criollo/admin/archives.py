"""Files out of containers and into them, as parcels on an upgraded connection (`wire.parcels`): what `kpod cp` asks for.

    GET  /files?container=ID&path=PATH&name=NAME[&follow=1]      what PATH has, as a tar
    POST /files?container=ID&path=PATH&shape=SHAPE[&base=NAME]   a tar to PATH; shapes are those of `workers.landing`

With `Connection: Upgrade` and `Upgrade: criollo-files`. What can be refused at once is an ordinary HTTP error.
"""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from criollo.aio.http_server import Reply, Request, text
from criollo.aio.parcels import ParcelLine, streams_on
from criollo.aio.streams import FdReader, FdWriter
from criollo.aio.together import first
from criollo.containers.context import Containers
from criollo.containers.files import CopySource, copy_in, copy_out
from criollo.containers.status import find_container
from criollo.errors import CriolloError, Invalid
from criollo.telemetry.log import get_logger
from criollo.wire.parcels import PROTOCOL, ParcelKind
from criollo.workers.landing import Shape

log = get_logger(__name__)

ROUTE: Final = "/files"
_FAREWELL_S: Final = 10.0  # for a client to notice that we have ended
_SWITCHING: Final = f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {PROTOCOL}\r\n\r\n".encode()

_Work = Callable[[ParcelLine], Awaitable[None]]


async def serve_files(containers: Containers, request: Request, transport: asyncio.Transport) -> Reply | None:
    """The upgrade route; for the socket of this node only."""
    if request.path != ROUTE:
        return text(404, f"there is nothing at {request.path[:200]}")
    if request.headers.get("upgrade", "").lower() != PROTOCOL:
        return Reply(status=426, body=b"files travel on an upgraded connection\n", headers=(("upgrade", PROTOCOL),))
    work = _sending(containers, request) if request.method == "GET" else _receiving(containers, request)
    transport.write(_SWITCHING)
    line = ParcelLine(*streams_on(transport))
    try:
        await _serve(line, work)
    except ConnectionError as error:
        log.debug("client of a copy went away", cause=error)
    finally:
        line.close()
    return None


async def _serve(line: ParcelLine, work: _Work) -> None:
    try:
        await work(line)
    except CriolloError as error:
        await line.send(ParcelKind.FAILED, str(error).encode("utf-8", "replace"))
    # A socket that is closed with unread bytes may take our last words along.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_FAREWELL_S):
            await line.gone()


def _sending(containers: Containers, request: Request) -> _Work:
    container_id = find_container(containers, _one(request, "container")).id
    path, name, follow = _one(request, "path"), _one(request, "name"), _one(request, "follow") == "1"
    if name.startswith("/") or ".." in name.split("/"):
        raise Invalid("name", name, "a name below a directory")

    async def pump(line: ParcelLine) -> None:
        async with copy_out(containers, container_id, path, name=name, follow=follow) as job:
            source = FdReader(os.dup(job.pipe_fd))
            try:
                while piece := await source.read():
                    await line.send(ParcelKind.DATA, piece)
            finally:
                source.close()
            copied = await job.result()
        await line.send(ParcelKind.END, msgspec.json.encode(copied))

    async def work(line: ParcelLine) -> None:
        await first(pump(line), line.gone())

    return work


def _receiving(containers: Containers, request: Request) -> _Work:
    container_id = find_container(containers, _one(request, "container")).id
    path, shape, base = _one(request, "path"), _one(request, "shape"), _one(request, "base")
    if shape not in list(Shape):
        raise Invalid("shape", shape, " or ".join(Shape))
    if base in (".", "..") or "/" in base or "\0" in base or (not base and shape in (Shape.FILE, Shape.DIRECTORY)):
        raise Invalid("base", base, "the last name of the source")

    async def work(line: ParcelLine) -> None:
        async with copy_in(containers, container_id, path, CopySource(Shape(shape), base)) as job:
            sink = FdWriter(os.dup(job.pipe_fd))
            try:
                while (parcel := await line.receive()).kind is ParcelKind.DATA:
                    await sink.write(parcel.content)
            finally:
                await sink.close()
            if parcel.kind is ParcelKind.FAILED:
                raise CriolloError("the client gave up; what it had sent is there")
            copied = await job.result()
        await line.send(ParcelKind.END, msgspec.json.encode(copied))

    return work


def _one(request: Request, key: str) -> str:
    values = request.query.get(key, [])
    if len(values) > 1:
        raise Invalid(key, values, "one value")
    return values[0] if values else ""
