"""The process that reads a store on a file system that may hang: a task on stdin, an answer on stdout, then it ends.

It can be killed at any moment, and ends by itself when nobody does.
"""

import signal
import sys
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from criollo.errors import CriolloError, Denied, Invalid, NotFound, Unsupported
from criollo.oci.digest import Digest
from criollo.storage import foreign
from criollo.storage.foreign import ForeignImage

_MAX_TASK_BYTES: Final = 1 << 30

T = TypeVar("T")


class StoreTask(msgspec.Struct, frozen=True, kw_only=True):
    """All images of a store, or with `layers` whether those are there; done within `limit_s` seconds or never."""

    store: str
    limit_s: int
    known: tuple[ForeignImage, ...] = ()
    layers: tuple[str, ...] | None = None


class StoreAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`unusable`: there is no store of this kind, or it must not be used. `trouble`: something in it cannot be read."""

    images: tuple[ForeignImage, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
    unusable: str = ""
    trouble: str = ""


def main() -> None:
    """StoreAnswer one task and end."""
    task = decode(sys.stdin.buffer.read(_MAX_TASK_BYTES), StoreTask)
    signal.alarm(task.limit_s)  # a daemon that was killed cannot kill us
    sys.stdout.buffer.write(encode(work(task)))
    sys.stdout.buffer.flush()


def work(task: StoreTask) -> StoreAnswer:
    """The answer to a task."""
    store = Path(task.store)
    try:
        if task.layers is not None:
            foreign.check_trees(store, task.layers)
            return StoreAnswer()
        found = foreign.read_store(store, {image.record: image for image in task.known})
    except (Denied, NotFound, Unsupported) as error:
        return StoreAnswer(unusable=str(error))
    except CriolloError as error:
        return StoreAnswer(trouble=str(error))
    return StoreAnswer(images=found.images, refused=tuple((image, str(error)) for image, error in found.refused))


def encode(value: StoreTask | StoreAnswer) -> bytes:
    return msgspec.msgpack.encode(value, enc_hook=str)  # of digests, which are checked texts


def decode(raw: bytes, kind: type[T]) -> T:
    """Raises MsgspecError."""
    return msgspec.msgpack.decode(raw, type=kind, dec_hook=_digest)


def _digest(kind: type[Any], value: str) -> Digest:
    try:
        return Digest.parse(value)
    except Invalid as error:
        raise ValueError(str(error)) from error  # which msgspec expects
