"""What the daemon is doing at this moment: every thread and every task with its stack, and what lies in memory.

No values of variables are shown, so no secret is; no source lines, because to read them would take memory. The words are
those of a Go program's dump where there are such, because tools look for them: a task is a goroutine of ours.
"""

import asyncio
import gc
import os
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from types import FrameType
from typing import Any, Final

from criollo.linux.processes import self_usage
from criollo.telemetry.told import bounded

_DEPTH: Final = 64
_TYPES: Final = 200
_LINES: Final = 200
_NAME: Final = 200


def stacks_text(tasks: bool = True) -> str:
    """Every thread and, with `tasks`, every task of the running loop. To be called on the loop: nothing moves meanwhile."""
    lines: list[str] = []
    frames = sys._current_frames()
    for thread in sorted(threading.enumerate(), key=lambda each: each.ident or 0):
        lines.append(f"goroutine thread {thread.native_id} [{bounded(thread.name, _NAME)}]:")
        lines += [f"\t{each}" for each in _of_frame(frames.get(thread.ident or 0))]
        lines.append("")
    if tasks:
        for task in sorted(asyncio.all_tasks(), key=lambda each: each.get_name()):
            lines.append(f"goroutine task [{bounded(task.get_name(), _NAME)}]:")
            lines += [f"\t{each}" for each in _of_coroutine(task.get_coro())]
            lines.append("")
    return "\n".join(lines)


def place(frame: FrameType) -> str:
    """`module.function:line`."""
    return f"{frame.f_globals.get('__name__', '?')}.{frame.f_code.co_qualname}:{frame.f_lineno}"


def _of_frame(frame: FrameType | None) -> Iterator[str]:
    """A thread's calls, the newest first."""
    for _ in range(_DEPTH):
        if frame is None:
            return
        yield place(frame)
        frame = frame.f_back
    yield "..."


def _of_coroutine(work: Any) -> Iterator[str]:
    """A task's calls, the oldest first, and at last what is waited for."""
    for _ in range(_DEPTH):
        frame = next((found for name in ("cr_frame", "gi_frame", "ag_frame") if (found := getattr(work, name, None))), None)
        if frame is None:
            if work is not None:
                yield f"waits for {type(work).__qualname__}"
            return
        yield place(frame)
        work = next((found for name in ("cr_await", "gi_yieldfrom", "ag_await") if (found := getattr(work, name, None))), None)
    yield "..."


def heap_text() -> str:
    """How much memory is used, by types of objects and, where allocations are traced, by lines. Takes 0.1 s."""
    usage = self_usage(os.getpid())
    lines = [
        f"heap profile: resident {usage.rss_bytes} bytes, address space {usage.virtual_bytes} bytes",
        f"blocks of Python's allocator: {sys.getallocatedblocks()}",
        "objects with references, by type; what they refer to is not counted in:",
        "     count        bytes  type",
    ]
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for each in _objects():
        kind = type(each)
        name = f"{kind.__module__}.{kind.__qualname__}"
        counts[name] += 1
        sizes[name] += sys.getsizeof(each, 0)
    lines += [f"{counts[name]:10d} {size:12d}  {bounded(name, _NAME)}" for name, size in sizes.most_common(_TYPES)]
    return "\n".join([*lines, *_allocations(), ""])


def _objects() -> list[Any]:
    """What the collector knows, the frozen part of it too, which stays frozen."""
    frozen = gc.get_freeze_count()
    if frozen:
        gc.unfreeze()
    try:
        return gc.get_objects()
    finally:
        if frozen:
            gc.freeze()


def _allocations() -> Iterator[str]:
    if "tracemalloc" not in sys.modules:
        return
    import tracemalloc  # only where --profile-mem has loaded it

    if not tracemalloc.is_tracing():
        return
    yield "allocations since the start, by line:"
    yield "     count        bytes  line"
    for each in tracemalloc.take_snapshot().statistics("lineno")[:_LINES]:
        yield f"{each.count:10d} {each.size:12d}  {bounded(str(each.traceback), _NAME)}"
