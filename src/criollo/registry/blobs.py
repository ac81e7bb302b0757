"""One blob on its way from a registry into a descriptor: counted, hashed, resumed.

Bytes go to the sink as they come, so whoever reads it must keep the result apart until the transfer has succeeded: the digest
is known only at the end. A connection that breaks off is resumed from the byte reached, at any endpoint; a server that does
not know ranges, or has none there, sends the beginning again, which is dropped.
"""

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Callable
from typing import Final, Protocol

from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from criollo.errors import Damaged, HostFailed, explain
from criollo.oci.digest import Digest
from criollo.registry.connections import Limits, Retryable, broken
from criollo.registry.endpoints import Endpoint
from criollo.registry.lifeline import Lifeline

_LEAST_BYTES: Final = 32 << 10  # to ask for at once: more than a record of TLS holds would be allocated in vain
_MOST_BYTES: Final = 512 << 10  # the larger a piece, the less it costs beside its bytes
_PIPE_BYTES: Final = 256 << 10  # larger ones only cost memory: 1 MiB was no faster
_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)", re.ASCII)


class Blob(Protocol):
    """What a descriptor says of a blob."""

    @property
    def digest(self) -> Digest: ...
    @property
    def size(self) -> int: ...


class Route:
    """Which endpoints' bytes have reached the sinks of one pull, per blob, and which are not to be asked any more.

    A mirror that sent wrong bytes is found out only at the end, when they have been passed on. So the caller starts anew, and
    the mirror is left out. The registry itself is never left out: its answer settles the matter.
    """

    def __init__(self, noted: Callable[[Blob, Endpoint], None] = lambda blob, endpoint: None) -> None:
        """`noted` is called in the transfer's thread for each answer that brings bytes of a blob."""
        self._noted = noted
        self._served: dict[str, list[Endpoint]] = {}
        self.avoided: frozenset[Endpoint] = frozenset()

    def came_from(self, blob: Blob, endpoint: Endpoint) -> None:
        """Bytes of the blob came from there."""
        self._served.setdefault(str(blob.digest), []).append(endpoint)
        self._noted(blob, endpoint)

    def hosts_of(self, blob: Blob) -> str:
        """Whose bytes of the blob they were, for a message."""
        return ", ".join(sorted({endpoint.api_host for endpoint in self._served.get(str(blob.digest), [])}))

    def leave_out_mirrors_of(self, blob: Blob) -> bool:
        """The blob was wrong: leave out the mirrors that it came from. False when there were none to leave out."""
        mirrors = {endpoint for endpoint in self._served.pop(str(blob.digest), []) if endpoint.is_mirror}
        found = bool(mirrors - self.avoided)
        self.avoided |= mirrors
        return found


class ReaderGone(HostFailed):
    """The sink's reader ended first; it knows why."""


class WrongBlob(Damaged):
    """A registry has something else than the blob; the message names it."""


class Spoiled(WrongBlob):
    """Wrong bytes have reached the sink: no other endpoint can mend that."""


