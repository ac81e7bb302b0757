"""`USER[:PASSWORD]`, as `--creds` has it."""

from typing import NamedTuple

import click


class Login(NamedTuple):
    """A user at a registry; it does not show its password."""

    username: str
    password: str

    def __repr__(self) -> str:
        return "Login(***)"


def login(text: str | None) -> Login | None:
    """What the option says; the password is asked for when it is not given."""
    if text is None:
        return None
    user, colon, password = text.partition(":")
    if not user:
        raise click.UsageError("--creds wants USER or USER:PASSWORD.")
    return Login(user, password if colon else click.prompt("Password", hide_input=True, err=True))
