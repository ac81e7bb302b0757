"""How an image name would be looked for, as values: the same functions as a pull, without asking anybody.

Shows where credentials would come from, never what they are: programs are named and not run.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from criollo.errors import CriolloError, printable
from criollo.oci.reference import Reference
from criollo.registry.auth_files import Source
from criollo.registry.client import Registry
from criollo.registry.endpoints import NO_TLS, Endpoint
from criollo.registry.hosts import Candidate, Hosts
from criollo.registry.logins import Logins
from criollo.registry.programs import PREFIX

EVERYTHING: Final = "everything"
NAMES: Final = "names"
CONTENT: Final = "content"


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint in the order of trying. `problems` are files and settings that would make it fail.

    `asked_for` is what it may be asked for: `everything`, or by its capabilities `names` or `content` (all that has a digest)
    alone. `credentials` are all sources in order, `credential` is what would be shown to a server that asks: by the first that
    has some; a program may have none.
    """

    url: str
    kind: str
    encryption: str
    because: str
    asked_for: str = EVERYTHING
    credential: str = ""
    credentials: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()
    proxy: str = ""
    problems: tuple[str, ...] = ()


class Meaning(msgspec.Struct, frozen=True, kw_only=True):
    """One reference that a name may mean, and where it is looked for; `refusal` says why it is not."""

    reference: str
    because: str
    steps: tuple[Step, ...] = ()
    refusal: str = ""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """All of it; `refusal` says why a pull of the name as written ends before the first question."""

    name: str
    mode: str
    meanings: tuple[Meaning, ...]
    refusal: str = ""


def explain(registry: Registry, name: str, *, waiting: Logins | None = None) -> Explanation:
    """What a pull of `name` would do; `waiting` are credentials for this pull alone, see `namespaced`.

    Raises:
        Invalid: it breaks the grammar of references.
    """
    hosts = registry.hosts
    refusal = ""
    try:
        hosts.candidates(name)
    except CriolloError as error:
        refusal = str(error)
    logins = waiting or registry.logins
    meanings = tuple(_meaning(registry, logins, each) for each in hosts.meanings(name))
    return Explanation(name=name, mode=hosts.mode.value, meanings=meanings, refusal=refusal)


def endpoint_url(endpoint: Endpoint, scheme: str = "") -> str:
    """Where an endpoint is asked for its repository."""
    return f"{scheme or endpoint.schemes[0]}://{endpoint.api_host}{endpoint.base}/{endpoint.repository}"


def all_endpoints(hosts: Hosts, ref: Reference) -> list[tuple[Endpoint, str]]:
    """Every endpoint that a pull may ask, in the order of the files, and what for.

    Raises:
        Forbidden, Invalid: as `Hosts.endpoints`.
    """
    named, content = hosts.endpoints(ref), hosts.endpoints(ref, for_content=True)
    found: list[tuple[Endpoint, str]] = []
    left = list(content)
    for endpoint in named:
        # The last one to ask for names is no mirror there, and may be one for content.
        same = [at for at, each in enumerate(left) if msgspec.structs.replace(each, is_mirror=endpoint.is_mirror) == endpoint]
        if same:
            found += [(each, CONTENT) for each in left[: same[0]]]
            found.append((left[same[0]], EVERYTHING))
            left = left[same[0] + 1 :]
        else:
            found.append((endpoint, NAMES))
    return found + [(each, CONTENT) for each in left]


def _meaning(registry: Registry, logins: Logins, meant: Candidate) -> Meaning:
    try:
        endpoints = all_endpoints(registry.hosts, meant.reference)
    except CriolloError as error:
        return Meaning(reference=str(meant.reference), because=meant.because, refusal=str(error))
    steps = tuple(_step(registry, logins, endpoint, what) for endpoint, what in endpoints)
    return Meaning(reference=str(meant.reference), because=meant.because, steps=steps)


def _step(registry: Registry, logins: Logins, endpoint: Endpoint, asked_for: str) -> Step:
    problems, tls, proxy = [], endpoint.tls, ""
    sources: list[Source] = []
    try:
        tls = tls if tls != NO_TLS else registry.hosts.tls(endpoint.host)
    except CriolloError as error:
        problems.append(printable(str(error)))
    try:
        sources += logins.sources(endpoint)
    except CriolloError as error:
        problems.append(printable(str(error)))
    try:
        proxy = registry.proxy(endpoint)
    except CriolloError as error:
        problems.append(printable(str(error)))
    return Step(
        url=endpoint_url(endpoint),
        kind="mirror" if endpoint.is_mirror else "registry",
        encryption=_encryption(endpoint),
        because=endpoint.because,
        asked_for=asked_for,
        credential=_used(sources),
        credentials=tuple(map(_named, sources)),
        certificates=tuple(name for name in (*tls.authorities, tls.certificate) if name),
        proxy=proxy,
        problems=tuple(problems),
    )


def _named(source: Source) -> str:
    return f"{PREFIX}{source.program} ({source.where})" if source.program else source.where


def _used(sources: Sequence[Source]) -> str:
    """What would be shown: of the first source that has something for sure, unless a program before it has."""
    found = []
    for source in sources:
        found.append(_named(source))
        if not source.program:
            break
    return ", else ".join(found)


def _encryption(endpoint: Endpoint) -> str:
    if endpoint.scheme == "http":
        return "none"
    if not endpoint.is_insecure:
        return "verified TLS"
    return "unverified TLS" if endpoint.scheme else "unverified TLS, else none"
