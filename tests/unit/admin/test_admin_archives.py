"""What the route of files refuses before the connection is upgraded."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from criollo.admin.archives import serve_files
from criollo.aio.http_server import Reply, Request
from criollo.errors import CriolloError, Invalid, NotFound


class Rows:
    """One container, known by its id."""

    def find(self, text: str) -> Any:
        if not text:
            raise Invalid("container_id", text, "an id")
        if text != "c" * 64:
            raise NotFound("container", text)
        return SimpleNamespace(id=text, state="RUNNING")


def ask(
    method: str = "GET", path: str = "/files", *, upgrade: str = "criollo-files", query: dict[str, str] | None = None
) -> Reply | None:
    """The route's answer; it must not touch the connection."""
    containers: Any = SimpleNamespace(state=SimpleNamespace(containers=Rows()))
    request = Request(
        method=method, path=path, query={key: [value] for key, value in (query or {}).items()}, headers={"upgrade": upgrade}
    )
    return asyncio.run(serve_files(containers, request, None))  # type: ignore[arg-type]  # nothing is written to it


def test_another_path_or_protocol_is_refused() -> None:
    for status, answer in ((404, ask(path="/filesystem")), (426, ask(upgrade="")), (426, ask(upgrade="websocket"))):
        assert answer is not None
        assert answer.status == status


@pytest.mark.parametrize(
    ("method", "query", "error"),
    [
        ("GET", {"container": "nobody", "path": "/"}, NotFound),
        ("GET", {"path": "/"}, Invalid),
        ("GET", {"container": "c" * 64, "path": "/", "name": "/etc"}, Invalid),
        ("GET", {"container": "c" * 64, "path": "/", "name": "a/../b"}, Invalid),
        ("POST", {"container": "nobody", "path": "/", "shape": "archive"}, NotFound),
        ("POST", {"container": "c" * 64, "path": "/", "shape": "tree"}, Invalid),
        ("POST", {"container": "c" * 64, "path": "/", "shape": "file"}, Invalid),
        ("POST", {"container": "c" * 64, "path": "/", "shape": "file", "base": "a/b"}, Invalid),
        ("POST", {"container": "c" * 64, "path": "/", "shape": "directory", "base": ".."}, Invalid),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(method: str, query: dict[str, str], error: type[CriolloError]) -> None:
    with pytest.raises(error):
        ask(method, query=query)
