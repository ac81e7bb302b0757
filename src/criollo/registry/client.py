"""The registry client: manifests whole and checked, blobs as a stream into a descriptor.

    manifest(ref) ─ endpoints of registries.conf ─ attempts ─ exchange (scheme, redirects, login) ─ connections
    blob(ref, descriptor, sink) ─ the same, with Download between the answer and the sink

Every call runs in one transfer thread with one lifeline: a cancelled call has ended when the cancellation comes back.
Calls to one registry are limited in number, so that a slow one leaves threads to the others.

Source: OCI distribution-spec v1.1.
"""

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from urllib3.response import BaseHTTPResponse

from criollo.aio import threads
from criollo.aio.locks import KeyedSlots
from criollo.errors import Damaged, Invalid
from criollo.oci import image_spec
from criollo.oci.digest import Digest
from criollo.oci.reference import Reference
from criollo.registry import documents
from criollo.registry.answers import Question
from criollo.registry.attempts import persist
from criollo.registry.auth import Credentials
from criollo.registry.blobs import Blob, Download, Route
from criollo.registry.connections import Connections, Limits, Unreachable, held_by
from criollo.registry.endpoints import Endpoint
from criollo.registry.exchange import Exchange
from criollo.registry.hosts import Hosts
from criollo.registry.lifeline import Lifeline
from criollo.registry.logins import Logins
from criollo.registry.proxies import without_userinfo
from criollo.registry.redirects import origin
from criollo.registry.terms import Terms

T = TypeVar("T")

Shown = Credentials | Logins | None
TRANSFERS_PER_REGISTRY: Final = 6
_MAX_PREFERRED: Final = 256
_NO_SUCH_RANGE: Final = 416


class FetchedManifest(msgspec.Struct, frozen=True, kw_only=True):
    """The exact bytes of a manifest or index, what the registry calls them, their digest, and who served them."""

    raw: bytes
    media_type: str
    digest: Digest
    source: str


class Probe(NamedTuple):
    """How long an endpoint took to answer, and the digest that it names, as it says it."""

    latency_s: float
    digest: str


