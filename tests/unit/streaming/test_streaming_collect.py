"""Which streams of a connection belong to a session, and which make one forwarded connection."""

import asyncio

import msgspec
import pytest
from support.spdy_pair import both
from support.waiting import run, skip_ahead, until

from criollo.aio.streams import Size
from criollo.errors import TimedOut, Unavailable
from criollo.model.ids import ContainerId
from criollo.model.session import ExecSession
from criollo.streaming.collect import collect, forwards
from criollo.streaming.session import Offered, Pair, Status
from criollo.streaming.spdy import SpdyConnection
from criollo.streaming.spdy_stream import SpdyStream

SHELL = ExecSession(container_id=ContainerId("c"), argv=("sh",), tty=True, stdin=True, stdout=True, stderr=True)
PLAIN = ExecSession(container_id=ContainerId("c"), argv=("ls",), stdout=True, stderr=True)


async def exec_streams(client: SpdyConnection, *kinds: str) -> dict[str, SpdyStream]:
    return {kind: await client.open({"streamType": kind}) for kind in kinds}


async def refused(client: SpdyConnection, **headers: str) -> None:
    with pytest.raises(ConnectionRefusedError):
        await client.open(headers)


async def everything(stream: SpdyStream) -> bytes:
    parts = []
    while part := await stream.read():
        parts.append(part)
    return b"".join(parts)


async def offered(
    client: SpdyConnection, server: SpdyConnection, session: ExecSession, version: int, *kinds: str
) -> tuple[dict[str, SpdyStream], Offered]:
    async with asyncio.TaskGroup() as group:
        opening = group.create_task(exec_streams(client, *kinds))
        offer = await collect(server, session, version)
    return opening.result(), offer


def test_session_without_terminal() -> None:
    async def test() -> None:
        async with both(has_flow=False) as (client, server):
            streams, offer = await offered(client, server, PLAIN, 4, "error", "stdout", "stderr")
            out, err = offer.streams.stdout, offer.streams.stderr
            assert out is not None
            assert err is not None
            assert offer.streams.stdin is None
            assert offer.streams.sizes is None
            await out.write(b"out")
            await err.write(b"err")
            await offer.finish(Status(exit_code=3))
            assert await everything(streams["stdout"]) == b"out"
            assert await everything(streams["stderr"]) == b"err"
            status = msgspec.json.decode(await everything(streams["error"]))
            assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]

    run(test())


def test_terminal_has_sizes_and_no_stderr() -> None:
    async def test() -> None:
        async with both() as (client, server):
            streams, offer = await offered(client, server, SHELL, 4, "error", "stdin", "stdout", "resize")
            assert offer.streams.stderr is None
            assert offer.streams.stdin is not None
            assert offer.streams.sizes is not None
            await streams["stdin"].write(b"ls\n")
            assert await offer.streams.stdin.read() == b"ls\n"
            await streams["resize"].write(b'{"Width":80,"Hei')
            await streams["resize"].write(b'ght":24}\n')
            assert await anext(offer.streams.sizes) == Size(24, 80)
            await streams["resize"].close()
            assert [size async for size in offer.streams.sizes] == []

    run(test())


@pytest.mark.parametrize("version", [1, 2])
def test_old_versions_have_no_sizes_and_text_for_a_status(version: int) -> None:
    async def test() -> None:
        async with both() as (client, server):
            streams, offer = await offered(client, server, SHELL, version, "error", "stdin", "stdout")
            assert offer.streams.sizes is None
            await offer.finish(Status(failure="no such command"))
            assert await everything(streams["error"]) == b"no such command"

    run(test())


@pytest.mark.parametrize(
    "junk",
    [b"[]", b"{", b"{}", b'{"Width":-1,"Height":1}', b'{"Width":70000,"Height":1}', b"}" * 100, b'{"Width":1}', b"\xff\0}"],
)
def test_malformed_size_is_passed_over(junk: bytes) -> None:
    async def test() -> None:
        async with both() as (client, server):
            streams, offer = await offered(client, server, SHELL, 4, "error", "stdin", "stdout", "resize")
            assert offer.streams.sizes is not None
            await streams["resize"].write(junk + b"}\n")
            await streams["resize"].write(b'{"Width":80,"Height":24}\n')
            assert await anext(offer.streams.sizes) == Size(24, 80)

    run(test())


def test_of_many_sizes_at_once_the_last_counts() -> None:
    async def test() -> None:
        async with both() as (client, server):
            streams, offer = await offered(client, server, SHELL, 4, "error", "stdin", "stdout", "resize")
            assert offer.streams.sizes is not None
            await streams["resize"].write(b"".join(b'{"Width":%d,"Height":1}\n' % width for width in range(1, 1000)))
            await streams["resize"].close()
            assert [size async for size in offer.streams.sizes][-1] == Size(1, 999)

    run(test())


def test_endless_size_ends_the_sizes_and_not_the_session() -> None:
    async def test() -> None:
        async with both() as (client, server):
            streams, offer = await offered(client, server, SHELL, 4, "error", "stdin", "stdout", "resize")
            assert offer.streams.sizes is not None
            await streams["resize"].write(b"x" * 5000)
            assert [size async for size in offer.streams.sizes] == []
            await streams["resize"].write(b"y" * (4 << 20))

    run(test())


