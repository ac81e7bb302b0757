"""A load or an import that is cancelled leaves nothing, at whatever call of the store that happens."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from support.image_store import image_store
from support.images import busybox_image, busybox_layer, write_oci_archive

from criollo.images import seals
from criollo.images.context import Images
from criollo.images.imported import ImportWish, import_image
from criollo.images.load import load_images
from criollo.workers.pool import Workers

pytestmark = pytest.mark.node

Verb = Callable[[Images, Path], Awaitable[object]]


async def load(images: Images, directory: Path) -> None:
    await load_images(images, write_oci_archive(directory / "image.tar", {"example.com/a:1": busybox_image()}))


async def import_(images: Images, directory: Path) -> None:
    (directory / "rootfs.tar").write_bytes(busybox_layer())
    await import_image(images, directory / "rootfs.tar", ImportWish("example.com/a:1"))


def open_below(directory: Path) -> list[str]:
    """What we have open there, with how often."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:  # of the listing itself
            continue
    return sorted(path for path in found if path.startswith(f"{directory}/"))


def cancelling(call: Callable[..., Any], cancel: Callable[[], object], *, at: int) -> Callable[..., Any]:
    """`call`, of a thread; its awaiter is cancelled when it has done its work for the `at`-th time, and before it returns."""
    left = at

    def wrapped(*args: Any) -> Any:
        nonlocal left
        left -= 1
        result = call(*args)
        if left == 0:
            cancel()
        return result

    return wrapped


@pytest.mark.parametrize(
    ("verb", "seam", "at"),
    [
        (load, "_stage", 1),  # of the archive
        (load, "_stage", 2),  # of its layer
        (load, "begin", 1),
        (load, "_commit", 1),
        (load, "_discard", 1),
        (load, "_discard", 2),
        (import_, "_stage", 1),
        (import_, "_commit", 1),
        (import_, "_discard", 1),
    ],
)
def test_nothing_is_left_of_a_cancelled_verb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: Verb, seam: str, at: int
) -> None:
    root = tmp_path / "root"
    root.mkdir()

    async def body(images: Images) -> None:
        async with images.workers:
            await images.layers.open()
            before = open_below(root)
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            assert task is not None
            cancelled = asyncio.Event()

            def note() -> None:
                task.cancel()
                cancelled.set()

            def cancel() -> None:
                asyncio.run_coroutine_threadsafe(_done(note), loop).result(30)

            place: Any = seals if seam == "begin" else images.layers
            monkeypatch.setattr(place, seam, cancelling(getattr(place, seam), cancel, at=at))
            with pytest.raises(asyncio.CancelledError):
                await verb(images, tmp_path)
            assert cancelled.is_set()
            assert os.listdir(root / "staging") == []
            known = {"empty"} | {row.name for row in images.rows.layers()} | set(images.finished)
            assert set(os.listdir(root / "layers")) == known
            async with asyncio.timeout(30):
                while open_below(root) != before:  # the trash is being emptied
                    await asyncio.sleep(0.01)

    with image_store(root, workers=Workers()) as images:
        asyncio.run(body(images))


async def _done(work: Callable[[], None]) -> None:
    work()
