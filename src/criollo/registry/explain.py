"""How an image name would be looked for, as values: the same functions as a pull, without asking anybody.

Shows where credentials would come from, never what they are: programs are named and not run.
"""

import msgspec

from criollo.errors import CriolloError, printable
from criollo.oci.reference import Reference
from criollo.registry.client import Registry
from criollo.registry.endpoints import NO_TLS, Endpoint
from criollo.registry.programs import PREFIX


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint in the order of trying. `problems` are files that would make it fail."""

    url: str
    kind: str
    encryption: str
    because: str
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


def explain(registry: Registry, name: str) -> Explanation:
    """What a pull of `name` would do.

    Raises:
        Invalid: it breaks the grammar of references.
    """
    hosts = registry.hosts
    refusal = ""
    try:
        hosts.candidates(name)
    except CriolloError as error:
        refusal = str(error)
    meanings = tuple(_meaning(registry, each.reference, each.because) for each in hosts.meanings(name))
    return Explanation(name=name, mode=hosts.mode.value, meanings=meanings, refusal=refusal)


def endpoint_url(endpoint: Endpoint, scheme: str = "") -> str:
    """Where an endpoint is asked for its repository."""
    return f"{scheme or endpoint.schemes[0]}://{endpoint.api_host}{endpoint.base}/{endpoint.repository}"


def _meaning(registry: Registry, ref: Reference, because: str) -> Meaning:
    try:
        endpoints = registry.hosts.endpoints(ref)
    except CriolloError as error:
        return Meaning(reference=str(ref), because=because, refusal=str(error))
    steps = tuple(_step(registry, endpoint) for endpoint in endpoints)
    return Meaning(reference=str(ref), because=because, steps=steps)


def _step(registry: Registry, endpoint: Endpoint) -> Step:
    problems, tls = [], endpoint.tls
    credentials: list[str] = []
    try:
        tls = tls if tls != NO_TLS else registry.hosts.tls(endpoint.host)
    except CriolloError as error:
        problems.append(printable(str(error)))
    try:
        for source in registry.logins.sources(endpoint):
            credentials.append(f"{PREFIX}{source.program} ({source.where})" if source.program else source.where)
    except CriolloError as error:
        problems.append(printable(str(error)))
    return Step(
        url=endpoint_url(endpoint),
        kind="mirror" if endpoint.is_mirror else "registry",
        encryption=_encryption(endpoint),
        because=endpoint.because,
        credentials=tuple(credentials),
        certificates=tuple(name for name in (*tls.authorities, tls.certificate) if name),
        proxy=registry.proxy(endpoint),
        problems=tuple(problems),
    )


def _encryption(endpoint: Endpoint) -> str:
    if endpoint.scheme == "http":
        return "none"
    if not endpoint.is_insecure:
        return "verified TLS"
    return "unverified TLS" if endpoint.scheme else "unverified TLS, else none"
