"""The verbs for images in files: load, save."""

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from criollo.aio.parcels import ParcelLine, streams_on
from criollo.errors import CriolloError, Unavailable, printable
from criollo.kpod import adopt, places
from criollo.kpod.answers import posted
from criollo.kpod.ends import OUTPUT, standard_output
from criollo.kpod.outcome import warn
from criollo.kpod.session import Options, Session, work
from criollo.kpod.spool import named, spooled
from criollo.kpod.upgrade import UpgradeWish, target, upgrade
from criollo.wire.parcels import PROTOCOL, Parcel, ParcelKind

STREAM: Final = "-"
ARCHIVES: Final = ("oci-archive", "docker-archive")
FORMATS: Final = (*ARCHIVES, "oci-dir", "dir")


class Named(msgspec.Struct, frozen=True):
    """An image that was loaded or saved."""

    id: str
    names: list[str] = []
    note: str = ""


class Answer(msgspec.Struct, frozen=True):
    """What `/images/load` and `/images/save` answer."""

    images: list[Named] = []


@click.command("load")
@click.option(
    "-i", "--input", "source", metavar="FILE|DIR", help="An archive (OCI or docker), an OCI layout or a dir; none: stdin."
)
@click.option("--name", metavar="REFERENCE", default="", help="The name of an image that brings none.")
@click.option(
    "--from-containerd",
    "containerd",
    metavar="[ROOT]",
    is_flag=False,
    flag_value="",
    help="Take IMAGES over from containerd on this node; ROOT is its root where that is not /var/lib/containerd.",
)
@click.option("--namespace", "namespaces", metavar="NAME", multiple=True, help="Of containerd; none: k8s.io and default.")
@click.option("--all", "everything", is_flag=True, help="All images that containerd has.")
@click.option("--list", "listing", is_flag=True, help="Only list what containerd has.")
@click.option("--json", "as_json", is_flag=True, help="List as JSON.")
@click.argument("images", nargs=-1)
@click.pass_obj
def load(options: Options, /, *, source: str | None, name: str, containerd: str | None, **adoption: Any) -> int:
    """Load images from an archive, an OCI layout or a dir, or from containerd on this node."""
    if containerd is not None:
        return adopt.run(options, containerd, has_archive=bool(source or name), **adoption)
    if any(adoption.values()):
        raise click.UsageError("IMAGES, --namespace, --all, --list and --json go with --from-containerd; -i names a file.")

    async def verb(session: Session) -> int:
        if source is None or source == STREAM:
            async with spooled(places.spool_directory(session.settings)) as path:
                loaded = await posted(session, "/images/load", _load_query(path, name), kind=Answer)
        else:
            path = named(source.removeprefix("dir:"), "archive")
            loaded = await posted(session, "/images/load", _load_query(path, name), kind=Answer)
        for image in loaded.images:
            for label in image.names or [image.id]:
                click.echo(label)
        return 0

    return work(options, verb)


@click.command("save")
@click.option(
    "-o", "--output", metavar="PATH|-", default=STREAM, help="The file or directory to write; -, or none: standard output."
)
@click.option("--format", "form", type=click.Choice(FORMATS), default=FORMATS[0], show_default=True, help="What to write.")
@click.argument("images", nargs=-1, required=True)
@click.pass_obj
def save(options: Options, output: str, form: str, images: tuple[str, ...]) -> int:
    """Write images to an archive that other tools read."""
    if not output:
        raise click.UsageError("--output wants a path, or - for standard output.")
    if output == STREAM and form not in ARCHIVES:
        raise click.UsageError(f"{form} is a directory: say which by --output.")
    if output == STREAM and os.isatty(OUTPUT):
        raise click.UsageError("an archive does not go to a terminal: redirect standard output, or name a file by --output.")

    async def verb(session: Session) -> int:
        query = [("format", form), *(("image", name) for name in images)]
        if output == STREAM:
            await _stream(session, query)
        else:
            show_notes(await posted(session, "/images/save", [("path", os.path.abspath(output)), *query], kind=Answer))
        return 0

    return work(options, verb)


def show_notes(saved: Answer) -> None:
    """Tell what the runtime has to say of images that it saved."""
    for image in saved.images:
        if image.note:
            warn(image.note)


async def _stream(session: Session, query: list[tuple[str, str]]) -> None:
    """Write the archive to standard output.

    Raises:
        CriolloError: the runtime says why not; then what was written is no archive.
        BrokenPipeError: nobody reads it any more.
    """
    async with _line(session, query) as line, standard_output() as sink:
        while (parcel := await _next(line)).kind is ParcelKind.DATA:
            await sink.write(parcel.content)
        if parcel.kind is ParcelKind.FAILED:
            raise CriolloError(printable(parcel.content.decode("utf-8", "replace")))


async def _next(line: ParcelLine) -> Parcel:
    try:
        return await line.receive()
    except ConnectionError as error:
        raise Unavailable(f"cannot save: {error}; is the daemon running?") from error


@contextlib.asynccontextmanager
async def _line(session: Session, query: list[tuple[str, str]]) -> AsyncIterator[ParcelLine]:
    upgraded = await upgrade(session.socket, UpgradeWish("GET", target("/saved", query), PROTOCOL))
    line = ParcelLine(*streams_on(upgraded.transport, upgraded.first))
    try:
        yield line
    finally:
        line.close()


def _load_query(path: Path, name: str) -> dict[str, str]:
    return {"path": str(path), **({"name": name} if name else {})}
