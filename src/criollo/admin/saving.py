"""Images as an archive on an upgraded connection (`wire.parcels`): what `kpod save` asks for when it writes to a pipe.

    GET /saved?image=NAME…[&format=oci-archive|docker-archive]      with `Connection: Upgrade` and `Upgrade: criollo-files`

What makes no sense is an ordinary HTTP error. The archive is whole before its first byte is sent, so a reader may take its time
and holds no worker up; one that hangs up ends the work.
"""

import asyncio
import os
from collections.abc import Sequence
from typing import Final

from criollo.admin import parameters
from criollo.aio import threads
from criollo.aio.http_server import Reply, Request, text
from criollo.aio.parcels import READ_BYTES, ParcelLine, streams_on
from criollo.aio.together import first
from criollo.errors import CriolloError, Invalid, explain
from criollo.images.context import Images
from criollo.images.save import ARCHIVES, Shape, archived
from criollo.images.tag import known
from criollo.telemetry.log import get_logger
from criollo.wire.parcels import PROTOCOL, ParcelKind

log = get_logger(__name__)

ROUTE: Final = "/saved"
_SWITCHING: Final = f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {PROTOCOL}\r\n\r\n".encode()
_FAREWELL_S: Final = 10.0  # for a client to notice that we have ended


async def serve_saved(images: Images, request: Request, transport: asyncio.Transport) -> Reply | None:
    """The upgrade route; for the socket of this node only."""
    if request.path != ROUTE or request.method != "GET":
        return text(404, f"there is nothing at {request.path[:200]}")
    if request.headers.get("upgrade", "").lower() != PROTOCOL:
        return Reply(status=426, body=b"archives travel on an upgraded connection\n", headers=(("upgrade", PROTOCOL),))
    names, form = parameters.several(request, "image"), parameters.one(request, "format") or ARCHIVES[0]
    if not names:
        raise Invalid("image", "", "at least one image")
    if form not in ARCHIVES:
        raise Invalid("format", form, " or ".join(ARCHIVES))
    for name in names:
        known(images, name)
    transport.write(_SWITCHING)
    line = ParcelLine(*streams_on(transport))
    try:
        await first(_send(images, line, names, Shape(form)), line.gone())
    except ConnectionError as error:
        log.debug("client of a save went away", cause=error)
    finally:
        line.close()
    return None


async def _send(images: Images, line: ParcelLine, names: Sequence[str], shape: Shape) -> None:
    try:
        async with archived(images, names, shape) as archive:
            while piece := await threads.files(_read, archive):
                await line.send(ParcelKind.DATA, piece)
        await line.send(ParcelKind.END, b"")
    except CriolloError as error:
        await line.send(ParcelKind.FAILED, str(error).encode("utf-8", "replace"))
    # A socket that is closed with unread bytes may take our last words along: the client closes first.
    await asyncio.sleep(_FAREWELL_S)


def _read(archive: int) -> bytes:
    with explain("read an archive"):
        return os.read(archive, READ_BYTES)
