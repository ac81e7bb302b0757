"""Looks at stores of other tools that come to an end, whatever the store lies on.

On this node's own disks a thread looks, which costs some ten microseconds. Elsewhere (NFS, FUSE) a dead server would keep that
thread for ever: there the stamp is taken by the probes of the workers, and the rest is read by `storage.foreign_child`, a
process that is killed at its limit.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from criollo.aio import process, threads
from criollo.errors import CriolloError, Damaged, HostFailed, TimedOut, Unsupported
from criollo.linux.near import is_near
from criollo.storage import foreign
from criollo.storage.foreign import Contents, ForeignImage, ImageRecord, Stamp
from criollo.storage.foreign_child import StoreAnswer, StoreTask, decode, encode
from criollo.workers.pool import Workers

STAMP_S: Final = 3.0
READ_S: Final = 20.0
CHECK_S: Final = 10.0
MAX_ANSWER_BYTES: Final = 1 << 30
_START: Final = "import sys; sys.path[:] = sys.argv[1:]; from criollo.storage.foreign_child import main; main()"


class StorePlace(msgspec.Struct, frozen=True):
    """Where a store is, free of links, and what changes with its records."""

    root: Path
    stamp: Stamp


async def locate(workers: Workers, store: Path) -> StorePlace:
    """Where a store is now.

    Raises:
        TimedOut: its file system does not answer.
    """
    return await threads.files(_near_place, store) or await _far_place(workers, store)


async def read_store(root: Path, earlier: Mapping[ImageRecord, ForeignImage]) -> Contents:
    """As `foreign.read_store`, and raises TimedOut. Of a child an unusable store is Unsupported, else HostFailed."""
    if await threads.files(_is_near, root):
        return await threads.files(foreign.read_store, root, earlier)
    answer = await _ask(
        StoreTask(store=str(root), limit_s=int(READ_S), known=tuple(earlier.values())), f"read image store {root}"
    )
    return Contents(answer.images, tuple((image, Damaged(text)) for image, text in answer.refused))


async def check_trees(root: Path, layer_ids: Sequence[str]) -> None:
    """As `foreign.check_trees`. Raises TimedOut besides."""
    if await threads.files(_is_near, root):
        await threads.files(foreign.check_trees, root, layer_ids)
        return
    await _ask(
        StoreTask(store=str(root), limit_s=int(CHECK_S), layers=tuple(layer_ids)), f"look at layers of image store {root}"
    )


def _parts(root: Path) -> Iterable[Path]:
    return (root, root / foreign.IMAGES, root / foreign.LAYERS)


def _is_near(root: Path) -> bool:
    return all(is_near(str(path)) for path in (*_parts(root), root / "overlay"))


def _near_place(store: Path) -> StorePlace | None:
    if not _is_near(store):
        return None
    root = store.resolve()
    return StorePlace(root, foreign.stamp(root)) if root == store or _is_near(root) else None


async def _far_place(workers: Workers, store: Path) -> StorePlace:
    root, stamp = store, []
    for path in _parts(store):
        try:
            found = await workers.probe(str(path), STAMP_S)
        except TimedOut as error:
            raise TimedOut(f"image store {store} does not answer: no look at {path} within {STAMP_S:g} s") from error
        except CriolloError:
            stamp.append((0, 0, 0))
        else:
            root = Path(found.path) if path == store and found.path else root
            stamp.append(found.stamp)
    return StorePlace(root, tuple(stamp))


async def _ask(task: StoreTask, what: str) -> StoreAnswer:
    argv = [sys.executable, "-I", "-S", "-B", "-c", _START, *(path for path in sys.path if path.startswith("/"))]
    ended = await process.run(
        process.Program(argv),
        what=f"cannot {what}",
        timeout_s=task.limit_s,
        stdin=encode(task),
        limit_bytes=MAX_ANSWER_BYTES,
    )
    try:
        answer = decode(ended.stdout, StoreAnswer)
    except msgspec.MsgspecError as error:
        raise HostFailed(f"cannot {what}: the answer of the process that looks is malformed: {error}") from error
    if answer.unusable:
        raise Unsupported(answer.unusable)
    if answer.trouble:
        raise HostFailed(answer.trouble)
    return answer
