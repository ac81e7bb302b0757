"""images.usage: each layer counts once, and what nobody needs is told."""

import asyncio
from pathlib import Path
from typing import Any, cast

from support.image_store import add_image, image_store

from criollo.images.collect import leased
from criollo.images.context import Finished, Images
from criollo.images.usage import disk_usage, unused_layers
from criollo.model.store import DiskUsage
from criollo.state.images import LayerRow
from criollo.storage.base import Usage

A, B, C, D = "a" * 32, "b" * 32, "c" * 32, "d" * 32


class Roots:
    def ids(self) -> set[str]:
        return {"c" * 64, "d" * 64}

    async def usage(self, container_id: str) -> Usage:
        return Usage(100, 3) if container_id.startswith("c") else Usage(5, 1)


def measured(images: Images) -> DiskUsage:
    images.roots = cast(Any, Roots())
    return asyncio.run(disk_usage(images))


def test_shared_and_unique_add_up(tmp_path: Path) -> None:
    with image_store(tmp_path) as images:
        add_image(images, "1" * 64, names=["example.com/one:1"], layers=[A, B])
        add_image(images, "2" * 64, layers=[A])
        images.in_use = lambda image_id: ["c" * 64] if image_id.startswith("1") else []
        usage = measured(images)
    assert [(each.id[0], each.size_bytes, each.shared_bytes, each.unique_bytes, each.containers) for each in usage.images] == [
        ("1", 20, 10, 10, 1),
        ("2", 10, 10, 0, 0),
    ]
    assert usage.layers_bytes == 20
    assert [(each.image_id[:1], each.writable_bytes, each.inodes) for each in usage.containers] == [("1", 100, 3), ("", 5, 1)]
    assert (usage.containers_bytes, usage.unused_bytes) == (105, 0)


def test_layers_without_an_image_are_told_with_the_reason(tmp_path: Path) -> None:
    with image_store(tmp_path) as images:
        image = add_image(images, "1" * 64, layers=[A, B])
        images.rows.remove(image.id)
        for name in (C, D):
            images.finished[name] = Finished(LayerRow(name, "sha256:" + "0" * 64, 7, 1), 0)
        with leased(images, [B, D]):
            assert [(each.layer, each.why) for each in unused_layers(images)] == [
                (A, "left over"),
                (B, "in work"),
                (C, "cut pull"),
                (D, "in work"),
            ]
        usage = measured(images)
    assert (usage.unused_bytes, usage.layers_bytes) == (34, 34)
