"""HTTP/1.1 as clients speak it, and as attackers do."""

import asyncio
import re
import socket
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from criollo.aio.http_server import HttpLimits, HttpServer, Reply, Request, WithClient, text
from criollo.errors import Forbidden, Invalid, NotFound, Unavailable, WrongState


async def _echo(request: Request) -> Reply:
    return text(200, f"{request.method} {request.path} {sorted(request.query.items())} {len(request.body)}")


async def _parts(request: Request) -> Reply:
    async def made() -> AsyncGenerator[bytes, None]:
        for number in range(3):
            yield str(number).encode()

    return Reply(parts=made())


def _raising(error: Exception) -> Any:
    async def route(request: Request) -> Reply:
        raise error

    return route


ROUTES = {("GET", "/info"): _echo, ("POST", "/images/load"): _echo, ("GET", "/parts"): _parts}


def exchange(
    data: bytes, *, routes: Any = ROUTES, limits: HttpLimits | None = None, eof: bool = True, rare: Any = None
) -> bytes:
    """What the server answers to `data` until it closes."""

    async def main() -> bytes:
        ours, theirs = socket.socketpair()
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, ours)
            transport.pause_reading()
            reader, writer = await asyncio.open_unix_connection(sock=theirs, limit=1 << 20)
            writer.write(data)  # before the server's limits begin
            group.create_task(HttpServer(routes, limits, rare=rare).serve(transport))
            collected = bytearray()
            try:
                if eof:
                    writer.write_eof()
                async with asyncio.timeout(60):
                    while chunk := await reader.read(65536):
                        collected += chunk
            except (ConnectionResetError, BrokenPipeError):
                pass
            writer.close()
        return bytes(collected)

    return asyncio.run(main())


def get(target: str, *headers: str, method: str = "GET", body: bytes = b"") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: x", *headers, "", ""]).encode() + body


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize("half", [False, True])
def test_a_client_that_hangs_up_ends_what_belongs_to_it_and_nothing_else(half: bool, caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []
    started = asyncio.Event()
    released = asyncio.Event()

    async def slow(request: Request) -> Reply:
        started.set()
        try:
            await released.wait()
        except asyncio.CancelledError:
            told.append("cancelled")
            raise
        told.append("done")
        return text(200, "done")

    async def hang_up(path: str) -> None:
        ours, theirs = socket.socketpair()
        transport, _ = await asyncio.get_running_loop().connect_accepted_socket(asyncio.Protocol, ours)
        routes: Any = {("POST", "/with"): WithClient(slow), ("POST", "/without"): slow}
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            group.create_task(HttpServer(routes).serve(transport))
            theirs.sendall(get(path, "Content-Length: 0", method="POST"))
            await started.wait()
            theirs.shutdown(socket.SHUT_WR) if half else theirs.close()
            if path == "/without":
                released.set()
        theirs.close()
        started.clear()

    async def main() -> None:
        for path in ("/with", "/without"):
            await hang_up(path)

    asyncio.run(main())
    assert told == ["cancelled", "done"]
    assert caplog.records == []


def test_who_sends_the_next_request_early_has_not_hung_up() -> None:
    routes = {("POST", "/a"): WithClient(_echo)}
    asked = get("/a", "Content-Length: 0", method="POST")
    assert exchange(asked * 2, routes=routes, eof=False, limits=HttpLimits(idle_s=0.1)).count(b"200 \r\n") == 2


def test_rare_routes_are_asked_for_once_and_only_when_no_other_fits() -> None:
    asked = []

    def rare() -> Any:
        asked.append(True)
        return {("GET", "/things/{}"): _echo, ("POST", "/rare"): _echo}

    assert status(exchange(get("/info"), rare=rare)) == 200
    assert asked == []
    answers = exchange(get("/things/7") + get("/nothing") + get("/rare") + get("/info"), rare=rare)
    assert re.findall(rb"HTTP/1.1 ([0-9]+)", answers) == [b"200", b"404", b"405", b"200"]
    assert asked == [True]


def test_route_is_answered() -> None:
    answer = exchange(get("/info?b=2&a=%20"))
    assert status(answer) == 200
    assert b"GET /info [('a', [' ']), ('b', ['2'])] 0" in answer


def test_connection_is_kept_for_the_next_request() -> None:
    assert exchange(get("/info") + get("/info") + get("/none")).count(b"HTTP/1.1 ") == 3


def test_client_that_closes_its_sending_side_still_gets_its_answer() -> None:
    assert status(exchange(b"GET /info HTTP/1.0\r\n\r\n", eof=True)) == 200


def test_close_is_honoured() -> None:
    assert exchange(get("/info", "Connection: close") + get("/info"), eof=False).count(b"HTTP/1.1 ") == 1


def test_head_has_no_body() -> None:
    head, _, body = exchange(get("/info", method="HEAD")).partition(b"\r\n\r\n")
    assert status(head) == 200
    assert body == b""


def test_connection_is_kept_after_a_head() -> None:
    answers = exchange(get("/info", method="HEAD") + get("/parts", method="HEAD") + get("/info"))
    assert answers.count(b"HTTP/1.1 200") == 3
    assert answers.count(b" 0\n") == 1


@pytest.mark.parametrize("size", [60 << 10, 8 << 20])
def test_a_client_that_takes_no_answer_keeps_no_descriptor(size: int) -> None:
    async def large(request: Request) -> Reply:
        return Reply(body=b"x" * size)

    async def main() -> None:
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 << 10)  # the end of the smaller answer stays with us
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, ours)
        theirs.sendall(get("/large", "Connection: close"))
        await HttpServer({("GET", "/large"): large}, HttpLimits(write_s=0.2)).serve(transport)
        async with asyncio.timeout(60):
            while ours.fileno() >= 0:
                await asyncio.sleep(0.01)
        theirs.close()

    asyncio.run(main())


