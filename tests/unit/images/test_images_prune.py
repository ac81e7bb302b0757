"""images.prune: what somebody needs stays, and a dry run tells what would happen."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest
from support.image_store import add_image, image_store

from criollo.images.collect import KEPT_S, leased
from criollo.images.context import Finished, Images
from criollo.images.prune import prune_images
from criollo.model.store import Pruned
from criollo.state.images import LayerRow

A, B, C, D = "a" * 32, "b" * 32, "c" * 32, "d" * 32
USED, TAGGED, DANGLING, PINNED = "1" * 64, "2" * 64, "3" * 64, "4" * 64


def run(root: Path, body: Callable[[Images], Coroutine[object, object, None]]) -> None:
    with image_store(root) as images:

        async def inside() -> None:
            await images.layers.open()
            for name in (A, B, C, D):
                images.layers.path(name).mkdir()
            add_image(images, USED, layers=[A])
            add_image(images, TAGGED, names=["example.com/tagged:1"], layers=[A, B])
            add_image(images, DANGLING, digests=["example.com/old@sha256:" + "0" * 64], layers=[A, B, C])
            add_image(images, PINNED, names=["example.com/pause:1"], layers=[])
            images.pinned = ["example.com/pause:1"]
            images.in_use = lambda image_id: ["c1"] if image_id == USED else []
            await body(images)

        asyncio.run(inside())


def told(pruned: Pruned) -> tuple[list[str], list[str], int]:
    return sorted(each.id for each in pruned.images), sorted(each.layer for each in pruned.layers), pruned.freed_bytes


@pytest.mark.parametrize(("all_unused", "expected"), [(False, ([DANGLING], [C], 10)), (True, ([TAGGED, DANGLING], [B, C], 20))])
def test_what_nobody_needs_goes_and_a_dry_run_says_so(
    tmp_path: Path, all_unused: bool, expected: tuple[list[str], list[str], int]
) -> None:
    async def body(images: Images) -> None:
        would = await prune_images(images, all_unused=all_unused, dry_run=True)
        assert len(images.rows.all()) == 4
        pruned = await prune_images(images, all_unused=all_unused)
        assert told(would) == told(pruned) == expected
        assert would.kept == pruned.kept
        assert pruned.kept["111111111111"] == "used by 1 container"
        assert ("example.com/pause:1" in pruned.kept) is all_unused
        assert not any(images.layers.has(layer) for layer in expected[1])
        assert images.layers.has(A)
        assert told(await prune_images(images, all_unused=all_unused)) == ([], [], 0)

    run(tmp_path, body)


def test_what_a_verb_works_with_stays(tmp_path: Path) -> None:
    async def body(images: Images) -> None:
        with leased(images, [C]):
            pruned = await prune_images(images, all_unused=True)
            assert told(pruned)[0] == [TAGGED]
            assert pruned.kept["example.com/old@sha256:" + "0" * 64] == "in work"
        assert images.layers.has(B)

    run(tmp_path, body)


def test_layers_of_a_cut_pull_stay_while_they_are_fresh_unless_all_go(tmp_path: Path) -> None:
    async def body(images: Images) -> None:
        row = LayerRow(D, "sha256:" + "0" * 64, 7, 1)
        images.finished[D] = Finished(row, time.monotonic())
        assert D not in told(await prune_images(images, dry_run=True))[1]
        assert D not in told(await prune_images(images))[1]
        assert D in told(await prune_images(images, all_unused=True, dry_run=True))[1]
        assert D in told(await prune_images(images, all_unused=True))[1]
        images.layers.path(D).mkdir()
        images.finished[D] = Finished(row, time.monotonic() - KEPT_S - 1)
        assert D in told(await prune_images(images, dry_run=True))[1]
        assert D in told(await prune_images(images))[1]

    run(tmp_path, body)
