"""A registry that lies, stalls and breaks off, over plain HTTP on a loopback port.

It serves what `add` gave it, properly, until a fault applies:

    with run_bad_registry() as bad:
        bad.add("team/app", "v1", image)
        bad.break_at("/blobs/", cut_after(1000), times=1)      # then the Range request is served
        bad.requests                                           # every request with its headers

A fault is a function of (handler, reply): it may answer by itself and return None, or return a changed `Reply`.
"""

import contextlib
import hashlib
import itertools
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from support.images import Image, Index, make_image
from support.serving import Quiet, serving

EMPTY_IMAGE = make_image([[]])


@dataclass(frozen=True)
class Reply:
    """What an honest registry would answer: `body` is the part asked for, `whole` the entire content."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    whole: bytes = b""

    def with_headers(self, **headers: str) -> "Reply":
        return replace(self, headers={**self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}})


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: Mapping[str, str]


Fault = Callable[["Handler", Reply], Reply | None]


@dataclass
class _Rule:
    part: str
    fault: Fault
    times: int


class BadRegistry:
    """Contents, faults and the record of one server; safe to use while it serves."""

    def __init__(self) -> None:
        self.host = ""
        self.requests: list[Request] = []
        self.released = threading.Event()  # lets `hang` go, at the end at the latest
        self._lock = threading.Lock()
        self._contents: dict[str, tuple[str, bytes]] = {}
        self._rules: list[_Rule] = []

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def reference(self, repository: str, tag: str = "latest") -> str:
        return f"{self.host}/{repository}:{tag}"

    def registries_conf(self) -> str:
        return f'[[registry]]\nlocation = "{self.host}"\ninsecure = true\n'

    def add(self, repository: str, tag: str, image: Image | Index) -> None:
        for part in image.images if isinstance(image, Index) else (image,):
            for digest, content in part.blobs.items():
                self._contents[f"/v2/{repository}/blobs/{digest}"] = ("application/octet-stream", content)
            self._contents[f"/v2/{repository}/manifests/{part.digest}"] = (part.media_type, part.manifest)
        self.add_manifest(repository, tag, image.media_type, image.manifest)
        self.add_manifest(repository, image.digest, image.media_type, image.manifest)

    def add_manifest(self, repository: str, tag: str, media_type: str, manifest: bytes) -> None:
        self._contents[f"/v2/{repository}/manifests/{tag}"] = (media_type, manifest)

    def add_blob(self, repository: str, content: bytes) -> str:
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        self._contents[f"/v2/{repository}/blobs/{digest}"] = ("application/octet-stream", content)
        return digest

    def whole(self, path: str) -> bytes:
        """What an honest answer to this path would be."""
        return self._contents[path][1]

    def break_at(self, part: str, fault: Fault, *, times: int = 1 << 30) -> None:
        """Apply `fault` to the next `times` requests whose path contains `part`; earlier calls go first."""
        with self._lock:
            self._rules.append(_Rule(part, fault, times))

    def asked(self, part: str) -> list[Request]:
        with self._lock:
            return [request for request in self.requests if part in request.path]

    def reply_to(self, request: Request) -> tuple[Reply, Fault | None]:
        with self._lock:
            self.requests.append(request)
            rule = next((rule for rule in self._rules if rule.times > 0 and rule.part in request.path), None)
            if rule is not None:
                rule.times -= 1
        return self._honest(request), rule.fault if rule is not None else None

    def _honest(self, request: Request) -> Reply:
        found = self._contents.get(request.path.partition("?")[0])
        if found is None:
            body = b'{"errors":[{"code":"NAME_UNKNOWN","message":"not here"}]}'
            return Reply(404, {"Content-Length": str(len(body))}, body, body)
        media_type, whole = found
        digest = "sha256:" + hashlib.sha256(whole).hexdigest()
        headers = {"Content-Type": media_type, "Docker-Content-Digest": digest, "Accept-Ranges": "bytes"}
        asked = request.headers.get("range", "")
        if not asked:
            return Reply(200, {**headers, "Content-Length": str(len(whole))}, whole, whole)
        start = int(asked.removeprefix("bytes=").partition("-")[0])
        if start >= len(whole):
            return Reply(416, {"Content-Length": "0"}, b"", whole)
        headers |= {"Content-Length": str(len(whole) - start), "Content-Range": f"bytes {start}-{len(whole) - 1}/{len(whole)}"}
        return Reply(206, headers, whole[start:], whole)


class Handler(Quiet):
    protocol_version = "HTTP/1.1"
    registry: BadRegistry

    def do_GET(self) -> None:
        request = Request(self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
        reply, fault = self.registry.reply_to(request)
        changed = fault(self, reply) if fault is not None else reply
        if changed is not None:
            self.send(changed)

    do_HEAD = do_GET

    def send(self, reply: Reply) -> None:
        self.start(reply)
        if self.command != "HEAD":
            self.wfile.write(reply.body)

    def start(self, reply: Reply) -> None:
        """Status and headers alone."""
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()

    def cut(self) -> None:
        """End the connection as a crash would."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def wait_for_release(self) -> None:
        """Hold the connection until the test lets go; it ends then."""
        self.registry.released.wait()
        self.cut()


