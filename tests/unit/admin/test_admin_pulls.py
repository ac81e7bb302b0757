"""The routes of pulls in progress, with a pull that only waits."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.image_store import image_store

from criollo.admin.pulls import pull_routes
from criollo.aio.http_server import Reply, Request
from criollo.aio.jobs import Job
from criollo.errors import NotFound, Unavailable
from criollo.images.context import Images
from criollo.images.progress import LayerProgress, Progress
from criollo.model.ids import ImageId
from criollo.model.transfer import Event


def run(root: Path, body: Callable[[Images, Progress, "asyncio.Task[Any]"], Coroutine[Any, Any, None]]) -> None:
    with image_store(root) as images:

        async def main() -> None:
            await images.layers.open()
            progress = Progress("example.com/a:1")
            progress.layers = [LayerProgress("sha256:1", 10)]

            async def pull(job: Job[ImageId]) -> ImageId:
                progress.job = job
                with images.progress.shown(progress):
                    await asyncio.Event().wait()
                return ImageId("")

            task = asyncio.get_running_loop().create_task(images.pulls.join("key", pull))
            while not images.progress.running():
                await asyncio.sleep(0)
            await body(images, progress, task)

        asyncio.run(main())


async def ask(images: Images, method: str, path: str, *words: str) -> Reply:
    return await pull_routes(images)[method, path](Request(method=method, path=path, query={}, headers={}, words=words))


def test_a_pull_is_listed_followed_and_ended(tmp_path: Path) -> None:
    async def body(images: Images, progress: Progress, task: "asyncio.Task[Any]") -> None:
        [listed] = json.loads((await ask(images, "GET", "/pulls")).body)
        assert (listed["id"], listed["reference"], listed["layers"][0]["size"]) == (progress.id, "example.com/a:1", 10)
        following = await ask(images, "GET", "/pulls/{}/events", progress.id)
        assert following.parts is not None
        first = [msgspec.json.decode(line, type=Event) for line in (await anext(following.parts)).splitlines()]
        assert [each.type for each in first] == ["begin", "stage", "layer"]
        ended = json.loads((await ask(images, "DELETE", "/pulls/{}", progress.id)).body)
        assert "ended by a request" in ended["error"]
        with pytest.raises(Unavailable, match="ended by a request"):
            await task
        last = [msgspec.json.decode(line, type=Event) async for lines in following.parts for line in lines.splitlines()]
        assert (last[-1].type, last[-1].error) == ("error", ended["error"])
        assert json.loads((await ask(images, "GET", "/pulls")).body) == []
        assert json.loads((await ask(images, "DELETE", "/pulls/{}", progress.id)).body) == ended  # safe to repeat

    run(tmp_path, body)


def test_a_push_is_no_pull(tmp_path: Path) -> None:
    async def body() -> None:
        with image_store(tmp_path) as images:
            push = Progress("example.com/a:1")
            with images.progress.shown(push):
                assert json.loads((await ask(images, "GET", "/pulls")).body) == []
                with pytest.raises(NotFound):
                    await ask(images, "DELETE", "/pulls/{}", push.id)

    asyncio.run(body())


def test_an_unknown_pull_is_not_found(tmp_path: Path) -> None:
    async def body(images: Images, progress: Progress, task: "asyncio.Task[Any]") -> None:
        for method, path in (("GET", "/pulls/{}/events"), ("DELETE", "/pulls/{}")):
            with pytest.raises(NotFound):
                await ask(images, method, path, "nothing")
        await images.pulls.close(limit_s=0)
        with pytest.raises(Unavailable):
            await task

    run(tmp_path, body)
