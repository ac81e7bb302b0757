"""Lifelines: what a transfer waits for ends with it, whichever moment the end comes at."""

import asyncio
import os
import threading

import pytest
from support.waiting import PATIENCE_S

from criollo.aio import threads
from criollo.registry.lifeline import Aborted, Lifeline


def test_work_of_a_transfer_that_is_over_already_never_begins(monkeypatch):
    """The loop is busy while the transfer gives up. What it finds afterwards must neither run nor tell anybody: the
    descriptor to tell by may be another's."""
    begun, written, write = [], [], os.eventfd_write

    async def work():
        begun.append(True)

    async def main():
        loop, calls, is_waiting = asyncio.get_running_loop(), [], threading.Event()
        hand_over, failures = loop.call_soon_threadsafe, []
        loop.set_exception_handler(lambda _, context: failures.append(context))

        def counted(*args, **kwargs):
            found = hand_over(*args, **kwargs)
            calls.append(args)
            if len(calls) == 2:  # the work, and that it is given up
                is_waiting.set()
            return found

        def transfer(lifeline):
            with pytest.raises(Aborted):
                lifeline.on_loop(work())

        with Lifeline(loop) as lifeline:
            lifeline.abort()
            monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
            monkeypatch.setattr(os, "eventfd_write", lambda fd, value: (written.append(fd), write(fd, value)))
            thread = threading.Thread(target=transfer, args=[lifeline])
            thread.start()
            assert is_waiting.wait(PATIENCE_S)  # blocks the loop, on purpose
            while thread.is_alive():
                await asyncio.sleep(0)
            for _ in range(10):
                await asyncio.sleep(0)
        return failures

    try:
        assert asyncio.run(main()) == []
    finally:
        threads.close()
    assert (begun, written) == ([], [])
