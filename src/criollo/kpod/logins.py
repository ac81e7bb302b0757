"""`kpod login` and `kpod logout`: credentials for registries in auth.json, as podman keeps them. They need no daemon."""

import asyncio
import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from criollo.errors import Invalid, NotFound, printable
from criollo.kpod.access import Access, cert_dir_option, directory_of, terms_of, tls_verify_option
from criollo.kpod.remoteimage import opened_registry
from criollo.kpod.session import Options, load_settings
from criollo.telemetry import log

if TYPE_CHECKING:
    from criollo.registry.keeping import Place

_LONGEST = 64 << 10
T = TypeVar("T")


@click.command("login")
@click.option("-u", "--username", default="", metavar="USER", help="Who; none: asked for.")
@click.option(
    "-p", "--password", metavar="PASSWORD", help="Others can see it in the list of processes: better --password-stdin."
)
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option(
    "--authfile", default="", metavar="FILE", help="The file to write; none: see REGISTRY_AUTH_FILE, else the user's."
)
@tls_verify_option
@cert_dir_option
@click.option("--get-login", is_flag=True, help="Only tell who is logged in.")
@click.argument("registry")
@click.pass_obj
def login(options: Options, /, registry: str, username: str, get_login: bool, **said: Any) -> int:
    """Check credentials with REGISTRY, which is HOST[:PORT][/NAMESPACE], and keep them for pulls and pushes."""
    from criollo.registry.auth import Credentials
    from criollo.registry.keeping import check, keep, place_of

    log.set_up(options.log_level)
    place, path = place_of(registry), auth_file(said["authfile"])
    if get_login:
        return asyncio.run(_tell(path, place))
    access = Access(tls_verify=said["tls_verify"], cert_dir=directory_of(said["cert_dir"]))
    user = username or click.prompt("Username", err=True)
    credentials = Credentials(username=user, password=_password(said["password"], is_piped=said["password_stdin"]))
    if ":" in user:
        raise Invalid("--username", user, "a name without a colon")

    async def work() -> str:
        async with opened_registry(load_settings(options).settings, terms_of(access)) as client:
            await check(client, place, credentials)
            return await keep(path, place, credentials, os.environ)

    where = asyncio.run(work())
    click.echo(f"Login Succeeded! Kept in {printable(where)}.")
    return 0


@click.command("logout")
@click.option("-a", "--all", "everything", is_flag=True, help="Of all registries.")
@click.option(
    "--authfile", default="", metavar="FILE", help="The file to change; none: see REGISTRY_AUTH_FILE, else the user's."
)
@click.argument("registry", required=False, default="")
@click.pass_obj
def logout(options: Options, registry: str, authfile: str | None, everything: bool) -> int:
    """Forget the credentials for REGISTRY."""
    from criollo.registry.keeping import forget, forget_all, place_of

    log.set_up(options.log_level)
    if bool(registry) == everything:
        raise click.UsageError("Name a registry, or say --all.")
    path = auth_file(authfile)
    if everything:
        for name in asyncio.run(_alone(forget_all(path, os.environ))):
            click.echo(f"Removed login credentials for {printable(name)}")
        return 0
    place = place_of(registry)
    if not asyncio.run(_alone(forget(path, place, os.environ))):
        raise NotFound("login", place.key, f"{path} has none for it")
    click.echo(f"Removed login credentials for {place.key}")
    return 0


def auth_file(named: str | None) -> Path:
    """The file that is written: as named, as REGISTRY_AUTH_FILE says, else the first that is read."""
    from criollo.registry.auth_files import find_auth_files

    return Path(named or find_auth_files(os.environ, os.getuid())[0]).absolute()


def _password(given: str | None, *, is_piped: bool) -> str:
    if is_piped:
        if given is not None:
            raise click.UsageError("--password and --password-stdin are alternatives.")
        if sys.stdin.isatty():
            raise click.UsageError("Nothing to read: pipe the password in.")
        text = sys.stdin.read(_LONGEST + 1)
        if len(text) > _LONGEST:
            raise click.UsageError(f"A password has at most {_LONGEST} characters.")
        return text.removesuffix("\n").removesuffix("\r")
    return given if given is not None else str(click.prompt("Password", hide_input=True, err=True))


async def _alone(work: Coroutine[Any, Any, T]) -> T:
    """Work that needs threads and no registry."""
    from criollo.aio import threads

    try:
        return await work
    finally:
        threads.close()


async def _tell(path: Path, place: "Place") -> int:
    """Print who is logged in."""
    from criollo.registry import auth_files, programs
    from criollo.registry.endpoints import Endpoint

    file = auth_files.read(path)
    for source in file.sources(Endpoint(host=place.host, repository=place.key.partition("/")[2])) if file is not None else ():
        found = source.credentials
        if source.program:
            found = await _alone(programs.get(source.program, source.server, environ=os.environ))
        if found is not None:
            click.echo(printable(found.username))
            return 0
    raise NotFound("login", place.key, f"{path} has none for it")
