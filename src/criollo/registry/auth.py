"""Credentials, and how a registry asks for them.

A credential is only ever used for the host it was given for (threats R12): the client hands it to the server of its own
endpoint, over the connection that endpoint's rules allow, and to the token server which that very server named. Secrets show
as `***`; their values reach no message and no log.

Source: RFC 9110, section 11 (challenges); distribution's token authentication and OAuth2 documents.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from criollo.errors import Invalid, Unauthenticated
from criollo.oci import document

MAX_TOKEN_BYTES: Final = 1 << 20
_SHORTEST_LIFE_S: Final = 60
_LONGEST_LIFE_S: Final = 3600
_LONGEST_CHALLENGE: Final = 16 << 10
_MAX_CHALLENGES: Final = 16
_TOKEN68: Final = re.compile(r"[A-Za-z0-9\-._~+/]+=*")

_SCHEME: Final = re.compile(r"[\s,]*([A-Za-z0-9!#$%&'*+\-.^_`|~]+)(?:[ \t]+|(?=,|$))")
_PARAMETER: Final = re.compile(r'[\s,]*([A-Za-z0-9!#$%&\'*+\-.^_`|~]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))')


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """What identifies a user at one registry: a password, or a token that stands for one. `server`, if any, is the only host
    that it is for."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""
    server: str = ""

    def __post_init__(self) -> None:
        if not all("!" <= letter <= "~" for letter in self.registry_token):  # it becomes a header as it is
            raise Invalid("credentials.registry_token", Hidden(), "printable ASCII")

    def __repr__(self) -> str:
        return "Credentials(***)"

    __str__ = __repr__

    @classmethod
    def of_auth(cls, auth: str, *, field: str, identity_token: str = "", or_none: bool = False) -> "Credentials":
        """From the base64 of `user:password`, as docker's configuration and the CRI write it; the user may be empty.

        Raises:
            Invalid: not base64, or without a colon (unless these are then `or_none`); the text itself is not shown.
        """
        try:
            plain = base64.b64decode(auth.replace("\r", "").replace("\n", ""), validate=True).decode()
        except (binascii.Error, ValueError):
            raise Invalid(field, Hidden(), "base64 of user:password") from None
        username, colon, password = plain.partition(":")
        if not colon:
            if or_none:
                return cls()
            raise Invalid(field, Hidden(), "base64 of user:password")
        return cls(username=username, password=password.strip("\0"), identity_token=identity_token)

    @property
    def is_empty(self) -> bool:
        return not (self.username or self.password or self.identity_token or self.registry_token)

    @property
    def has_password(self) -> bool:
        """Whether they are a user and password; some registries take a password without a user."""
        return bool(self.username or self.password)

    def basic_header(self) -> str:
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


class Hidden:
    """Stands for a secret in a message."""

    def __repr__(self) -> str:
        return "***"


class Challenge(msgspec.Struct, frozen=True, kw_only=True):
    """One way in which a server accepts credentials; scheme and parameter names in lower case."""

    scheme: str
    parameters: dict[str, str] = {}


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A bearer token and how many seconds it may be used."""

    value: str
    life_s: int

    def __repr__(self) -> str:
        return "Token(***)"


def parse_challenges(values: Sequence[str]) -> list[Challenge]:
    """The challenges of all WWW-Authenticate headers; what cannot be read is left out.

    Source: RFC 9110, section 11.6.1.
    """
    found: list[Challenge] = []
    for value in values[:_MAX_CHALLENGES]:
        found += _challenges(value[:_LONGEST_CHALLENGE])
    return found[:_MAX_CHALLENGES]


def choose(challenges: Sequence[Challenge]) -> Challenge | None:
    """The strongest challenge we can meet: a token server before a password."""
    for scheme in ("bearer", "basic"):
        for challenge in challenges:
            if challenge.scheme == scheme and (scheme == "basic" or challenge.parameters.get("realm")):
                return challenge
    return None


def parse_token(raw: bytes, *, realm_host: str) -> Token:
    """The token in a token server's answer; a life outside 1 minute to 1 hour is moved into it.

    Raises:
        Unauthenticated: the answer holds no token.
    Source: distribution's token specification: `token` or `access_token`, `expires_in` (60 s if absent).
    """
    what = f"cannot use the answer of token server {realm_host}"
    try:
        answer = document.parse_object(raw, what="token", limit_bytes=MAX_TOKEN_BYTES)
    except Invalid:
        raise Unauthenticated(f"{what}: it is no JSON object; is this a registry's token server?") from None
    value = answer.get("token") or answer.get("access_token")
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or " " in value:
        raise Unauthenticated(f"{what}: it holds no token")
    return Token(value=value, life_s=_life(answer.get("expires_in")))


def _life(said: Any) -> int:
    if isinstance(said, bool) or not isinstance(said, (int, float)):
        return _SHORTEST_LIFE_S
    return int(max(_SHORTEST_LIFE_S, min(said, _LONGEST_LIFE_S)))


def _challenges(value: str) -> list[Challenge]:
    found: list[Challenge] = []
    at = 0
    while scheme := _SCHEME.match(value, at):
        at = scheme.end()
        parameters: dict[str, str] = {}
        if (token := _TOKEN68.match(value, at)) and value[token.end() : token.end() + 1] in ("", ","):
            at = token.end()
        while parameter := _PARAMETER.match(value, at):
            name, quoted, plain = parameter.groups()
            parameters.setdefault(name.lower(), re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain)
            at = parameter.end()
        found.append(Challenge(scheme=scheme[1].lower(), parameters=parameters))
    return found
