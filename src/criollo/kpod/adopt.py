"""`kpod load --from-containerd`: images that containerd on this node has, listed or taken over."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import click
import msgspec

from criollo.errors import NotFound, printable
from criollo.kpod.answers import got, posted
from criollo.kpod.session import Options, Session, work
from criollo.kpod.text import document, short, table

ROUTE = "/images/containerd"


class Wanted(NamedTuple):
    """What the command line says: empty values where it says nothing."""

    root: str = ""
    namespaces: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    everything: bool = False


class Found(msgspec.Struct, frozen=True):
    """An image of containerd; `missing` says why it cannot be taken over."""

    namespace: str
    digest: str
    names: list[str] = []
    missing: str = ""


class Listing(msgspec.Struct, frozen=True):
    """What `GET /images/containerd` answers."""

    images: list[Found] = []


class Named(msgspec.Struct, frozen=True):
    """An image that was taken over."""

    id: str
    names: list[str] = []


class Adopted(msgspec.Struct, frozen=True):
    """What `POST /images/containerd` answers."""

    images: list[Named] = []
    failed: dict[str, str] = {}


def read_wanted(value: str, words: Sequence[str], *, namespaces: Sequence[str], everything: bool) -> Wanted:
    """The command line's meaning. The value of the option is optional: one that is no absolute path is an image's name."""
    root, names = (value, tuple(words)) if value.startswith("/") else ("", (*((value,) if value else ()), *words))
    return Wanted(root, tuple(namespaces), names, everything)


def run(options: Options, value: str, *, has_archive: bool, as_json: bool, listing: bool, **words: Any) -> int:
    """`kpod load --from-containerd`; the rest of `words` are those of `Wanted`. Returns the exit status."""
    if has_archive:
        raise click.UsageError("-i and --name are for archives, not for containerd.")
    wanted = read_wanted(value, words["images"], namespaces=words["namespaces"], everything=words["everything"])
    return show(options, wanted, as_json=as_json) if listing else take(options, wanted)


def show(options: Options, wanted: Wanted, *, as_json: bool) -> int:
    """List what containerd has; returns the exit status."""

    async def verb(session: Session) -> int:
        found = (await got(session, ROUTE, _query(wanted), kind=Listing)).images
        if as_json:
            click.echo(document([msgspec.to_builtins(each) for each in found]))
            return 0
        rows = [
            (each.namespace, name, short(each.digest), each.missing or "whole")
            for each in found
            for name in each.names or ["<none>"]
        ]
        click.echo(table(("NAMESPACE", "IMAGE", "DIGEST", "STATE"), rows))
        return 0

    return work(options, verb)


def take(options: Options, wanted: Wanted) -> int:
    """Take images over; returns the exit status: 1 when one of them could not be."""
    if not wanted.names and not wanted.everything:
        raise click.UsageError("Say which images, or --all; --list shows them.")
    if wanted.names and wanted.everything:
        raise click.UsageError("Name images or say --all, not both.")

    async def verb(session: Session) -> int:
        query = [*_query(wanted), *(("image", name) for name in wanted.names), *((("all", "1"),) if wanted.everything else ())]
        adopted = await posted(session, ROUTE, query, kind=Adopted)
        for image in adopted.images:
            for label in image.names or [image.id]:
                click.echo(label)
        for name, why in adopted.failed.items():
            click.echo(f"kpod: cannot load {printable(name)}: {printable(why)}", err=True)
        if not adopted.images and not adopted.failed:
            raise NotFound("image", "of containerd", f"it has none in {', '.join(wanted.namespaces) or 'its namespaces'}")
        return 1 if adopted.failed else 0

    return work(options, verb)


def _query(wanted: Wanted) -> list[tuple[str, str]]:
    return [*((("root", wanted.root),) if wanted.root else ()), *(("namespace", each) for each in wanted.namespaces)]
