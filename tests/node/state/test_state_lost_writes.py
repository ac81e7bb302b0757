"""state.database on a disk that loses writes: a flush tells of it, whoever has heard of it before."""

import os
from collections.abc import Iterator

import pytest
from support.lossy_disk import LossyDisk, lossy_disk

from criollo.errors import CriolloError
from criollo.model.ids import ImageId
from criollo.model.image import Image
from criollo.oci.digest import Digest
from criollo.state.images import ImageRows

pytestmark = pytest.mark.node

IMAGE = Image(
    id=ImageId("1" * 64),
    manifest_digest=str(Digest.of(b"{}")),
    manifest=b"{}",
    config=b"x" * (4 << 20),  # the log grows by it
    layers=(),
    size_bytes=0,
    pulled_ns=1,
)


@pytest.fixture
def disk() -> Iterator[LossyDisk]:
    with lossy_disk() as made:
        yield made


def tell_another(rows: ImageRows) -> None:
    """Another descriptor hears of what was lost; one that is opened later hears nothing."""
    with pytest.raises(OSError, match=r"Input/output error|No space left"):
        sync_log(rows)
    sync_log(rows)


def sync_log(rows: ImageRows) -> None:
    fd = os.open(f"{rows.path}-wal", os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def test_a_lost_row_is_told_though_another_was_told_of_it(disk: LossyDisk) -> None:
    rows = ImageRows(disk.mounted / "images.db")
    try:
        rows.flush()
        with disk.losing():
            rows.add(IMAGE)
            tell_another(rows)
        with pytest.raises(CriolloError, match=r"cannot flush .*images\.db"):
            rows.flush()
        rows.flush()  # once
    finally:
        rows.close()
