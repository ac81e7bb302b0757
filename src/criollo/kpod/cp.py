"""`kpod cp`: files between this node and a container, as tar over the daemon's socket; nothing runs in the container."""

import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, NamedTuple

import click
import msgspec

from criollo.aio import threads
from criollo.aio.parcels import ParcelLine, streams_on
from criollo.aio.together import together
from criollo.errors import CriolloError, Damaged, Invalid, Unavailable, printable
from criollo.kpod.ends import OUTPUT, standard_input, standard_output
from criollo.kpod.localfiles import Arriving, Reading, base_of, departure
from criollo.kpod.lookup import everything, require_container
from criollo.kpod.outcome import warn
from criollo.kpod.session import Options, Session, work
from criollo.kpod.upgrade import UpgradeWish, target, upgrade
from criollo.wire.parcels import PROTOCOL, Parcel, ParcelKind
from criollo.workers.landing import Shape
from criollo.workers.messages import Copied

STREAM: Final = "-"
_ROUTE: Final = "/files"


class Side(NamedTuple):
    """One end of a copy; `container` empty: on this node."""

    container: str
    path: str


class Manner(NamedTuple):
    """The flags."""

    follow: bool
    archive: bool


@click.command("cp")
@click.option("-L", "--follow-link", "follow", is_flag=True, help="If SRC is a link, copy what it leads to.")
@click.option(
    "-a", "--archive", is_flag=True, help="Onto the node also what gives rights there: setuid bits, capabilities, devices."
)
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST")
@click.pass_obj
def cp(options: Options, source: str, destination: str, follow: bool, archive: bool) -> int:
    """Copy files; SRC or DST is CONTAINER:/PATH, the other one a path here, or - for a tar on standard input or output.

    A directory's content alone is SRC/. in either place.
    """
    here, there = parse_side(source), parse_side(destination)
    if bool(here.container) == bool(there.container):
        raise click.UsageError(
            "one of SRC and DST must be CONTAINER:/PATH, and only one. 'kpod cp A:/x - | kpod cp - B:/' does both."
        )
    manner = Manner(follow, archive)
    if there.path == STREAM and os.isatty(OUTPUT):
        raise click.UsageError("a tar does not go to a terminal: redirect standard output, or name a file.")

    async def verb(session: Session) -> int:
        return await (_out(session, here, there.path, manner) if here.container else _in(session, here.path, there, manner))

    return work(options, verb)


def parse_side(text: str) -> Side:
    """`CONTAINER:/PATH` or a path of this node; one with a colon in it begins with `/` or `.`. Raises Invalid."""
    if text == STREAM or text.startswith(("/", ".")) or ":" not in text:
        if not text:
            raise Invalid("path", text, "a path, CONTAINER:/PATH or -")
        return Side("", text)
    container, _, path = text.partition(":")
    if not container or not path:
        raise Invalid("path", text, "CONTAINER:/PATH, with both of them")
    return Side(container, path)


async def _out(session: Session, source: Side, path: str, manner: Manner) -> int:
    is_content = source.path.endswith("/.") or source.path == "."
    name = "" if is_content else base_of(source.path)
    query = {"path": source.path, "name": name, "follow": "1" if manner.follow else "0"}
    async with _line(session, source.container, "GET", query) as line:
        if path == STREAM:
            copied = await _to_stream(line)
        else:
            copied = await _to_path(line, Arriving(path, base=name, is_content=is_content, archive=manner.archive))
    return _tell_changed(copied.changed)


async def _to_stream(line: ParcelLine) -> Copied:
    async with standard_output() as sink:
        return await _each(line, sink.write)


async def _to_path(line: ParcelLine, arriving: Arriving) -> Copied:
    try:

        async def write(piece: bytes) -> None:
            await threads.transfers(arriving.write, piece)

        copied = await _each(line, write)
        await threads.transfers(arriving.finish)
    finally:
        arriving.close()
    for name in arriving.skipped:
        warn(f"{name} is a device or FIFO and was left out; --archive copies it")
    return copied


async def _each(line: ParcelLine, write: Callable[[bytes], Awaitable[None]]) -> Copied:
    """Hand every piece on; what the daemon counted. Raises its error."""
    while (parcel := await _receive(line)).kind is ParcelKind.DATA:
        await write(parcel.content)
    return _outcome(parcel)


async def _receive(line: ParcelLine) -> Parcel:
    try:
        return await line.receive()
    except ConnectionError as error:
        raise Unavailable(f"cannot copy: {error}; is the daemon running?") from error


async def _in(session: Session, path: str, destination: Side, manner: Manner) -> int:
    if path == STREAM:
        async with standard_input() as reader:
            return await _send(session, destination, {"shape": Shape.ARCHIVE}, reader.read)
    source = departure(path, follow=manner.follow)
    reading = Reading(source, follow=manner.follow)
    try:

        async def read() -> bytes:
            return await threads.transfers(reading.read)

        await _send(session, destination, {"shape": source.shape, "base": source.base}, read)
    finally:
        reading.close()
    return _tell_changed(reading.changed)


async def _send(session: Session, to: Side, query: dict[str, str], read: Callable[[], Awaitable[bytes]]) -> int:
    async with _line(session, to.container, "POST", {"path": to.path, **query}) as line:

        async def pump() -> None:
            with contextlib.suppress(ConnectionError):  # the daemon has said why, or `hear` finds out that it has not
                while piece := await read():
                    await line.send(ParcelKind.DATA, piece)
                await line.send(ParcelKind.END, b"")

        async def hear() -> None:
            _outcome(await _receive(line))

        await together([hear(), pump()])  # what the daemon says may come early, and ends the sending
    return 0


def _outcome(parcel: Parcel) -> Copied:
    if parcel.kind is ParcelKind.FAILED:
        raise CriolloError(printable(parcel.content.decode("utf-8", "replace")))
    try:
        return msgspec.json.decode(parcel.content, type=Copied)
    except msgspec.DecodeError as error:
        raise Damaged(f"the daemon's answer is malformed: {error}") from error


def _tell_changed(names: object) -> int:
    assert isinstance(names, list | tuple)
    for name in names:
        warn(f"{name} became shorter while it was read; the rest is zeros")
    return 1 if names else 0


@contextlib.asynccontextmanager
async def _line(session: Session, container: str, method: str, query: dict[str, str]) -> AsyncIterator[ParcelLine]:
    found = require_container(await everything(session), container)
    try:
        wish = UpgradeWish(method, target(_ROUTE, {"container": found.id, **query}), PROTOCOL)
    except UnicodeEncodeError as error:
        raise Invalid("path", os.fsencode(query["path"]), "a path in UTF-8") from error
    upgraded = await upgrade(session.socket, wish)
    line = ParcelLine(*streams_on(upgraded.transport, upgraded.first))
    try:
        yield line
    finally:
        line.close()
