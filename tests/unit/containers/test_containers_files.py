"""containers.files: what is open while files of a container are copied. Copying itself: tests/node/workers, tests/node/kpod."""

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Any

import pytest
from support import leaks
from support.waiting import cancelled_within

from criollo.aio import threads
from criollo.containers import files


def test_who_leaves_while_the_root_is_opened_leaves_no_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_open_root", lambda containers, container: os.open(tmp_path, os.O_RDONLY))
    nobody: Any = None

    async def copy() -> None:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(files._root(nobody, nobody))

    async def main() -> list[str]:
        before = leaks.descriptors()
        await cancelled_within(monkeypatch, files, "_open_root", copy())
        return leaks.new_descriptors(before)

    try:
        assert asyncio.run(main()) == []
    finally:
        threads.close()