class Download:
    """The state of one transfer across connections; `done` counts the bytes that reached the sink."""

    def __init__(
        self, blob: Blob, sink_fd: int, *, lifeline: Lifeline, limits: Limits, progress: Callable[[int], None] | None
    ) -> None:
        self._blob, self._sink, self._lifeline, self._limits = blob, sink_fd, lifeline, limits
        self._progress = progress or (lambda count: None)
        self._hasher = blob.digest.hasher()
        self._waited_s, self._came_bytes = 0.0, 0
        self.done = 0
        os.set_blocking(sink_fd, False)
        with contextlib.suppress(OSError):  # no pipe, or the user's share of pipe memory is used up
            fcntl.fcntl(sink_fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def headers(self) -> dict[str, str]:
        """The headers that ask for what is still missing."""
        return {"Range": f"bytes={self.done}-"} if self.done else {}

    def take(self, answer: BaseHTTPResponse, host: str) -> None:
        """Pass one answer's body on, and end well only when the blob is whole and right.

        Raises:
            Retryable: it broke off before the end.
            WrongBlob: the registry offers something of another size; nothing has been passed on.
            Spoiled: size or digest of what was passed on is wrong.
            ReaderGone: the sink's reader ended.
            Exhausted, HostFailed: the sink cannot be written.
        """
        try:
            skip = self._skip(answer, host)
            self._copy(answer, skip, host)
        except BaseException:
            answer.close()
            raise
        if self._hasher.hexdigest() != self._blob.digest.hex:
            answer.close()
            got = f"{self._blob.digest.algorithm}:{self._hasher.hexdigest()}"
            raise Spoiled(
                f"cannot use blob {self._blob.digest} from registry {host}: its bytes have digest {got}; "
                "the registry's copy is damaged, push the image again"
            )
        answer.release_conn()

    def _skip(self, answer: BaseHTTPResponse, host: str) -> int:
        """How many bytes of the body we have already."""
        if answer.status == 206:
            found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
            if found is None or int(found[1]) != self.done or found[3] not in ("*", str(self._blob.size)):
                raise Retryable(
                    f"cannot resume blob {self._blob.digest} from registry {host}: it sends another range than asked for"
                )
            return 0
        length = answer.headers.get("Content-Length", "")
        if length and length != str(self._blob.size):
            raise WrongBlob(
                f"cannot use blob {self._blob.digest} from registry {host}: it has {length[:20]} bytes, "
                f"its descriptor says {self._blob.size}"
            )
        return self.done

    def _copy(self, answer: BaseHTTPResponse, skip: int, host: str) -> None:
        size, wanted = self._blob.size, _LEAST_BYTES
        while True:
            started = time.monotonic()
            try:
                chunk = answer.read1(wanted)
            except (HTTPError, OSError) as error:
                self._lifeline.check()
                if self.done == size:
                    return
                raise broken(error, host, self._limits) from error
            if not chunk:
                break
            waited_s, came = time.monotonic() - started, len(chunk)
            wanted = min(max(_LEAST_BYTES, 2 * came), _MOST_BYTES)
            if skip:
                dropped = min(skip, len(chunk))
                skip -= dropped
                chunk = chunk[dropped:]
            if self.done + len(chunk) > size:
                raise Spoiled(
                    f"cannot use blob {self._blob.digest} from registry {host}: it has more than the {size} bytes "
                    "of its descriptor; push the image again"
                )
            self._pass_on(chunk)
            if self.done < size:
                self._check_pace(came, waited_s, host)
        self._lifeline.check()
        if self.done < size:
            raise Retryable(
                f"cannot fetch blob {self._blob.digest} from registry {host}: it ended after {self.done} of {size} bytes"
            )

    def _pass_on(self, chunk: bytes) -> None:
        self._hasher.update(chunk)
        left = memoryview(chunk)
        while left:
            try:
                left = left[os.write(self._sink, left) :]
            except BlockingIOError:
                self._lifeline.wait_writable(self._sink)
            except BrokenPipeError:
                raise ReaderGone(
                    f"cannot hand over blob {self._blob.digest}: its reader ended after {self.done} bytes"
                ) from None
            except OSError:
                with explain(f"write blob {self._blob.digest}"):
                    raise
        if chunk:
            self.done += len(chunk)
            self._progress(len(chunk))

    def _check_pace(self, count: int, waited_s: float, host: str) -> None:
        """A trickle is as bad as silence. Only time spent waiting for the registry counts, not for the sink."""
        self._waited_s += waited_s
        self._came_bytes += count
        if self._waited_s < self._limits.idle_s:
            return
        came_bytes, self._waited_s, self._came_bytes = self._came_bytes, 0.0, 0  # the next endpoint begins anew
        if came_bytes < self._limits.slowest_bytes:
            raise Retryable(
                f"cannot fetch blob {self._blob.digest} from registry {host}: under {self._limits.slowest_bytes} bytes "
                f"in {self._limits.idle_s:g} s; try again later"
            )
