"""What threads and tasks are at, and what lies in memory."""

import asyncio
import gc
import threading
import tracemalloc

from support.waiting import until

from criollo.telemetry.stacks import heap_text, stacks_text


async def outermost(gate: asyncio.Event, secret: str) -> None:
    await innermost(gate)


async def innermost(gate: asyncio.Event) -> None:
    await gate.wait()


def test_tasks_are_shown_down_to_what_they_wait_for_and_without_values() -> None:
    async def main() -> str:
        gate = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(outermost(gate, "hunter2"), name="watch abc")
            await asyncio.sleep(0)
            found = stacks_text()
            gate.set()
        return found

    found = asyncio.run(main())
    story = found.partition("goroutine task [watch abc]:")[2].partition("\n\n")[0]
    assert [line.rpartition(".")[2].partition(":")[0] for line in story.split()[:3]] == ["outermost", "innermost", "wait"]
    assert "waits for" in story
    assert "hunter2" not in found


def test_threads_are_shown_with_their_names_and_tasks_only_when_asked() -> None:
    gate = threading.Event()
    thread = threading.Thread(target=gate.wait, name="files_3")
    thread.start()

    async def main() -> str:  # a thread has started before it waits
        return await until(lambda: text if "threading.Event.wait:" in (text := stacks_text(tasks=False)) else "")

    try:
        found = asyncio.run(main())
    finally:
        gate.set()
        thread.join()
    assert "[files_3]:" in found
    assert "goroutine task" not in found


def test_task_names_of_others_cannot_break_lines() -> None:
    async def main() -> str:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0), name="evil\n\x1b[31m")
            return stacks_text()

    assert "\x1b" not in asyncio.run(main())


def test_heap_counts_objects_by_type_and_leaves_frozen_ones_frozen() -> None:
    class Marker:
        def __init__(self) -> None:
            self.me = self

    kept = [Marker() for _ in range(5000)]
    gc.collect()
    gc.freeze()
    try:
        before = gc.get_freeze_count()
        text = heap_text()
        assert gc.get_freeze_count() >= before
    finally:
        gc.unfreeze()
    [line] = [line for line in text.splitlines() if line.endswith("<locals>.Marker")]
    assert line.split()[0] == str(len(kept))
    assert "allocations since the start" not in text


def test_heap_tells_lines_where_allocations_are_traced() -> None:
    tracemalloc.start()
    try:
        kept = [bytearray(100_000) for _ in range(20)]
        text = heap_text()
    finally:
        tracemalloc.stop()
    assert len(kept) == 20
    assert "test_telemetry_stacks.py" in text.partition("allocations since the start")[2]
