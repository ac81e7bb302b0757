"""Blobs and manifests on their way into a registry: nothing is sent that it has, everything else in one piece.

    HEAD  blobs/<digest>                                 200: it is there
    POST  blobs/uploads/?mount=<digest>&from=<repo>      201: it is there now, from another repository of the same registry
    POST  blobs/uploads/  →  PUT <Location>?digest=      201: sent whole
    PUT   manifests/<tag>

A registry may let a blob be sent to another server; credentials stay with the registry. An upload that is cut is the
registry's to clean up. What is sent again after a failure is sent from its beginning.

Source: OCI distribution-spec v1.1, section Push.
"""

import contextlib
import os
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import urlencode

from urllib3.response import BaseHTTPResponse

from criollo.errors import CriolloError, Damaged, NotFound, Unavailable, explain
from criollo.oci.digest import Digest
from criollo.oci.reference import Reference
from criollo.registry.answers import Question
from criollo.registry.client import Registry, Shown, question_for
from criollo.registry.connections import Retryable, current
from criollo.registry.endpoints import Endpoint
from criollo.registry.exchange import Exchange
from criollo.registry.redirects import next_hop

_ACTIONS: Final = "pull,push"


class FileBody:
    """A file, sent from its beginning; `progress(count)` hears of each piece, with a negative count when it starts anew."""

    def __init__(self, fd: int, size: int, progress: Callable[[int], None] = lambda count: None) -> None:
        self._fd, self._at, self._progress = fd, 0, progress
        self.size = size

    def rewind(self) -> None:
        if self._at:
            self._progress(-self._at)
        self._at = 0

    def read(self, count: int = -1, /) -> bytes:
        current().check()
        with explain("read a blob that is pushed"):
            piece = os.pread(self._fd, self.size - self._at if count < 0 else min(count, self.size - self._at), self._at)
        self._at += len(piece)
        if piece:
            self._progress(len(piece))
        return piece


