"""daemon.care on a disk that loses writes: a daemon that lost some has no clean end, whoever has heard of it before."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.lossy_disk import LossyDisk, lossy_disk

from criollo.config.settings import Settings
from criollo.daemon.care import marked

pytestmark = pytest.mark.node

SIZE_BYTES = 8 << 20


@pytest.fixture
def disk() -> Iterator[LossyDisk]:
    with lossy_disk() as made:
        yield made


@pytest.mark.parametrize("is_first", [True, False])
def test_an_end_after_lost_writes_is_not_clean(
    disk: LossyDisk, tmp_path: Path, caplog: pytest.LogCaptureFixture, is_first: bool
) -> None:
    root, clean = disk.mounted / "root", tmp_path / "clean"
    if not is_first:
        root.mkdir()

    async def body() -> None:
        async with marked(Settings(root=str(root), runroot=str(tmp_path / "run"), clean_shutdown_file=str(clean))):
            root.mkdir(exist_ok=True)
            with disk.losing():
                (root / "file").write_bytes(os.urandom(SIZE_BYTES))
                disk.tell_another()

    asyncio.run(body())
    assert not clean.exists()
    assert "will count as an unclean one" in caplog.text
