"""How long nothing may happen: a session without a byte either way for so long is over.

What is counted are a session's own bytes, not the transport's pings: a client that answers those may have been forgotten by
the person who started it.
"""

import asyncio

from criollo.aio.streams import Source, Streams, Writer
from criollo.streaming.session import Duplex, Pair


class Idle:
    """Tells when nothing has happened for `limit_s`; 0: never."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()

    def touch(self) -> None:
        self._last = self._loop.time()

    async def passed(self) -> None:
        """Returns when the limit has passed."""
        over = asyncio.Event()
        while self.limit_s and (ends := self._last + self.limit_s) > self._loop.time():
            alarm = self._loop.call_at(ends, over.set)  # one alarm per limit, not one per byte
            try:
                await over.wait()
            finally:
                alarm.cancel()
            over.clear()
        if not self.limit_s:
            await over.wait()

    def watch(self, streams: Streams) -> Streams:
        """The same streams; their bytes count."""
        return streams._replace(
            stdin=None if streams.stdin is None else _CountedSource(streams.stdin, self),
            stdout=None if streams.stdout is None else _CountedWriter(streams.stdout, self),
            stderr=None if streams.stderr is None else _CountedWriter(streams.stderr, self),
        )

    def watch_pair(self, pair: Pair) -> Pair:
        return pair._replace(data=_CountedDuplex(pair.data, self))


class _CountedSource:
    def __init__(self, inner: Source, idle: Idle) -> None:
        self._inner, self._idle = inner, idle

    async def read(self) -> bytes:
        data = await self._inner.read()
        self._idle.touch()
        return data

    def drop(self) -> None:
        self._inner.drop()


class _CountedWriter:
    def __init__(self, inner: Writer, idle: Idle) -> None:
        self._inner, self._idle = inner, idle

    async def write(self, data: bytes) -> None:
        await self._inner.write(data)
        self._idle.touch()

    async def close(self) -> None:
        await self._inner.close()


class _CountedDuplex:
    def __init__(self, inner: Duplex, idle: Idle) -> None:
        self._inner, self._idle = inner, idle

    async def read(self) -> bytes:
        data = await self._inner.read()
        self._idle.touch()
        return data

    async def write(self, data: bytes) -> None:
        await self._inner.write(data)
        self._idle.touch()

    async def close(self) -> None:
        await self._inner.close()

    async def reset(self) -> None:
        await self._inner.reset()
