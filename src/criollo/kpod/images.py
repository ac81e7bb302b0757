"""The verbs for images on the node: images, rmi, load, save."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from criollo.cri.pb import api_pb2 as pb
from criollo.errors import NotFound, printable
from criollo.kpod import adopt, places
from criollo.kpod.answers import posted
from criollo.kpod.outcome import each_of
from criollo.kpod.pull import status
from criollo.kpod.session import Options, Session, work
from criollo.kpod.spool import spooled
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
@click.option("-f", "--force", is_flag=True, help="Remove containers that use them, too.")
@click.option("-a", "--all", "everything_here", is_flag=True, help="All images that are not pinned.")
@click.option("-i", "--ignore", is_flag=True, help="What is not there is no error.")
@click.argument("images", nargs=-1)
@click.pass_obj
def rmi(options: Options, images: tuple[str, ...], force: bool, everything_here: bool, ignore: bool) -> int:
    """Remove images: a name loses its image, an id all names of it."""
    if bool(images) == everything_here:
        raise click.UsageError("Name images, or say --all.")

    async def verb(session: Session) -> int:
        async def remove(name: str) -> None:
            found = await status(session, name)
            if found is None:
                if ignore:
                    return
                raise NotFound("image", name, "kpod images lists them")
            if force:
                await _remove_users(session, found.id)
            await session.client.image("RemoveImage", pb.RemoveImageRequest(image=pb.ImageSpec(image=name)))
            click.echo(printable(name))

        return await each_of(await _unpinned(session) if everything_here else images, remove)

    return work(options, verb)


async def _unpinned(session: Session) -> list[str]:
    reply = await session.client.image("ListImages", pb.ListImagesRequest())
    return [image.id for image in reply.images if not image.pinned]


async def _remove_users(session: Session, image_id: str) -> None:
    reply = await session.client.runtime("ListContainers", pb.ListContainersRequest())
    for each in reply.containers:
        if image_id in (each.image_id, each.image_ref):
            await session.client.runtime("RemoveContainer", pb.RemoveContainerRequest(container_id=each.id))


@click.command("load")
@click.option("-i", "--input", "source", metavar="FILE|DIR", help="An archive (OCI or docker) or an OCI layout; none: stdin.")
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
    """Load images from an archive or an OCI layout, or from containerd on this node."""
    if containerd is not None:
        return adopt.run(options, containerd, has_archive=bool(source or name), **adoption)
    if any(adoption.values()):
        raise click.UsageError("IMAGES, --namespace, --all, --list and --json go with --from-containerd.")

    async def verb(session: Session) -> int:
        if source is None or source == "-":
            with spooled(sys.stdin.buffer, places.own_directory(session.settings)) as path:
                loaded = await posted(session, "/images/load", _load_query(path, name), kind=Answer)
        else:
            path = Path(source).absolute()
            if not path.exists():
                raise NotFound("archive", source)
            loaded = await posted(session, "/images/load", _load_query(path, name), kind=Answer)
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
        await posted(session, "/images/save", query, kind=Answer)
        return 0

    return work(options, verb)


def _load_query(path: Path, name: str) -> dict[str, str]:
    return {"path": str(path), **({"name": name} if name else {})}


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