class Registry:
    """All registries, as registries.conf maps them. `close` it before the loop ends."""

    def __init__(
        self,
        hosts: Hosts,
        *,
        user_agent: str,
        auth_paths: Sequence[Path] = (),
        limits: Limits | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """`auth_paths` are auth.json files for calls without credentials; `environ` names proxies, and is that of
        credential programs (the process's own)."""
        self.hosts, self._user_agent = hosts, user_agent
        self._limits = limits or Limits()
        self._environ = dict(os.environ if environ is None else environ)
        self._connections = Connections(self._limits, self._environ)
        self._auth_paths = tuple(auth_paths)
        self.logins = Logins(auth_paths, programs=hosts.credential_programs, environ=self._environ)
        self._exchange = Exchange(hosts, self._connections, limits=self._limits, user_agent=user_agent, logins=self.logins)
        self._slots = KeyedSlots(TRANSFERS_PER_REGISTRY)
        self._preferred: dict[str, Endpoint] = {}
        self._shunned: dict[Endpoint, float] = {}
        self._active = 0
        self._closing: asyncio.TimerHandle | None = None

    def use(self, hosts: Hosts) -> None:
        """Other rules from now on; calls in progress end by those they began with, as far as they have looked."""
        self.hosts = self._exchange.hosts = hosts
        self.logins = self._exchange.logins = Logins(
            self._auth_paths, programs=hosts.credential_programs, environ=self._environ
        )

    def on(self, terms: Terms) -> "Registry":
        """A client of its own, with its own connections, that keeps to what is said about TLS. `close` it."""
        hosts, limits = self.hosts.on(terms), self._limits
        return Registry(hosts, user_agent=self._user_agent, auth_paths=self._auth_paths, limits=limits, environ=self._environ)

    async def manifest(
        self, ref: Reference, shown: Shown = None, *, accept: Sequence[str] = image_spec.ACCEPT
    ) -> FetchedManifest:
        """The manifest or index that `ref` names; by digest its bytes are what the digest says.

        `shown` are credentials for the registry that `ref` names, or the logins that alone count for this call.

        Raises:
            NotFound, Unauthenticated, Forbidden: the registry says so, or registries.conf blocks the name.
            Unavailable: no endpoint answers properly.
            Damaged: the bytes do not have the digest they were asked by, or that the registry names.
            Invalid: over 4 MiB.
        """
        headers = {"Accept": ", ".join(accept)}

        def ask(endpoint: Endpoint) -> FetchedManifest:
            question = question_for(ref, endpoint, shown, path=f"manifests/{ref.identifier}", headers=headers)
            return self._manifest(ref, question)

        def fetch(lifeline: Lifeline) -> FetchedManifest:
            endpoints = self._in_reach(self.hosts.endpoints(ref))
            return persist(endpoints, self._shunning(ask), limits=self._limits, lifeline=lifeline)

        async with self._slots.hold(ref.domain):
            return await self._in_thread(fetch)

    async def blob(
        self,
        ref: Reference,
        descriptor: Blob,
        sink_fd: int,
        shown: Shown = None,
        *,
        progress: Callable[[int], None] | None = None,
        route: Route | None = None,
    ) -> None:
        """Stream a blob of `ref`'s repository into a pipe or file; returns when its last byte is written and its digest right.

        `sink_fd` stays the caller's and is set non-blocking. `progress(count)` is called in the transfer's thread for each
        piece. The end of the pipe is not marked: close it after this returns; after an error its content is worthless.
        `route` tells which endpoints to leave out, and is told who served; `shown` is as for `manifest`.

        Raises:
            Damaged: size or digest is not the descriptor's.
            ReaderGone: the reader of the pipe ended.
            NotFound, Unauthenticated, Forbidden, Unavailable: as for `manifest`.
        """
        if descriptor.size < 0:
            raise Invalid("descriptor.size", descriptor.size, "0 or more")
        route = route or Route()
        path = f"blobs/{descriptor.digest}"

        def fetch(lifeline: Lifeline) -> None:
            download = Download(descriptor, sink_fd, lifeline=lifeline, limits=self._limits, progress=progress)

            def take(endpoint: Endpoint) -> None:
                answer = self._rest(question_for(ref, endpoint, shown, path=path, headers=download.headers()))
                route.came_from(descriptor, endpoint)
                download.take(answer, endpoint.api_host)

            endpoints = [each for each in self._in_preferred_order(ref) if each not in route.avoided]
            persist(endpoints, self._shunning(take), limits=self._limits, lifeline=lifeline, done=lambda: download.done)

        async with self._slots.hold(ref.domain):
            await self._in_thread(fetch)

    async def converse(
        self, ref: Reference, talk: Callable[[Exchange, Endpoint], T], *, source: str = "", moved: bool = True
    ) -> T:
        """What `talk` gives, which puts several questions to the registry of `ref`, or to the mirror that is called `source`.

        Without `moved` it is the host of the name itself: registries.conf moves pulls alone. It runs in a transfer thread, and
        again from its beginning when it failed for a reason that may pass.

        Raises:
            whatever `talk` raises; Forbidden when registries.conf blocks the name.
        """

        def work(lifeline: Lifeline) -> T:
            *mirrors, home = self.hosts.endpoints(ref) if moved else [self.hosts.home(ref)]
            asked = next((each for each in mirrors if each.name == source), home)
            return persist([asked], lambda endpoint: talk(self._exchange, endpoint), limits=self._limits, lifeline=lifeline)

        async with self._slots.hold(ref.domain):
            return await self._in_thread(work)

    async def close(self) -> None:
        """Close idle connections; calls in progress go on to their end."""
        if self._closing is not None:
            self._closing.cancel()
        self._connections.close_idle()

    async def probe(self, ref: Reference, endpoint: Endpoint, shown: Shown = None) -> Probe:
        """What one endpoint answers when it is asked for a manifest, once, without its body.

        Raises:
            CriolloError: it does not answer, or answers with an error; see `manifest`.
        """
        headers = {"Accept": ", ".join(image_spec.ACCEPT)}
        question = question_for(ref, endpoint, shown, path=f"manifests/{ref.identifier}", headers=headers, method="HEAD")

        def ask(lifeline: Lifeline) -> Probe:
            started = time.monotonic()
            answer = self._exchange.ask(question)
            answer.close()
            return Probe(time.monotonic() - started, answer.headers.get("Docker-Content-Digest", "").strip()[:200])

        return await self._in_thread(ask)

    async def document(self, url: str, limit_bytes: int, *, what: str) -> bytes | None:
        """A small document of any server, such as a signature, asked for without credentials; None if it has none.

        Raises:
            Unavailable: the server does not answer properly.
            Invalid: over the limit, or no URL.
        """
        try:
            there = origin(url)
        except ValueError:
            raise Invalid(what, url[:200], "an http or https URL of a host") from None
        server = Endpoint(host=there.netloc, repository=what)

        def fetch(lifeline: Lifeline) -> bytes | None:
            def ask(_: Endpoint) -> bytes | None:
                return documents.fetch(url, limit_bytes, what=what, connections=self._connections, exchange=self._exchange)

            return persist([server], ask, limits=self._limits, lifeline=lifeline)

        async with self._slots.hold(there.netloc):
            return await self._in_thread(fetch)

    def proxy(self, endpoint: Endpoint) -> str:
        """The proxy on the way to an endpoint, without its password; empty if none. Raises Unavailable: none we can use."""
        found = self._connections.proxy(f"{endpoint.schemes[0]}://{endpoint.api_host}/")
        return without_userinfo(found) if found else ""

    def _rest(self, question: Question) -> BaseHTTPResponse:
        """What is missing of a blob, or all of it where the server says that it has nothing at that place: a cache may have
        dropped or cut its copy meanwhile. Raises as `Exchange.ask`.

        Source: RFC 9110, section 15.5.17.
        """
        if not question.headers:
            return self._exchange.ask(question)
        answer = self._exchange.ask(msgspec.structs.replace(question, expects=(*question.expects, _NO_SUCH_RANGE)))
        if answer.status != _NO_SUCH_RANGE:
            return answer
        answer.close()
        return self._exchange.ask(msgspec.structs.replace(question, headers={}))

    def _manifest(self, ref: Reference, question: Question) -> FetchedManifest:
        endpoint = question.endpoint
        answer = self._exchange.ask(question)
        media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip()[:200]
        said = answer.headers.get("Docker-Content-Digest", "").strip()
        raw = self._exchange.read(answer, image_spec.MAX_MANIFEST_BYTES, what="manifest", host=endpoint.api_host)
        if media_type == image_spec.DOCKER_SCHEMA1_SIGNED:
            said = ""  # that digest leaves the signatures out; the decoder will say what is wrong with schema 1
        digest = _checked(raw, ref, said, where=endpoint.api_host)
        if len(self._preferred) >= _MAX_PREFERRED:
            self._preferred.clear()
        self._preferred[ref.name] = endpoint
        return FetchedManifest(raw=raw, media_type=media_type, digest=digest, source=endpoint.name)

    def _in_preferred_order(self, ref: Reference) -> list[Endpoint]:
        """The endpoint that served the manifest first; the registry itself stays the last resort.

        If the registry served it, those mirrors that were asked for it are left out, and only they: some may serve blobs alone.
        """
        endpoints = self._in_reach(self.hosts.endpoints(ref, for_content=True))
        preferred = self._preferred.get(ref.name)
        if preferred == endpoints[-1]:
            asked = self.hosts.endpoints(ref)
            return [each for each in endpoints if each == preferred or each not in asked]
        if preferred not in endpoints:
            return endpoints
        return [preferred, *(endpoint for endpoint in endpoints if endpoint != preferred)]

    def _in_reach(self, endpoints: Sequence[Endpoint]) -> list[Endpoint]:
        """Without the mirrors that nobody could reach a moment ago; each new wait for them would cost a pull seconds."""
        now = time.monotonic()
        return [each for each in endpoints if not each.is_mirror or self._shunned.get(each, 0) < now]

    def _shunning(self, call: Callable[[Endpoint], T]) -> Callable[[Endpoint], T]:
        def ask(endpoint: Endpoint) -> T:
            try:
                return call(endpoint)
            except Unreachable:
                if endpoint.is_mirror:
                    if len(self._shunned) >= _MAX_PREFERRED:
                        self._shunned.clear()
                    self._shunned[endpoint] = time.monotonic() + self._limits.shun_s
                raise

        return ask

    async def _in_thread(self, call: Callable[[Lifeline], T]) -> T:
        """Run a call in a transfer thread; a cancellation ends it and waits until it has ended."""
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
        self._active += 1
        try:
            with Lifeline(asyncio.get_running_loop()) as lifeline:

                def work() -> T:
                    held_by(lifeline)
                    lifeline.check()
                    return call(lifeline)

                return await threads.interruptible_transfer(work, lifeline.abort)
        finally:
            self._active -= 1
            if not self._active:
                self._closing = asyncio.get_running_loop().call_later(self._limits.keep_s, self._connections.close_idle)


def question_for(ref: Reference, endpoint: Endpoint, shown: Shown, *, path: str, **asked: Any) -> Question:
    """The caller's credentials are for the registry it named, and go to no other host."""
    credentials = shown if isinstance(shown, Credentials) and not shown.is_empty and endpoint.host == ref.domain else None
    if credentials is not None and credentials.server not in ("", ref.domain):
        credentials = None
    logins = shown if isinstance(shown, Logins) else None
    return Question(endpoint=endpoint, path=path, credentials=credentials, logins=logins, **asked)


def _checked(raw: bytes, ref: Reference, said: str, *, where: str) -> Digest:
    if ref.digest is not None:
        if not ref.digest.matches(raw):
            raise Damaged(f"cannot use manifest {ref} from registry {where}: its bytes have digest {Digest.of(raw)}")
        return ref.digest
    try:
        named = Digest(said)
    except Invalid:
        return Digest.of(raw)
    if not named.matches(raw):
        raise Damaged(
            f"cannot use manifest {ref} from registry {where}: it names digest {named}, its bytes have {Digest.of(raw)}"
        )
    return named
