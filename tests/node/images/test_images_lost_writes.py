"""Directories that are saved or copied to a disk that loses writes: none is told whole, whoever has heard of it before."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.image_store import image_store
from support.images import file, make_image, write_docker_archive
from support.lossy_disk import LossyDisk, lossy_disk

from criollo.errors import CriolloError
from criollo.images import savedforms
from criollo.images.copytargets import opened_dir_target
from criollo.images.load import load_images
from criollo.images.save import DIRECTORIES, Shape, save_images
from criollo.images.savedforms import Written
from criollo.oci.digest import Digest
from criollo.oci.image_spec import OCI_MANIFEST
from criollo.workers.pool import Workers

pytestmark = pytest.mark.node

NAME = "example.com/a:1"
SIZE_BYTES = 2 << 20


@pytest.fixture
def disk() -> Iterator[LossyDisk]:
    with lossy_disk() as made:
        made.sync()
        yield made


@pytest.mark.parametrize("form", DIRECTORIES)
def test_a_save_that_lost_a_write_fails_though_another_process_was_told_of_it(
    tmp_path: Path, disk: LossyDisk, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = savedforms.FORMS[form]

    def finish_and_tell_another(tree: Path, written: list[Written]) -> None:
        finish(tree, written)
        disk.tell_another()

    async def body() -> None:
        async with images.workers:
            await images.layers.open()
            content = {NAME: make_image([[file("a", os.urandom(SIZE_BYTES))]])}
            await load_images(images, write_docker_archive(tmp_path / "in.tar", content))
            monkeypatch.setitem(savedforms.FORMS, form, finish_and_tell_another)
            with disk.losing(), pytest.raises(CriolloError, match=r"cannot write .*: (Input/output error|No space left)"):
                await save_images(images, [NAME], disk.mounted / "it", Shape(form))

    with image_store(tmp_path, workers=Workers()) as images:
        asyncio.run(body())
    assert not (disk.mounted / "it").exists()


def test_a_copy_that_lost_a_write_fails_though_another_process_was_told_of_it(disk: LossyDisk) -> None:
    content = os.urandom(SIZE_BYTES)

    async def body() -> None:
        async with opened_dir_target(disk.mounted / "it") as target:
            with disk.losing():
                await target.finish(Digest.of(content), content, OCI_MANIFEST)
                disk.tell_another()

    with pytest.raises(CriolloError, match=r"cannot write .*: (Input/output error|No space left)"):
        asyncio.run(body())
    assert not (disk.mounted / "it").exists()
