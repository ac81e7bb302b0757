"""A registry that takes uploads, remembers every request, and fails where it is told to.

with run_upload_registry() as taking:
    taking.answers.append((503, {}))         # the next answers, whatever is asked
    taking.blobs, taking.manifests           # what it has: "repo digest" → bytes, "repo tag" → bytes
    taking.requests                          # method, path, headers, bytes of the body
"""

import contextlib
import hashlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from support.serving import Quiet, serving


@dataclass(frozen=True)
class Asked:
    """A request; `method` and `path` in one text for tests."""

    text: str
    authorization: str
    body: bytes


@dataclass
class UploadRegistry:
    """Contents, faults and the record of one server."""

    host: str = ""
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    requests: list[Asked] = field(default_factory=list)
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    answer_for: dict[str, list[tuple[int, dict[str, str]]]] = field(default_factory=dict)  # by the beginning of "METHOD /path"
    upload_host: str = ""  # where uploads are to go, if not here
    mounts: bool = True
    pages: list[list[str]] = field(default_factory=list)
    under_way: int = 0  # of the largest body, so far
    cut_bodies: int = 0  # so many uploads are cut in the middle
    lock: threading.Lock = field(default_factory=threading.Lock)

    def asked(self, beginning: str) -> list[Asked]:
        return [each for each in self.requests if each.text.startswith(beginning)]


@contextlib.contextmanager
def run_upload_registry() -> Iterator[UploadRegistry]:
    taking = UploadRegistry()
    with serving(type("UploadHandler", (_Handler,), {"taking": taking})) as port:
        taking.host = f"127.0.0.1:{port}"
        yield taking


class _Handler(Quiet):
    protocol_version = "HTTP/1.1"
    taking: UploadRegistry

    def do_GET(self) -> None:
        taking, length = self.taking, int(self.headers.get("Content-Length") or 0)
        if self.command == "PUT" and "/uploads/" in self.path and self._is_cut():
            self.rfile.read(length // 2)
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            return
        body = self._body(length)
        if len(body) < length:  # whoever sends it has given up
            self.close_connection = True
            return
        text = f"{self.command} {self.path}"
        with taking.lock:
            taking.requests.append(Asked(text, self.headers.get("Authorization", ""), body))
            status, headers = self._next(text) or self._honest(body)
        self.send_response(status)
        content = headers.pop("body", "").encode()
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _is_cut(self) -> bool:
        with self.taking.lock:
            self.taking.cut_bodies -= (is_cut := self.taking.cut_bodies > 0)
        return is_cut

    def _body(self, length: int) -> bytes:
        taken = bytearray()
        while piece := self.rfile.read1(min(length - len(taken), 1 << 16)) if len(taken) < length else b"":
            taken += piece
            self.taking.under_way = max(self.taking.under_way, len(taken))
        return bytes(taken)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _next(self, text: str) -> tuple[int, dict[str, str]] | None:
        for beginning, answers in self.taking.answer_for.items():
            if text.startswith(beginning) and answers:
                return answers.pop(0)
        return self.taking.answers.pop(0) if self.taking.answers else None

    def _honest(self, body: bytes) -> tuple[int, dict[str, str]]:
        taking, parts = self.taking, urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        repository, _, rest = parts.path.removeprefix("/v2/").partition("/blobs/")
        if parts.path.endswith("/tags/list"):
            return self._tags(int(query.get("page", 0)))
        if self.command == "PUT" and "/manifests/" in parts.path:
            repository, _, tag = parts.path.removeprefix("/v2/").partition("/manifests/")
            taking.manifests[f"{repository} {tag}"] = body
            return 201, {"Docker-Content-Digest": "sha256:" + hashlib.sha256(body).hexdigest()}
        if self.command == "HEAD":
            found = taking.blobs.get(f"{repository} {rest}")
            return (404, {}) if found is None else (200, {"Content-Length": str(len(found))})
        if self.command == "POST":
            source = taking.blobs.get(f"{query.get('from', '')} {query.get('mount', '')}")
            if source is not None and taking.mounts:
                taking.blobs[f"{repository} {query['mount']}"] = source
                return 201, {}
            where = f"http://{taking.upload_host}" if taking.upload_host else ""
            return 202, {"Location": f"{where}/v2/{repository}/blobs/uploads/1?state=x"}
        if self.command == "PUT":
            if query["digest"] != "sha256:" + hashlib.sha256(body).hexdigest():
                return 400, {"body": '{"errors":[{"code":"DIGEST_INVALID"}]}'}
            taking.blobs[f"{repository} {query['digest']}"] = body
            return 201, {}
        return 204, {}

    def _tags(self, page: int) -> tuple[int, dict[str, str]]:
        pages = self.taking.pages
        listed = ",".join(f'"{tag}"' for tag in pages[page]) if pages else ""
        more = {"Link": f'</v2/x/tags/list?page={page + 1}>; rel="next"'} if page + 1 < len(pages) else {}
        return 200, {"body": f'{{"name":"x","tags":[{listed}]}}', "Content-Type": "application/json", **more}
