"""`kpod import`: a root filesystem as a tar becomes an image."""

import contextlib

import click
import msgspec

from criollo.errors import Invalid
from criollo.kpod import places
from criollo.kpod.answers import posted
from criollo.kpod.archives import Answer
from criollo.kpod.session import Options, Session, work
from criollo.kpod.spool import named, spooled


@click.command("import")
@click.option("-c", "--change", "changes", multiple=True, metavar="WORD VALUE", help="Set the config, as a Dockerfile would.")
@click.option("-m", "--message", default="", metavar="TEXT", help="A comment for the history.")
@click.option("--platform", default="", metavar="OS/ARCH[/VARIANT]", help="What it runs on; none: this node.")
@click.argument("source", metavar="FILE|-")
@click.argument("name", required=False, default="", metavar="[NAME]")
@click.pass_obj
def import_(options: Options, /, source: str, name: str, changes: tuple[str, ...], **further: str) -> int:
    """Make an image of a tar of a root filesystem, plain or compressed, and print its id.

    --change takes CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME and WORKDIR, again and again.
    """
    try:
        body = msgspec.json.encode({"changes": changes, **further})
    except UnicodeEncodeError:
        raise Invalid("--change or --message", [*changes, further["message"]], "text that is UTF-8") from None

    async def verb(session: Session) -> int:
        async with contextlib.AsyncExitStack() as opened:
            if source == "-":
                path = await opened.enter_async_context(spooled(places.spool_directory(session.settings), wanted="a tar"))
            else:
                path = named(source, "file")
            query = {"path": str(path), **({"name": name} if name else {})}
            made = await posted(session, "/images/import", query, kind=Answer, body=body)
        for image in made.images:
            click.echo(image.id)
        return 0

    return work(options, verb)
