"""The route for pushing: refusals at once as HTTP errors, everything later as the last event."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.image_store import add_image, image_store
from support.upload_registry import UploadRegistry, run_upload_registry

from criollo.admin.push import push_routes
from criollo.aio.http_server import Reply, Request
from criollo.errors import CriolloError, Invalid, NotFound
from criollo.images.context import Images
from criollo.model.transfer import Event
from criollo.registry.hosts import Hosts
from criollo.registry.registries_conf import Rule

ID, NAME = "1" * 64, "example.com/one:1"
MANIFEST = (
    b'{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:'
    + b"0" * 64
    + b'","size":2},"layers":[]}'
)
CONFIG = b'{"rootfs":{"type":"layers","diff_ids":[]}}'


def run(root: Path, taking: UploadRegistry, body: Callable[[Images], Coroutine[Any, Any, None]]) -> None:
    with image_store(root) as images:
        images.registry.use(Hosts([Rule(prefix=taking.host, location=taking.host, insecure=True)]))
        images.hosts = images.registry.hosts
        image = add_image(images, ID, names=[NAME], config=CONFIG)
        images.rows.remove(image.id)
        images.rows.add(msgspec.structs.replace(image, manifest=MANIFEST))

        async def main() -> None:
            try:
                await body(images)
            finally:
                await images.registry.close()

        asyncio.run(main())


async def ask(images: Images, image: str, **said: str) -> Reply:
    query = {"image": [image]} if image else {}
    request = Request(method="POST", path="/images/push", query=query, headers={}, body=msgspec.json.encode(said))
    return await push_routes(images)["POST", "/images/push"](request)


async def events(reply: Reply) -> list[Event]:
    assert reply.parts is not None
    return [msgspec.json.decode(line, type=Event) async for lines in reply.parts for line in lines.splitlines()]


@pytest.mark.parametrize(
    ("image", "said", "error"),
    [
        ("", {"target": "h.example/x"}, Invalid),
        ("none", {"target": "h.example/x"}, NotFound),
        (NAME, {}, Invalid),
        (NAME, {"target": "UPPER"}, Invalid),
        (NAME, {"target": "x@sha256:" + "0" * 64}, Invalid),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(
    tmp_path: Path, image: str, said: dict[str, str], error: type[CriolloError]
) -> None:
    async def body(images: Images) -> None:
        with pytest.raises(error):
            await ask(images, image, **said)

    with run_upload_registry() as taking:
        run(tmp_path, taking, body)


def test_the_last_event_is_the_result(tmp_path: Path) -> None:
    with run_upload_registry() as taking:

        async def body(images: Images) -> None:
            told = await events(await ask(images, NAME, target=f"{taking.host}/a:b"))
            assert [each.type for each in told] == ["begin", "result"]
            assert told[-1].digest.startswith("sha256:")
            assert taking.manifests.keys() == {"a b"}
            assert images.progress.running() == []

        run(tmp_path, taking, body)


def test_the_last_event_is_the_error_and_shows_no_password(tmp_path: Path) -> None:
    with run_upload_registry() as taking:
        taking.answer_for["HEAD"] = [(401, {"WWW-Authenticate": 'Basic realm="x"'})] * 4

        async def body(images: Images) -> None:
            asked = await ask(images, NAME, target=f"{taking.host}/a:b", username="alice", password="hunter2")
            told = await events(asked)
            assert told[-1].type == "error"
            assert "refuses the credentials" in told[-1].error
            assert "hunter2" not in told[-1].error
            wrong = await events(await ask(images, NAME, target=f"{taking.host}/a:b", format="rar"))
            assert wrong[-1].error.startswith("format:")

        run(tmp_path, taking, body)


def test_a_client_that_hangs_up_ends_the_push(tmp_path: Path) -> None:
    with run_upload_registry() as taking:

        async def body(images: Images) -> None:
            await images.layers.open()
            reply = await ask(images, NAME, target=f"{taking.host}/a:b")
            assert reply.parts is not None
            await anext(reply.parts)
            await reply.parts.aclose()
            assert images.progress.running() == []

        run(tmp_path, taking, body)
