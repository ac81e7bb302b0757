"""When nothing has happened for long, and what counts as something."""

import asyncio

from support.waiting import skip_ahead

from criollo.aio.streams import Streams
from criollo.streaming.idle import Idle
from criollo.streaming.session import Pair


class Held:
    """A stream that gives and takes as it is told."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.ends: list[str] = []

    async def read(self) -> bytes:
        return b"bytes"

    async def write(self, data: bytes) -> None:
        self.taken.append(data)

    async def close(self) -> None:
        self.ends.append("close")

    async def reset(self) -> None:
        self.ends.append("reset")

    def drop(self) -> None:
        self.ends.append("drop")


class Touches(Idle):
    count = 0

    def touch(self) -> None:
        super().touch()
        self.count += 1


def test_limit_passes_when_nothing_happens() -> None:
    async def main() -> None:
        async with asyncio.timeout(60):
            await Idle(0.01).passed()

    asyncio.run(main())


def test_touch_puts_it_off() -> None:
    async def main() -> bool:
        idle = Idle(600)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(idle.passed())
            for _ in range(8):
                skip_ahead(400)
                for _ in range(5):
                    await asyncio.sleep(0)
                idle.touch()
            early = waiting.done()
            skip_ahead(601)
        return early

    assert asyncio.run(main()) is False


def test_no_limit_never_passes() -> None:
    async def main() -> bool:
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(Idle(0).passed())
            await asyncio.sleep(0.05)
            done = waiting.done()
            waiting.cancel()
        return done

    assert asyncio.run(main()) is False


def test_bytes_of_every_stream_count_and_arrive() -> None:
    async def main() -> None:
        idle, held = Touches(5), Held()
        streams = idle.watch(Streams(stdin=held, stdout=held, stderr=held))
        assert streams.stdin is not None
        assert await streams.stdin.read() == b"bytes"
        for writer in (streams.stdout, streams.stderr):
            assert writer is not None
            await writer.write(b"x")
            await writer.close()
        streams.stdin.drop()
        assert (idle.count, held.taken, held.ends) == (3, [b"x", b"x"], ["close", "close", "drop"])
        assert idle.watch(Streams()) == Streams()

    asyncio.run(main())


def test_bytes_of_a_pair_count() -> None:
    async def main() -> None:
        idle, held = Touches(5), Held()
        pair = idle.watch_pair(Pair(80, held, held))
        await pair.data.read()
        await pair.data.write(b"x")
        await pair.data.close()
        await pair.data.reset()
        assert (idle.count, held.ends) == (2, ["close", "reset"])

    asyncio.run(main())
