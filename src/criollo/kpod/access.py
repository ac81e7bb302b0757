"""The flags of every verb that speaks with a registry: `--creds`, `--authfile`, `--tls-verify`, `--cert-dir`.

A daemon has files of its own, and the person has hers: credentials of `--authfile`, or of the file that REGISTRY_AUTH_FILE
names, are looked up here and sent along, so that they count with a daemon too.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from criollo.errors import Invalid
from criollo.kpod.credentials import Login, login

if TYPE_CHECKING:
    from criollo.config.settings import Settings
    from criollo.registry.auth import Credentials
    from criollo.registry.client import Shown
    from criollo.registry.terms import Terms


class Access(NamedTuple):
    """What the flags say. `auth_file` is that of the environment where no flag names one; empty: as this node has it."""

    account: Login | None = None
    auth_file: str = ""
    tls_verify: bool | None = None
    cert_dir: str = ""

    @property
    def has_terms(self) -> bool:
        return self.tls_verify is not None or bool(self.cert_dir)


def access_options(command: "click.decorators.FC") -> "click.decorators.FC":
    """The flags for a verb; `taken` reads them."""
    for option in (
        cert_dir_option,
        tls_verify_option,
        authfile_option,
        click.option(
            "--creds",
            metavar="USER[:PASSWORD]",
            help="Log in with these; the password is asked for when it is not given.",
        ),
    ):
        command = option(command)
    return command


cert_dir_option = click.option("--cert-dir", metavar="DIRECTORY", help="Certificates for it, as in a directory of certs.d.")
tls_verify_option = click.option(
    "--tls-verify", metavar="true|false", type=bool, help="Whether TLS is verified, whatever registries.conf says."
)
authfile_option = click.option(
    "--authfile", metavar="FILE", help="Look for credentials there; none: where REGISTRY_AUTH_FILE says, else where all do."
)


def taken(said: dict[str, Any]) -> Access:
    """The flags out of a verb's keywords; the others stay.

    Raises:
        Invalid: a file or directory that is not there.
    """
    auth_file = said.pop("authfile")
    if auth_file and not os.path.isfile(auth_file):
        raise Invalid("--authfile", auth_file, "a file that exists; kpod login writes one")
    return Access(
        account=login(said.pop("creds")),
        auth_file=os.path.abspath(path) if (path := auth_file or os.environ.get("REGISTRY_AUTH_FILE", "")) else "",
        tls_verify=said.pop("tls_verify"),
        cert_dir=directory_of(said.pop("cert_dir")),
    )


def directory_of(cert_dir: str | None) -> str:
    """The whole path of `--cert-dir`, empty for none. Raises Invalid."""
    if cert_dir and not os.path.isdir(cert_dir):
        raise Invalid("--cert-dir", cert_dir, "a directory that exists")
    return os.path.abspath(cert_dir) if cert_dir else ""


def shown_of(access: Access) -> "Shown":
    """What a registry is shown by a verb that needs no daemon."""
    from criollo.registry.logins import Logins

    if access.account is not None:
        return account_of(access.account)
    return Logins([Path(access.auth_file)], environ=os.environ) if access.auth_file else None


def terms_of(access: Access) -> "Terms":
    """What is said about TLS."""
    from criollo.registry.terms import Terms

    return Terms(verify=access.tls_verify, certificates=access.cert_dir)


def account_of(account: Login) -> "Credentials":
    """A user as the client of registries knows one."""
    from criollo.registry.auth import Credentials

    return Credentials(username=account.username, password=account.password)


async def credentials_for(access: Access, settings: "Settings", image: str) -> "Credentials | None":
    """What a daemon is told to show for an image; None: what it has itself.

    Raises:
        Invalid: the file is malformed, or the name is no reference.
        Unauthenticated: the program that the file names fails.
    """
    if access.account is not None:
        return account_of(access.account)
    if not access.auth_file:
        return None
    # The engine knows where the files of registries are: 0.3 s that a call without a file of its own does not need.
    from criollo.engine.images import open_registry
    from criollo.registry import programs
    from criollo.registry.endpoints import Endpoint
    from criollo.registry.logins import Logins

    ref = open_registry(settings, os.environ).hosts.meanings(image)[0].reference
    for source in Logins([Path(access.auth_file)]).sources(Endpoint(host=ref.domain, repository=ref.path)):
        found = source.credentials
        if source.program:
            found = await programs.get(source.program, source.server, environ=os.environ)
        if found is not None:
            return found
    return None


def fields_of(credentials: "Credentials | None") -> dict[str, str]:
    """Credentials as the bodies of requests name them; nothing for None."""
    if credentials is None:
        return {}
    found = {
        "username": credentials.username,
        "password": credentials.password,
        "identity_token": credentials.identity_token,
        "registry_token": credentials.registry_token,
    }
    return {key: value for key, value in found.items() if value}
