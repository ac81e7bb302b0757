"""images.repair: what a flush that fails costs, and what is nobody's; whole repairs are in test_daemon_care.py."""

import os
import time
from pathlib import Path

import pytest
from support import images as made
from support.image_store import planned, run

from criollo.errors import HostFailed
from criollo.images import check, repair
from criollo.images.collect import leased
from criollo.images.commit import Blob
from criollo.images.context import Images
from criollo.images.flush import DOUBTFUL
from criollo.model.care import Report
from criollo.oci.reference import Reference
from criollo.state.images import LayerRow
from criollo.storage.layers import Staging
from criollo.workers.messages import Unpacked

A, B = "a" * 32, "b" * 32


def written(images: Images, name: str) -> None:
    (images.layers.directory / name).mkdir()
    images.rows.add_layer(LayerRow(name, "sha256:" + "0" * 64, 1, 1, images.boot))


def test_a_flush_that_fails_in_a_repair_leaves_doubt_about_all_that_waited_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells of a lost write once: the next flush would call it good."""
    [blob] = planned(made.make_image([[made.file("a", "a")]]))

    async def stage(images: Images, blob: Blob, feed: object) -> tuple[Staging, Unpacked]:
        return await images.layers.stage(), Unpacked(diff_id=str(blob.diff_id), size_bytes=1, inodes=1)

    async def fail() -> None:
        raise HostFailed("input/output error")

    async def body(images: Images) -> None:
        written(images, A)
        with monkeypatch.context() as patch:
            patch.setattr(repair, "stage_layer", stage)
            patch.setattr(images.layers, "sync", fail)
            with pytest.raises(HostFailed):
                await repair._pull_from(images, Reference.parse("example.com/a:v1"), blob)
        assert os.listdir(images.layers.root / "staging") == []
        await images.flush.rest()
        assert images.rows.layer(A) == LayerRow(A, "sha256:" + "0" * 64, 1, 1, images.boot + DOUBTFUL)

    run(tmp_path, body)


def test_a_layer_that_was_written_while_another_flush_failed_replaces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [blob] = planned(made.make_image([[made.file("a", "a")]]))

    async def fail() -> None:
        raise HostFailed("input/output error")

    async def stage(images: Images, blob: Blob, feed: object) -> tuple[Staging, Unpacked]:
        staging = await images.layers.stage()
        with monkeypatch.context() as patch:
            patch.setattr(images.layers, "sync", fail)
            await images.flush.rest()
        return staging, Unpacked(diff_id=str(blob.diff_id), size_bytes=1, inodes=1)

    async def body(images: Images) -> None:
        written(images, A)
        with monkeypatch.context() as patch:
            patch.setattr(repair, "stage_layer", stage)
            with pytest.raises(HostFailed, match="the disk failed while it was written"):
                await repair._pull_from(images, Reference.parse("example.com/a:v1"), blob)
        assert os.listdir(images.layers.root / "staging") == []
        assert not images.layers.has(blob.name)

    run(tmp_path, body)


def whole() -> Report:
    return Report(quick=True, images=0)


def test_what_nobody_knows_goes_when_it_is_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(images: Images) -> None:
        written(images, A)
        (images.layers.directory / B).mkdir()
        await repair.repair_stores(images, whole(), age_s=3600)
        assert images.layers.has(B)
        with leased(images, [B]):
            await repair.repair_stores(images, whole(), age_s=0)
            assert images.layers.has(B)
        now = time.time()
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: now - 365 * 86400)  # older than it can be
            await repair.repair_stores(images, whole(), age_s=3600)
            assert images.layers.has(B)
        await repair.repair_stores(images, whole(), age_s=0)
        assert not images.layers.has(B)

    run(tmp_path, body)


def test_what_a_pull_wants_after_the_look_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def look(images: Images, *, age_s: float) -> list[str]:
        found = check.garbage(images, age_s=age_s)
        images.leases.update(found)
        return found

    async def body(images: Images) -> None:
        (images.layers.directory / B).mkdir()
        monkeypatch.setattr(repair, "garbage", look)
        await repair.repair_stores(images, whole(), age_s=0)
        assert images.layers.has(B)

    run(tmp_path, body)
