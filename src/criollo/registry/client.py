"""The registry client: manifests whole and checked, blobs as a stream into a descriptor.

    manifest(ref) ─ endpoints of registries.conf ─ attempts ─ exchange (scheme, redirects, login) ─ connections
    blob(ref, descriptor, sink) ─ the same, with Download between the answer and the sink

Every call runs in one transfer thread with one lifeline: a cancelled call has ended when the cancellation comes back.
Calls to one registry are limited in number, so that a slow one leaves threads to the others.

Source: OCI distribution-spec v1.1.
"""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from criollo.aio import threads
from criollo.aio.locks import KeyedSlots
from criollo.errors import Damaged, Invalid
from criollo.oci import image_spec
from criollo.oci.digest import Digest
from criollo.oci.reference import Reference
from criollo.registry.answers import Question
from criollo.registry.attempts import persist
from criollo.registry.auth import Credentials
from criollo.registry.blobs import Blob, Download
from criollo.registry.connections import Connections, Limits, held_by
from criollo.registry.exchange import Exchange
from criollo.registry.hosts import Endpoint, Hosts
from criollo.registry.lifeline import Lifeline

T = TypeVar("T")

TRANSFERS_PER_REGISTRY: Final = 6
_MAX_PREFERRED: Final = 256


class FetchedManifest(msgspec.Struct, frozen=True, kw_only=True):
    """The exact bytes of a manifest or index, what the registry calls them, their digest, and who served them."""

    raw: bytes
    media_type: str
    digest: Digest
    source: str


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
        """`auth_paths` are auth.json files for calls without credentials; `environ` names proxies (the process's own)."""
        self.hosts = hosts
        self._limits = limits or Limits()
        self._connections = Connections(self._limits, os.environ if environ is None else environ)
        self._exchange = Exchange(hosts, self._connections, limits=self._limits, user_agent=user_agent, auth_paths=auth_paths)
        self._slots = KeyedSlots(TRANSFERS_PER_REGISTRY)
        self._preferred: dict[str, Endpoint] = {}
        self._active = 0
        self._closing: asyncio.TimerHandle | None = None

    async def manifest(
        self, ref: Reference, credentials: Credentials | None = None, *, accept: Sequence[str] = image_spec.ACCEPT
    ) -> FetchedManifest:
        """The manifest or index that `ref` names; by digest its bytes are what the digest says.

        Raises:
            NotFound, Unauthenticated, Denied: the registry says so, or registries.conf blocks the name.
            Unavailable: no endpoint answers properly.
            Damaged: the bytes do not have the digest they were asked by, or that the registry names.
            Invalid: over 4 MiB.
        """
        endpoints = self.hosts.endpoints(ref)

        def fetch(lifeline: Lifeline) -> FetchedManifest:
            headers = {"Accept": ", ".join(accept)}
            return persist(
                endpoints,
                lambda endpoint: self._manifest(ref, endpoint, headers, _bound(credentials, ref, endpoint)),
                limits=self._limits,
                lifeline=lifeline,
            )

        async with self._slots.hold(ref.domain):
            return await self._in_thread(fetch)

    async def blob(
        self,
        ref: Reference,
        descriptor: Blob,
        sink_fd: int,
        credentials: Credentials | None = None,
        *,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Stream a blob of `ref`'s repository into a pipe or file; returns when its last byte is written and its digest right.

        `sink_fd` stays the caller's and is set non-blocking. `progress(count)` is called in the transfer's thread for each
        piece. The end of the pipe is not marked: close it after this returns; after an error its content is worthless.

        Raises:
            Damaged: size or digest is not the descriptor's.
            ReaderGone: the reader of the pipe ended.
            NotFound, Unauthenticated, Denied, Unavailable: as for `manifest`.
        """
        if descriptor.size < 0:
            raise Invalid("descriptor.size", descriptor.size, "0 or more")
        endpoints = self._in_preferred_order(ref)

        def fetch(lifeline: Lifeline) -> None:
            download = Download(descriptor, sink_fd, lifeline=lifeline, limits=self._limits, progress=progress)

            def take(endpoint: Endpoint) -> None:
                question = Question(
                    endpoint=endpoint,
                    path=f"blobs/{descriptor.digest}",
                    headers=download.headers(),
                    credentials=_bound(credentials, ref, endpoint),
                )
                download.take(self._exchange.ask(question), endpoint.api_host)

            persist(endpoints, take, limits=self._limits, lifeline=lifeline, done=lambda: download.done)

        async with self._slots.hold(ref.domain):
            await self._in_thread(fetch)

    async def close(self) -> None:
        """Close idle connections; calls in progress go on to their end."""
        if self._closing is not None:
            self._closing.cancel()
        self._connections.close_idle()

    def _manifest(
        self, ref: Reference, endpoint: Endpoint, headers: Mapping[str, str], credentials: Credentials | None
    ) -> FetchedManifest:
        path = f"manifests/{ref.identifier}"
        answer = self._exchange.ask(Question(endpoint=endpoint, path=path, headers=headers, credentials=credentials))
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
        """The endpoint that served the manifest first; the registry itself stays the last resort."""
        endpoints = self.hosts.endpoints(ref)
        preferred = self._preferred.get(ref.name)
        if preferred not in endpoints or preferred == endpoints[-1]:
            return endpoints[-1:] if preferred == endpoints[-1] else endpoints
        return [preferred, *(endpoint for endpoint in endpoints if endpoint != preferred)]

    async def _in_thread(self, call: Callable[[Lifeline], T]) -> T:
        """Run a call in a transfer thread; a cancellation ends it and waits until it has ended."""
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
        self._active += 1
        try:
            with Lifeline() as lifeline:

                def work() -> T:
                    held_by(lifeline)
                    lifeline.check()
                    return call(lifeline)

                return await threads.interruptible_transfer(work, lifeline.abort)
        finally:
            self._active -= 1
            if not self._active:
                self._closing = asyncio.get_running_loop().call_later(self._limits.keep_s, self._connections.close_idle)


def _bound(credentials: Credentials | None, ref: Reference, endpoint: Endpoint) -> Credentials | None:
    """The caller's credentials are for the registry it named, and go to no other host."""
    if credentials is None or credentials.is_empty:
        return None
    return credentials if endpoint.host == ref.domain else None


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