class BytesBody:
    """Bytes in memory."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0
        self.size = len(content)

    def rewind(self) -> None:
        self._at = 0

    def read(self, count: int = -1, /) -> bytes:
        piece = self._content[self._at :] if count < 0 else self._content[self._at : self._at + count]
        self._at += len(piece)
        return piece


class Unrepeatable(Unavailable):
    """An upload failed for a reason that may pass, and what was sent is not there any more: its owner may begin it anew."""


class PipeBody:
    """What comes through a pipe, once. The last piece is held back until `is_right()` at the pipe's end: else the registry
    would have a blob whose source has failed."""

    def __init__(self, fd: int, size: int, is_right: Callable[[], bool]) -> None:
        self._fd, self._at, self._is_right = fd, 0, is_right
        self.size = size

    @property
    def is_spent(self) -> bool:
        return self._at > 0

    def rewind(self) -> None:
        if self.is_spent:
            raise Unrepeatable("cannot push a blob: the registry wants it sent again; try again later")

    def read(self, count: int = -1, /) -> bytes:
        left = self.size - self._at
        if not left:
            return b""
        piece = self._piece(left if count < 0 else min(count, left))
        self._at += len(piece)
        if not piece or (self._at == self.size and (self._piece(1) or not self._is_right())):
            raise Unavailable("cannot push a blob: its source has failed")
        return piece

    def _piece(self, count: int) -> bytes:
        current().wait_readable(self._fd)
        with explain("read a blob that is pushed"):
            return os.read(self._fd, count)


class Uploads:
    """Uploads into the repository of one reference. `sources` are other repositories there that blobs may be taken from."""

    def __init__(self, registry: Registry, ref: Reference, shown: Shown = None, *, sources: Sequence[str] = ()) -> None:
        self._registry, self._ref, self._shown = registry, ref, shown
        self.sources = tuple(source for source in dict.fromkeys(sources) if source != ref.path)

    async def size_of(self, digest: Digest) -> int | None:
        """The size of a blob that is in the repository, -1 where the registry does not say; None when it is not there.

        Raises:
            Unauthenticated, Forbidden, Unavailable: the registry says so, or does not answer.
        """

        def talk(exchange: Exchange, endpoint: Endpoint) -> int | None:
            question = self._question(endpoint, f"blobs/{digest}", method="HEAD")
            try:
                answer = exchange.ask(question)
            except NotFound:
                return None
            length = answer.headers.get("Content-Length", "")
            answer.close()
            return int(length[:19]) if length.isascii() and length.isdecimal() else -1

        return await self._registry.converse(self._ref, talk, moved=False)

    async def mount(self, digest: Digest) -> bool:
        """Take a blob from one of the sources; False when none gives it."""

        def talk(exchange: Exchange, endpoint: Endpoint) -> bool:
            for source in self.sources:
                path = f"blobs/uploads/?{urlencode({'mount': str(digest), 'from': source})}"
                question = self._question(endpoint, path, method="POST", sources=(source,), expects=(201, 202))
                try:
                    answer = exchange.ask(question)
                except CriolloError:  # not all registries know this; then it is sent
                    current().check()
                    continue
                if answer.status == 201:
                    answer.close()
                    return True
                self._drop(exchange, endpoint, answer)
            return False

        return bool(self.sources) and await self._registry.converse(self._ref, talk, moved=False)

    async def send(self, digest: Digest, body: FileBody | BytesBody | PipeBody) -> None:
        """Send a blob. After a failure that may pass it is sent again.

        Raises:
            Unrepeatable: it cannot be, since it came through a pipe.
            Unauthenticated, Forbidden, Unavailable: the registry says so, or does not answer.
        """

        def talk(exchange: Exchange, endpoint: Endpoint) -> None:
            started = exchange.ask(self._question(endpoint, "blobs/uploads/", method="POST", expects=(202,)))
            place = self._place(endpoint, started)
            question = self._question(
                endpoint,
                "blobs/uploads/",
                method="PUT",
                url=f"{place}{'&' if '?' in place else '?'}{urlencode({'digest': str(digest)})}",
                headers={"Content-Type": "application/octet-stream"},
                expects=(201,),
                body=body,
            )
            try:
                exchange.ask(question).close()
            except Retryable as error:
                if isinstance(body, PipeBody) and body.is_spent:
                    raise Unrepeatable(str(error)) from error
                raise

        await self._registry.converse(self._ref, talk, moved=False)

    async def manifest(self, media_type: str, raw: bytes) -> Digest:
        """Put a manifest under the reference's tag, or its digest; returns the digest.

        Raises:
            Damaged: the registry names another digest for it.
            Unauthenticated, Forbidden, Unavailable: it says so, or does not answer.
        """
        digest = Digest.of(raw)
        asked = self._ref.digest or digest

        def talk(exchange: Exchange, endpoint: Endpoint) -> None:
            question = self._question(
                endpoint,
                f"manifests/{self._ref.tag or asked}",
                method="PUT",
                headers={"Content-Type": media_type},
                expects=(200, 201),
                body=BytesBody(raw),
            )
            answer = exchange.ask(question)
            said = answer.headers.get("Docker-Content-Digest", "").strip()
            answer.close()
            if said and said not in (digest, asked):
                raise Damaged(f"cannot push {self._ref}: registry {endpoint.api_host} has it as {said[:200]!r}, it is {digest}")

        await self._registry.converse(self._ref, talk, moved=False)
        return digest

    def _question(self, endpoint: Endpoint, path: str, **asked: Any) -> Question:
        return question_for(self._ref, endpoint, self._shown, path=path, actions=_ACTIONS, **asked)

    def _place(self, endpoint: Endpoint, answer: BaseHTTPResponse) -> str:
        """Where the registry wants to have the bytes; the answer is closed."""
        answer.close()
        location = answer.headers.get("Location", "")
        if not location:
            raise Unavailable(f"cannot push {self._ref}: registry {endpoint.api_host} says no place for the upload")
        return next_hop(str(answer.url), location, may_be_plain=lambda there: self._registry.hosts.is_insecure(there.netloc))

    def _drop(self, exchange: Exchange, endpoint: Endpoint, answer: BaseHTTPResponse) -> None:
        """An upload that was begun for nothing: many registries keep it for a week."""
        with contextlib.suppress(CriolloError):
            place = self._place(endpoint, answer)
            question = self._question(endpoint, "blobs/uploads/", method="DELETE", url=place, expects=(200, 202, 204))
            exchange.ask(question).close()
