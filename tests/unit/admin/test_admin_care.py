"""admin.care: what a check may be told."""

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest
from support.image_store import image_store

from criollo.admin.care import care_routes
from criollo.aio.http_server import Request
from criollo.errors import Invalid
from criollo.images.check import Scope
from criollo.model.care import Scrubbed


def ask(tmp_path: Path, method: str, path: str, **query: str) -> Any:
    async def once() -> Any:
        routes = care_routes(images, Scope, Scrubbed)
        return await routes[method, path](
            Request(method=method, path=path, query={k: [v] for k, v in query.items()}, headers={})
        )

    with image_store(tmp_path) as images:
        asyncio.run(images.layers.open())
        return asyncio.run(once())


@pytest.mark.parametrize(
    "query", [{"quick": "yes"}, {"age_s": "-1"}, {"age_s": "x"}, {"age_s": "99999999999"}, {"repair": "2"}]
)
def test_nonsense_is_refused(tmp_path: Path, query: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        ask(tmp_path, "POST", "/check", **cast(Any, query))


def test_an_empty_store_is_whole(tmp_path: Path) -> None:
    assert b'"damaged":[]' in ask(tmp_path, "POST", "/check", quick="1", age_s="5").body


def test_the_scrub_is_told(tmp_path: Path) -> None:
    assert b'"enabled":false' in ask(tmp_path, "GET", "/scrub").body