@contextlib.contextmanager
def run_bad_registry() -> Iterator[BadRegistry]:
    bad = BadRegistry()
    with serving(type("BadHandler", (Handler,), {"registry": bad})) as port:
        bad.host = f"127.0.0.1:{port}"
        try:
            yield bad
        finally:
            bad.released.set()


@contextlib.contextmanager
def run_bad_registry_of(content: bytes, *, repository: str = "team/app") -> Iterator[BadRegistry]:
    """One with an image of no content, `v1`, and a blob of this content beside it."""
    with run_bad_registry() as bad:
        bad.add(repository, "v1", EMPTY_IMAGE)
        bad.add_blob(repository, content)
        yield bad


# Faults ---------------------------------------------------------------------------------------------------------------


def status(code: int, body: bytes = b"", **headers: str) -> Fault:
    """Another status, with headers (`_` for `-`): `status(429, Retry_After="1")`."""
    return lambda handler, reply: Reply(code, {"Content-Length": str(len(body))}, body).with_headers(**headers)


def redirect(location: str, code: int = 307) -> Fault:
    return status(code, Location=location)


def challenge(text: str) -> Fault:
    """A 401 with this WWW-Authenticate."""
    return status(401, WWW_Authenticate=text)


def cut_after(count: int) -> Fault:
    """Send the headers and `count` bytes of the body, then break the connection."""

    def fault(handler: Handler, reply: Reply) -> None:
        handler.start(reply)
        handler.wfile.write(reply.body[:count])
        handler.cut()

    return fault


def cut_at_once() -> Fault:
    """No answer at all."""

    def fault(handler: Handler, reply: Reply) -> None:
        handler.cut()

    return fault


def hang_after(count: int) -> Fault:
    """Send `count` bytes of the body, then nothing more until `released`."""

    def fault(handler: Handler, reply: Reply) -> None:
        handler.start(reply)
        handler.wfile.write(reply.body[:count])
        handler.wfile.flush()
        handler.wait_for_release()

    return fault


def hang() -> Fault:
    """Take the request and say nothing until `released`."""

    def fault(handler: Handler, reply: Reply) -> None:
        handler.wait_for_release()

    return fault


def flip(at: int = 0) -> Fault:
    """One wrong byte; length and headers stay honest."""

    def fault(handler: Handler, reply: Reply) -> Reply:
        body = bytearray(reply.body)
        body[at] ^= 0xFF
        return replace(reply, body=bytes(body))

    return fault


def extra(more: bytes = b"x", *, chunked: bool = False) -> Fault:
    """More than the descriptor says: in an honest Content-Length, or in chunks."""

    def fault(handler: Handler, reply: Reply) -> Reply:
        body = reply.body + more
        if not chunked:
            return replace(reply, body=body).with_headers(Content_Length=str(len(body)))
        headers = {name: value for name, value in reply.headers.items() if name != "Content-Length"}
        framed = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
        return replace(reply, body=framed, headers={**headers, "Transfer-Encoding": "chunked"})

    return fault


def endless(chunk: bytes = b"a" * 65536) -> Fault:
    """A chunked body without an end."""

    def fault(handler: Handler, reply: Reply) -> None:
        headers = {name: value for name, value in reply.headers.items() if name != "Content-Length"}
        handler.start(replace(reply, headers={**headers, "Transfer-Encoding": "chunked"}))
        framed = f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n"
        with contextlib.suppress(OSError):
            while not handler.registry.released.is_set():
                handler.wfile.write(framed)
        handler.cut()

    return fault


def drip(interval_s: float) -> Fault:
    """One byte per interval."""

    def fault(handler: Handler, reply: Reply) -> None:
        handler.start(reply)
        with contextlib.suppress(OSError):
            for byte in reply.body:
                handler.wfile.write(bytes([byte]))
                handler.wfile.flush()
                if handler.registry.released.wait(interval_s):
                    break
        handler.cut()

    return fault


def endless_bytes(first: bytes, again: bytes) -> Fault:
    """Raw bytes for an answer: `first`, then `again` for ever."""

    def fault(handler: Handler, reply: Reply) -> None:
        with contextlib.suppress(OSError):
            handler.wfile.write(first)
            while not handler.registry.released.is_set():
                handler.wfile.write(again * (1 + 4096 // len(again)))
        handler.cut()

    return fault


def drip_bytes(first: bytes, again: bytes, interval_s: float) -> Fault:
    """Raw bytes for an answer: `first`, then those of `again` one per interval, for ever."""

    def fault(handler: Handler, reply: Reply) -> None:
        with contextlib.suppress(OSError):
            handler.wfile.write(first)
            for byte in itertools.cycle(again):
                handler.wfile.write(bytes([byte]))
                handler.wfile.flush()
                if handler.registry.released.wait(interval_s):
                    break
        handler.cut()

    return fault


def headers(**changed: str) -> Fault:
    """Lie in headers only: `headers(Docker_Content_Digest="sha256:…")`."""
    return lambda handler, reply: reply.with_headers(**changed)


def ignore_range() -> Fault:
    """Answer a Range request with the whole."""

    def fault(handler: Handler, reply: Reply) -> Reply:
        kept = {name: value for name, value in reply.headers.items() if name not in ("Content-Range", "Content-Length")}
        return Reply(200, {**kept, "Content-Length": str(len(reply.whole))}, reply.whole, reply.whole)

    return fault
