"""The verbs for images on the node: images, rmi, load, save."""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import click
import msgspec

from criollo.cri.pb import api_pb2 as pb
from criollo.errors import NotFound, Unavailable, explain
from criollo.kpod import http, places
from criollo.kpod.outcome import each_of
from criollo.kpod.pull import status
from criollo.kpod.session import Options, Session, work
from criollo.kpod.text import document, short, size, table

FORMATS = ("oci-archive", "docker-archive", "oci-dir")


class Named(msgspec.Struct, frozen=True):
    """An image that was loaded or saved."""

    id: str
    names: list[str] = []


class Answer(msgspec.Struct, frozen=True):
    """What `/images/load` and `/images/save` answer."""

    images: list[Named] = []


@click.command("images")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--digests", is_flag=True, help="Show digests too.")
@click.pass_obj
def images(options: Options, as_json: bool, digests: bool) -> int:
    """List images."""

    async def verb(session: Session) -> int:
        reply = await session.client.image("ListImages", pb.ListImagesRequest())
        found = sorted(reply.images, key=lambda image: (list(image.repo_tags) or ["~"], image.id))
        if as_json:
            click.echo(document([_described(image) for image in found]))
            return 0
        heads = ("REPOSITORY", "TAG", *(("DIGEST",) if digests else ()), "IMAGE ID", "SIZE")
        click.echo(table(heads, [row for image in found for row in _rows(image, digests=digests)]))
        return 0

    return work(options, verb)


@click.command("rmi")
@click.argument("images", nargs=-1, required=True)
@click.pass_obj
def rmi(options: Options, images: tuple[str, ...]) -> int:
    """Remove images: a name loses its image, an id all names of it."""

    async def verb(session: Session) -> int:
        async def remove(name: str) -> None:
            if await status(session, name) is None:
                raise NotFound("image", name, "kpod images lists them")
            await session.client.image("RemoveImage", pb.RemoveImageRequest(image=pb.ImageSpec(image=name)))
            click.echo(name)

        return await each_of(images, remove)

    return work(options, verb)


@click.command("load")
@click.option("-i", "--input", "source", metavar="FILE|DIR", help="An archive (OCI or docker) or an OCI layout; none: stdin.")
@click.option("--name", metavar="REFERENCE", default="", help="The name of an image that brings none.")
@click.pass_obj
def load(options: Options, source: str | None, name: str) -> int:
    """Load images from an archive or an OCI layout."""

    async def verb(session: Session) -> int:
        if source is None or source == "-":
            with _spooled(sys.stdin.buffer, places.own_directory(session.settings)) as path:
                loaded = await _post(session, "/images/load", [("path", str(path)), ("name", name)])
        else:
            path = Path(source).absolute()
            if not path.exists():
                raise NotFound("archive", source)
            loaded = await _post(session, "/images/load", [("path", str(path)), ("name", name)])
        for image in loaded.images:
            for label in image.names or [image.id]:
                click.echo(label)
        return 0

    return work(options, verb)


@click.command("save")
@click.option("-o", "--output", metavar="PATH", required=True, help="The file, or for oci-dir the directory, to write.")
@click.option("--format", "form", type=click.Choice(FORMATS), default=FORMATS[0], show_default=True, help="What to write.")
@click.argument("images", nargs=-1, required=True)
@click.pass_obj
def save(options: Options, output: str, form: str, images: tuple[str, ...]) -> int:
    """Write images to an archive that other tools read."""

    async def verb(session: Session) -> int:
        query = [("path", os.path.abspath(output)), ("format", form), *(("image", name) for name in images)]
        await _post(session, "/images/save", query)
        return 0

    return work(options, verb)


async def _post(session: Session, path: str, query: list[tuple[str, str]]) -> Answer:
    raw = await http.post(session.socket, path, [(key, value) for key, value in query if value])
    try:
        return msgspec.json.decode(raw, type=Answer)
    except msgspec.MsgspecError as error:
        raise Unavailable(f"the runtime's answer to {path} cannot be read: {error}") from error


@contextlib.contextmanager
def _spooled(stream: IO[bytes], directory: Path) -> Iterator[Path]:
    """A stream in a file that the daemon can read, gone with the block."""
    if stream.isatty():
        raise click.UsageError("Nothing to load: name a file with -i, or pipe an archive in.")
    with explain(f"write standard input below {directory}"), tempfile.NamedTemporaryFile(dir=directory, prefix="load-") as file:
        shutil.copyfileobj(stream, file, 1 << 20)
        file.flush()
        yield Path(file.name)


def _rows(image: pb.Image, *, digests: bool) -> Iterator[tuple[str, ...]]:
    names = list(image.repo_tags) or ["<none>:<none>"]
    by_name = {each.partition("@")[0]: each.partition("@")[2] for each in image.repo_digests}
    for name in names:
        repository, _, tag = name.rpartition(":")
        if name == "<none>:<none>" and by_name:
            repository = next(iter(by_name))
        digest = (by_name.get(repository, "<none>"),) if digests else ()
        yield (repository, tag, *digest, short(image.id), size(image.size))


def _described(image: pb.Image) -> dict[str, object]:
    return {
        "id": image.id,
        "names": list(image.repo_tags),
        "digests": list(image.repo_digests),
        "size_bytes": image.size,
        "user": image.username or (str(image.uid.value) if image.HasField("uid") else ""),
        "pinned": image.pinned,
    }