def test_streams_that_do_not_belong_are_refused() -> None:
    async def test() -> None:
        async with both() as (client, server), asyncio.TaskGroup() as group:
            collecting = group.create_task(collect(server, PLAIN, 4))
            await refused(client)
            await refused(client, streamtype="stdin")
            await refused(client, streamtype="resize")
            await refused(client, streamtype="x" * 1000)
            await exec_streams(client, "error", "stdout")
            await refused(client, streamtype="stdout")
            await exec_streams(client, "stderr")
            await collecting
            await refused(client, streamtype="stdout")

    run(test())


def test_client_that_does_not_open_its_streams_is_not_waited_for() -> None:
    async def test() -> None:
        async with both() as (client, server), asyncio.TaskGroup() as group:

            async def collecting() -> None:
                with pytest.raises(TimedOut, match="streams: stderr, stdout not opened"):
                    await collect(server, PLAIN, 4, limit_s=30)

            group.create_task(collecting())
            await exec_streams(client, "error")
            skip_ahead(30)

    run(test())


def test_client_that_leaves_is_not_waited_for() -> None:
    async def test() -> None:
        async with both() as (client, server), asyncio.TaskGroup() as group:
            group.create_task(client.close())
            with pytest.raises(Unavailable, match="error"):
                await collect(server, PLAIN, 4)
            await server.close()

    run(test())


# Port-forward.


async def forward(client: SpdyConnection, port: str, request_id: str) -> tuple[SpdyStream, SpdyStream]:
    error = await client.open({"streamType": "error", "port": port, "requestID": request_id})
    data = await client.open({"streamType": "data", "port": port, "requestID": request_id})
    return data, error


async def pairs(server: SpdyConnection, into: list[Pair], limit_s: float = 30) -> None:
    async for pair in forwards(server, limit_s=limit_s):
        into.append(pair)


def test_two_streams_make_a_forwarded_connection() -> None:
    async def test() -> None:
        got: list[Pair] = []
        async with both(max_streams=100) as (client, server), asyncio.TaskGroup() as group:
            group.create_task(pairs(server, got))
            data, error = await forward(client, "80", "0")
            assert got[0].port == 80
            await data.write(b"request")
            await error.write(b"ignored")
            assert await got[0].data.read() == b"request"
            await got[0].error.write(b"refused")
            assert await error.read() == b"refused"
            for n in range(1, 40):
                await forward(client, str(n), str(n))
            assert [pair.port for pair in got] == [80, *range(1, 40)]
            client.abort()

    run(test())


def test_old_clients_without_request_ids() -> None:
    async def test() -> None:
        got: list[Pair] = []
        async with both() as (client, server), asyncio.TaskGroup() as group:
            group.create_task(pairs(server, got))
            await client.open({"streamType": "error", "port": "80"})
            await client.open({"streamType": "data", "port": "80"})
            assert len(got) == 1
            client.abort()

    run(test())


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"port": "80", "requestid": "1"},
        {"streamtype": "data", "requestid": "1"},
        {"streamtype": "stdin", "port": "80", "requestid": "1"},
        *({"streamtype": "data", "port": port} for port in ("0", "65536", "-1", "٨٠", "8" * 5000, "80 ", "http", "")),
    ],
)
def test_streams_that_are_no_forward_are_refused(headers: dict[str, str]) -> None:
    async def test() -> None:
        async with both() as (client, server), asyncio.TaskGroup() as group:
            group.create_task(pairs(server, []))
            await refused(client, **headers)
            client.abort()

    run(test())


def test_second_stream_of_a_kind_is_refused_and_the_first_kept() -> None:
    async def test() -> None:
        got: list[Pair] = []
        async with both() as (client, server), asyncio.TaskGroup() as group:
            group.create_task(pairs(server, got))
            await client.open({"streamtype": "error", "port": "80", "requestid": "1"})
            await refused(client, streamtype="error", port="80", requestid="1")
            await client.open({"streamtype": "data", "port": "80", "requestid": "1"})
            assert len(got) == 1
            client.abort()

    run(test())


def test_partners_for_different_ports_are_both_refused() -> None:
    async def test() -> None:
        async with both() as (client, server), asyncio.TaskGroup() as group:
            group.create_task(pairs(server, []))
            first = await client.open({"streamtype": "error", "port": "80", "requestid": "1"})
            await refused(client, streamtype="data", port="81", requestid="1")
            await until(lambda: first.is_lost)
            client.abort()

    run(test())


def test_stream_whose_partner_does_not_come_is_given_up() -> None:
    async def test() -> None:
        async with both() as (client, server), asyncio.TaskGroup() as group:
            group.create_task(pairs(server, [], limit_s=0.05))
            alone = await client.open({"streamtype": "error", "port": "80", "requestid": "1"})
            with pytest.raises(ConnectionResetError):
                await alone.read()
            client.abort()

    run(test())


def test_half_that_was_reset_makes_no_pair_and_is_not_kept() -> None:
    async def test() -> None:
        got: list[Pair] = []
        async with both() as (client, server), asyncio.TaskGroup() as group:
            group.create_task(pairs(server, got))
            for n in range(200):
                half = await client.open({"streamtype": "error", "port": "80", "requestid": str(n)})
                await half.reset()
            await client.open({"streamtype": "data", "port": "80", "requestid": "199"})
            await client.open({"streamtype": "error", "port": "80", "requestid": "199"})
            assert len(got) == 1
            client.abort()

    run(test())
