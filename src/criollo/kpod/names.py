"""The verbs for names of images: tag, untag."""

import click
import msgspec

from criollo.errors import printable
from criollo.kpod.answers import posted
from criollo.kpod.session import Options, Session, work


class Names(msgspec.Struct, frozen=True):
    """What `/images/tag` and `/images/untag` answer."""

    names: list[str] = []


@click.command("tag")
@click.argument("image")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.pass_obj
def tag(options: Options, image: str, names: tuple[str, ...]) -> int:
    """Give IMAGE further names. A name that another image has moves to this one."""

    async def verb(session: Session) -> int:
        query = [("image", image), *(("name", name) for name in names)]
        for name in (await posted(session, "/images/tag", query, kind=Names)).names:
            click.echo(printable(name))
        return 0

    return work(options, verb)


@click.command("untag")
@click.argument("image")
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.pass_obj
def untag(options: Options, image: str, names: tuple[str, ...]) -> int:
    """Take names from IMAGE, or all its tags; the image stays."""

    async def verb(session: Session) -> int:
        query = [("image", image), *(("name", name) for name in names)]
        for name in (await posted(session, "/images/untag", query, kind=Names)).names:
            click.echo(printable(name))
        return 0

    return work(options, verb)