def test_body_arrives_by_length_and_by_chunks() -> None:
    assert b" 5\n" in exchange(get("/images/load", "Content-Length: 5", method="POST", body=b"12345"))
    chunked = get("/images/load", "Transfer-Encoding: chunked", method="POST", body=b"3\r\nabc\r\n0\r\n\r\n")
    assert b" 3\n" in exchange(chunked)


def test_client_that_waits_to_continue_is_told_so() -> None:
    assert exchange(get("/images/load", "Content-Length: 1", "Expect: 100-continue", method="POST")).startswith(b"HTTP/1.1 100")


def test_parts_are_sent_as_they_come() -> None:
    assert exchange(get("/parts")).endswith(b"1\r\n0\r\n1\r\n1\r\n1\r\n2\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    ("target", "method", "expected"),
    [
        ("/none", "GET", 404),
        ("/info", "DELETE", 405),
        ("/images/load", "GET", 405),
        ("/info/../info", "GET", 404),
        ("/info/", "GET", 404),
    ],
)
def test_unknown_paths_and_methods_say_so(target: str, method: str, expected: int) -> None:
    assert status(exchange(get(target, method=method))) == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Invalid("path", "x", "y"), 400),
        (NotFound("container", "x"), 404),
        (WrongState("container", "x", "y", "z"), 409),
        (Forbidden("the registry forbids it"), 403),
        (Unavailable("later"), 503),
        (KeyError("secret"), 500),
    ],
)
def test_errors_become_statuses(error: Exception, expected: int) -> None:
    answer = exchange(get("/info"), routes={("GET", "/info"): _raising(error)})
    assert status(answer) == expected
    assert b"secret" not in answer


@pytest.mark.parametrize(
    "request_bytes",
    [
        get("/images/load", "Content-Length: 3", "Transfer-Encoding: chunked", method="POST", body=b"0\r\n\r\n"),
        get("/images/load", "Content-Length: 3", "Content-Length: 4", method="POST", body=b"abcd"),
        get("/images/load", "Content-Length: +3", method="POST", body=b"abc"),
        get("/images/load", "Content-Length: 3, 4", method="POST", body=b"abcd"),
        get("/images/load", "Transfer-Encoding: xchunked", method="POST", body=b"0\r\n\r\n"),
        get("/images/load", "Transfer-Encoding: chunked", method="POST", body=b"0x3\r\nabc\r\n0\r\n\r\n"),
        get("/images/load", "Transfer-Encoding: chunked", method="POST", body=b"3\r\nabcXX0\r\n\r\n"),
        get("/info", "Host: y"),
        get("/info", "X : y"),
        get("/info", "X: a\r\n folded\0"),
        b"GET /info HTTP/1.1\r\n\r\n",
        b"GET /info\r\n\r\n",
        b"GET  /info HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /info HTTP/9.9\r\nHost: x\r\n\r\n",
        get("http://x/info"),
        get("/%00"),
        get("/%ff"),
        get("/info?" + "&".join(f"k{number}=v" for number in range(200))),
        get("*", method="OPTIONS"),
        get("/x" * 40_000),
        get("/info", *(f"x-{number}: y" for number in range(10_000))),
    ],
)
def test_malformed_and_ambiguous_requests_are_refused_and_closed(request_bytes: bytes) -> None:
    answer = exchange(request_bytes + get("/info"))
    assert answer.count(b"HTTP/1.1 ") == 1
    assert status(answer) in (400, 431, 501, 505)


def test_body_over_the_limit_is_refused() -> None:
    request = get("/images/load", "Content-Length: 100", method="POST", body=b"x" * 100)
    assert status(exchange(request, limits=HttpLimits(body_bytes=10))) == 413


