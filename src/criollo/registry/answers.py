"""What a registry or token server means by a status that is no success, in our errors and with a remedy.

Source: OCI distribution-spec v1.1, section Error Codes; RFC 9110, section 15.
"""

import json
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Final, NoReturn
from urllib.parse import urlencode

import msgspec
from urllib3.response import BaseHTTPResponse

from criollo.errors import Forbidden, NotFound, Unauthenticated, Unavailable, printable
from criollo.registry.auth import Credentials
from criollo.registry.connections import Body, Retryable
from criollo.registry.endpoints import Endpoint
from criollo.registry.logins import Logins
from criollo.registry.turnstile import Limited

GIVE: Final = "give credentials by imagePullSecrets or an auth file"
_PASSING: Final = frozenset({408, 425})


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of an endpoint: `path` below its repository (`manifests/latest`), with the credentials it may get.

    `url` wins over `path`: where the endpoint said to send something; so does `place`, a path of its server that lies outside
    the repository. `actions` is what a token must be good for, in the repository and, to read, in `sources`.
    """

    endpoint: Endpoint
    path: str
    headers: Mapping[str, str] = {}
    credentials: Credentials | None = None
    logins: Logins | None = None  # where to look for credentials when there are none; the client's own if None
    method: str = "GET"
    url: str = ""
    place: str = ""
    actions: str = "pull"
    sources: tuple[str, ...] = ()
    expects: tuple[int, ...] = (200, 206)
    body: Body | None = None

    @property
    def target(self) -> str:
        """Path and query at the endpoint's server."""
        if self.place:
            return self.place
        stands_for = f"?{urlencode({'ns': self.endpoint.namespace})}" if self.endpoint.namespace else ""
        return f"{self.endpoint.base}/{self.endpoint.repository}/{self.path}{stands_for}"

    @property
    def scopes(self) -> tuple[str, ...]:
        """What a token server is asked for; nothing in particular without actions."""
        if not self.actions:
            return ()
        return (
            f"repository:{self.endpoint.repository}:{self.actions}",
            *(f"repository:{source}:pull" for source in self.sources),
        )

    @property
    def thing(self) -> tuple[str, str]:
        """What is asked for, as kind and name."""
        kind, _, identifier = self.path.partition("/")
        name = self.endpoint.name
        if identifier.startswith("uploads/"):
            return "repository", name
        return (
            ("blob", f"{identifier} of {name}")
            if kind == "blobs"
            else ("image", f"{name}{'@' if ':' in identifier else ':'}{identifier}")
        )


def refuse(answer: BaseHTTPResponse, question: Question, said: str) -> NoReturn:
    """Raise what an answer without success means; `said` is its `error_text`."""
    name, host, status = question.endpoint.name, question.endpoint.api_host, answer.status
    if status == 401:
        tried = "the credentials" if question.credentials else "anonymous access"
        raise Unauthenticated(f"registry {host} refuses {tried} for {name}{said}; {GIVE}")
    if status == 403:
        raise Forbidden(f"registry {host} forbids {name}{said}; ask its owner for access")
    if status == 404:
        raise NotFound(*question.thing, f"so says registry {host}{said}")
    if status == 429:
        raise Limited(f"registry {host} wants fewer requests for {name}{said}; try again later", wait_s=wait_s(answer))
    if status in _PASSING or status >= 500:
        raise Retryable(f"registry {host} answers {status} for {name}{said}; try again later", wait_s=wait_s(answer))
    doing = f"push {name} to" if "push" in question.actions else f"fetch {name} from"
    raise Unavailable(f"cannot {doing} registry {host}: it answers {status}{said}")


def refuse_token(answer: BaseHTTPResponse, question: Question, server: str, said: str) -> NoReturn:
    """The same for the answer of a token server."""
    if answer.status == 429:
        raise Limited(f"token server {server} wants fewer requests{said}; try again later", wait_s=wait_s(answer))
    if answer.status in _PASSING or answer.status >= 500:
        raise Retryable(f"token server {server} answers {answer.status}{said}; try again later", wait_s=wait_s(answer))
    who = "anonymous access" if question.credentials is None else "the credentials"
    raise Unauthenticated(f"token server {server} refuses {who} for {question.endpoint.name}{said}; {GIVE}")


def error_text(body: bytes) -> str:
    """What an error body says, as `: code: message`; empty if it is not in the registry's form."""
    try:
        first = json.loads(body)["errors"][0]
        text = f": {first['code']}: {first['message']}" if first.get("message") else f": {first['code']}"
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""
    return printable(text[:300])


def wait_s(answer: BaseHTTPResponse) -> float:
    """Retry-After in seconds, from either of its forms; 0 where there is none.

    A date is meant by the clock of whoever wrote it, which the answer tells: ours may be years off.
    Source: RFC 9110, sections 10.2.3 and 6.6.1.
    """
    text = answer.headers.get("Retry-After", "").strip()[:64]
    if text.isascii() and text.isdecimal():
        return float(text[:9])
    at_s, now_s = _seconds(text), _seconds(answer.headers.get("Date", "").strip()[:64])
    return 0.0 if at_s is None else max(0.0, at_s - (time.time() if now_s is None else now_s))


def _seconds(date: str) -> float | None:
    """A date of a header, in seconds since the epoch; None for anything else."""
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None
