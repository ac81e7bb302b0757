"""A verb for several objects: each is tried, each failure is told, and the exit status says whether all went well."""

from collections.abc import Awaitable, Callable, Iterable

import click

from criollo.errors import CriolloError, printable


async def each_of(names: Iterable[str], work: Callable[[str], Awaitable[None]]) -> int:
    """Do `work` for every name in order; 1 when one failed, else 0."""
    status = 0
    for name in names:
        try:
            await work(name)
        except CriolloError as error:
            tell(str(error))
            status = 1
    return status


def tell(message: str) -> None:
    """One line on standard error."""
    click.echo(f"kpod: {printable(message)}", err=True)


def warn(message: str) -> None:
    """A warning on standard error."""
    click.echo(f"kpod: warning: {printable(message)}", err=True)