def test_slow_request_is_given_up() -> None:
    assert status(exchange(b"GET /info HT", limits=HttpLimits(request_s=0.05), eof=False)) == 408


def test_idle_connection_is_closed() -> None:
    assert exchange(b"", limits=HttpLimits(idle_s=0.05), eof=False) == b""


@settings(max_examples=100, deadline=None)
@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"GET ", b"GET /info HTTP/1.1\r\n", b"POST /images/load HTTP/1.1\r\nHost: x\r\n"]),
)
def test_random_bytes_get_an_answer_or_silence(data: bytes, start: bytes) -> None:
    answer = exchange(start + data)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 ")


def upgrading(data: bytes, upgrade: Any) -> bytes:
    """What a server with an upgrade route at /up/ answers until it closes."""

    async def main() -> bytes:
        ours, theirs = socket.socketpair()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, ours)
        reader, writer = await asyncio.open_unix_connection(sock=theirs)
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            group.create_task(HttpServer(ROUTES, upgrades={"/up/": upgrade}).serve(transport))
            writer.write(data)
            answer = await reader.read()
            writer.close()
        return answer

    return asyncio.run(main())


async def _shout(request: Request, transport: asyncio.Transport) -> Reply | None:
    """Another protocol: sends back in capitals what comes, and closes."""

    class Shouting(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            transport.write(data.upper())
            transport.close()
            heard.set()

    heard = asyncio.Event()
    transport.set_protocol(Shouting())
    transport.write(f"101 {request.path}\r\n".encode())
    transport.resume_reading()
    await heard.wait()
    return None


def test_upgrade_takes_the_connection_over() -> None:
    async def main() -> bytes:
        ours, theirs = socket.socketpair()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, ours)
        reader, writer = await asyncio.open_unix_connection(sock=theirs)
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            group.create_task(HttpServer({}, upgrades={"/up/": _shout}).serve(transport))
            writer.write(b"POST /up/x HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: shout\r\n\r\n")
            assert await reader.readline() == b"101 /up/x\r\n"
            writer.write(b"hello")
            said = await reader.read()
            writer.close()
        return said

    assert asyncio.run(main()) == b"HELLO"


def test_refused_upgrade_is_a_reply_and_the_end() -> None:
    async def refuse(request: Request, transport: asyncio.Transport) -> Reply | None:
        return Reply(status=403, body=b"no\n", headers=(("x-why", "because"), ("x-why", "so")))

    answer = upgrading(b"GET /up/x HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: shout\r\n\r\n", refuse)
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert answer.lower().count(b"\r\nx-why: ") == 2
    assert answer.endswith(b"no\n")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /up/x HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: shout\r\n\r\nearly", 400),
        (b"GET /up/x HTTP/1.1\r\nhost: x\r\n\r\nGET /info HTTP/1.1\r\nhost: x\r\n\r\n", 400),
        (b"DELETE /up/x HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", 405),
        (b"GET /up HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", 404),
    ],
)
def test_upgrade_routes_refuse_what_is_none(data: bytes, status: int) -> None:
    assert upgrading(data, _shout).startswith(b"HTTP/1.1 %d " % status)


def test_error_before_the_upgrade_is_a_reply() -> None:
    async def gone(request: Request, transport: asyncio.Transport) -> Reply | None:
        raise NotFound("container", "x")

    answer = upgrading(b"GET /up/x HTTP/1.1\r\nhost: x\r\n\r\n", gone)
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"container x not found" in answer


def test_repeated_headers_are_one_list() -> None:
    async def tell(request: Request, transport: asyncio.Transport) -> Reply | None:
        return text(200, request.headers["x-protocol"])

    answer = upgrading(b"GET /up/x HTTP/1.1\r\nhost: x\r\nx-protocol: a, b\r\nX-Protocol: c\r\n\r\n", tell)
    assert answer.endswith(b"\r\na, b, c\n")


def test_open_parts_of_a_path_reach_the_route_as_words() -> None:
    async def told(request: Request) -> Reply:
        return Reply(body=repr((request.path, request.words)).encode())

    routes = {("GET", "/pulls"): told, ("GET", "/pulls/{}/events"): told, ("DELETE", "/pulls/{}"): told}
    assert exchange(get("/pulls"), routes=routes).endswith(b"('/pulls', ())")
    assert exchange(get("/pulls/a%20b/events"), routes=routes).endswith(b"('/pulls/a b/events', ('a b',))")
    assert exchange(get("/pulls/x", method="DELETE"), routes=routes).endswith(b"('/pulls/x', ('x',))")
    assert status(exchange(get("/pulls/x"), routes=routes)) == 405
    assert b"DELETE" in exchange(get("/pulls/x"), routes=routes)
    for nowhere in ("/pulls/", "/pulls/x/events/y", "/pulls/x/other", "/pulls//events"):
        assert status(exchange(get(nowhere), routes=routes)) == 404
