"""workers.spare: readable while at most half as many layers as processors are unpacked, and only then."""

import asyncio
import os
import select

from support.waiting import until

from criollo.workers.spare import Spare


def says_so(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


def test_few_layers_leave_processors_to_spare_and_more_do_not() -> None:
    async def body() -> None:
        spare = Spare(4)
        with spare.counted() as first, spare.counted() as second:
            assert first == second
            assert not says_so(first)  # more may begin
            await until(lambda: says_so(first))
            with spare.counted():
                assert not says_so(first)
            await until(lambda: says_so(first))

    asyncio.run(body())


def test_a_single_processor_is_never_to_spare() -> None:
    async def body() -> None:
        spare = Spare(1)
        with spare.counted() as fd:
            await asyncio.sleep(0)
            assert spare._timer is None
            assert not says_so(fd)

    asyncio.run(body())


def test_what_a_worker_writes_there_changes_nothing_for_the_daemon() -> None:
    async def body() -> None:
        spare = Spare(2)
        with spare.counted() as fd:
            os.eventfd_write(fd, (1 << 64) - 2)
            await until(lambda: spare._timer is None)
            with spare.counted():
                assert not says_so(fd)

    asyncio.run(body())


def test_descriptor_goes_with_the_last_layer() -> None:
    async def body() -> None:
        spare = Spare(2)
        for _ in range(2):
            with spare.counted() as fd:
                assert os.readlink(f"/proc/self/fd/{fd}") == "anon_inode:[eventfd]"
            assert spare._timer is None
            assert not os.path.exists(f"/proc/self/fd/{fd}")

    asyncio.run(body())
