"""What the routes for images of containerd refuse; what they do: tests/node/kpod/test_node_kpod_adopt.py."""

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from criollo.admin.adoption import ROUTE, adoption_routes
from criollo.aio import threads
from criollo.aio.http_server import Reply, Request
from criollo.errors import Invalid, NotFound


def ask(method: str, **query: list[str]) -> Reply:
    route = adoption_routes(cast(Any, None))[method, ROUTE]

    async def asked() -> Reply:
        return cast(Reply, await cast(Any, route)(Request(method=method, path=ROUTE, query=query, headers={})))

    try:
        return asyncio.run(asked())
    finally:
        threads.close()


@pytest.mark.parametrize("query", [{}, {"image": ["a"], "all": ["1"]}, {"all": ["0"]}])
def test_either_names_or_all(query: dict[str, list[str]]) -> None:
    with pytest.raises(Invalid, match="names of images, or all=1"):
        ask("POST", **query)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_root_is_an_absolute_path(method: str) -> None:
    with pytest.raises(Invalid, match="an absolute path"):
        ask(method, root=["var/lib"], all=["1"])


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_containerd_is_not_found(method: str, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="containerd's"):
        ask(method, root=[str(tmp_path)], all=["1"])
