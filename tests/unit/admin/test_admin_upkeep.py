"""The routes of images without a call in CRI: they say what their verbs say, and refuse what makes no sense."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.image_store import add_image, image_store

from criollo.admin.upkeep import upkeep_routes
from criollo.aio.http_server import Request, WithClient
from criollo.errors import CriolloError, Invalid, NotFound
from criollo.images.context import Images

ID, NAME, LAYER = "1" * 64, "example.com/one:1", "a" * 32


def call(images: Images, method: str, path: str, query: Mapping[str, list[str]] | None = None, body: bytes = b"") -> bytes:
    async def main() -> bytes:
        await images.layers.open()
        request = Request(method=method, path=path, query=dict(query or {}), headers={}, body=body)
        return (await upkeep_routes(images)[method, path](request)).body

    return asyncio.run(main())


def test_names_history_and_tree_travel_as_json(tmp_path: Path) -> None:
    with image_store(tmp_path) as images:
        add_image(images, ID, names=[NAME], layers=[LAYER], config=b'{"history":[{"created_by":"x"}]}')
        tagged = json.loads(call(images, "POST", "/images/tag", {"image": [NAME], "name": ["two", "three"]}))
        assert tagged == {"names": ["docker.io/library/two:latest", "docker.io/library/three:latest"]}
        assert (
            json.loads(call(images, "POST", "/images/untag", {"image": [ID], "name": ["two"]}))["names"] == tagged["names"][:1]
        )
        [step] = json.loads(call(images, "GET", "/images/history", {"image": [ID]}))
        assert (step["created_by"], step["layer"], step["size_bytes"]) == ("x", LAYER, 10)
        assert json.loads(call(images, "GET", "/images/tree", {"image": [ID]}))["layers"][0]["shared_with"] == []


def test_documents_are_exact_bytes(tmp_path: Path) -> None:
    with image_store(tmp_path) as images:
        image = add_image(images, ID, config=b'{ "a" : 1 }')
        assert call(images, "GET", "/images/config", {"image": [ID]}) == image.config
        assert call(images, "GET", "/images/manifest", {"image": [ID]}) == image.manifest


def test_a_dry_prune_changes_nothing(tmp_path: Path) -> None:
    with image_store(tmp_path) as images:
        add_image(images, ID, layers=[LAYER])
        would = json.loads(call(images, "POST", "/images/prune", {"dry_run": ["1"], "all": ["1"]}))
        assert (would["dry_run"], [each["id"] for each in would["images"]], would["freed_bytes"]) == (True, [ID], 10)
        assert len(images.rows.all()) == 1
        assert json.loads(call(images, "POST", "/images/prune"))["images"] == would["images"]
        assert images.rows.all() == []


@pytest.mark.parametrize(
    ("method", "path", "query", "body", "error"),
    [
        ("POST", "/images/tag", {"image": [ID]}, b"", Invalid),
        ("POST", "/images/tag", {"name": ["x"]}, b"", Invalid),
        ("POST", "/images/tag", {"image": ["no"], "name": ["x"]}, b"", NotFound),
        ("GET", "/images/history", {"image": ["no"]}, b"", NotFound),
        ("GET", "/images/tree", {}, b"", Invalid),
        ("GET", "/images/config", {"image": ["no"]}, b"", NotFound),
        ("POST", "/images/prune", {"all": ["yes"]}, b"", Invalid),
        ("POST", "/images/import", {"path": ["relative"]}, b"", Invalid),
        ("POST", "/images/import", {"path": ["/x"]}, b"[", Invalid),
        ("POST", "/images/import", {"path": ["/x"]}, b'{"platform":"linux"}', Invalid),
        ("POST", "/images/import", {"path": ["/x"]}, b'{"changes":["RUN x"]}', Invalid),
        ("POST", "/images/import", {"path": ["/x"], "name": ["a@sha256:" + "0" * 64]}, b"", Invalid),
    ],
)
def test_what_makes_no_sense_is_refused(
    tmp_path: Path, method: str, path: str, query: dict[str, Any], body: bytes, error: type[CriolloError]
) -> None:
    with image_store(tmp_path) as images:
        add_image(images, ID, names=[NAME])
        with pytest.raises(error):
            call(images, method, path, query, body)


def test_an_import_ends_with_its_client(tmp_path: Path) -> None:
    with image_store(tmp_path) as images:
        assert isinstance(upkeep_routes(images)["POST", "/images/import"], WithClient)
