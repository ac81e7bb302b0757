"""Sessions from token to end, over real sockets; what they run is a stand-in here."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import pytest
from support import leaks
from support import streaming as client
from support.waiting import skip_ahead

from criollo.aio.http_server import HttpServer
from criollo.aio.streams import Streams
from criollo.errors import Exhausted, Unavailable, WrongState
from criollo.model.ids import ContainerId, PodId
from criollo.model.session import AttachSession, ExecSession, ForwardSession, Session
from criollo.streaming import process
from criollo.streaming.listener import Listener
from criollo.streaming.server import Streaming
from criollo.streaming.session import Status

EXEC = ExecSession(container_id=ContainerId("c" * 64), argv=("true",), stdout=True, stderr=True)
ATTACH = AttachSession(container_id=ContainerId("c" * 64), stdout=True, stderr=True)
FORWARD = ForwardSession(pod_id=PodId("d" * 64))
Work = Callable[[Streams], Awaitable[Status]]


async def hello(streams: Streams) -> Status:
    assert streams.stdout is not None
    await streams.stdout.write(b"hello")
    return Status(exit_code=3)


async def endless(streams: Streams) -> Status:
    await asyncio.Event().wait()
    return Status()


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Callable[[Work], None]:
    """Set what sessions run."""

    def let(run: Work) -> None:
        async def run_process(pods: object, session: Session, streams: Streams) -> Status:
            return await run(streams)

        monkeypatch.setattr(process, "run_process", run_process)

    monkeypatch.setattr(process, "check_session", lambda *_: None)
    let(hello)
    return let


@contextlib.asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[Streaming]:
    """Sessions at a port of loopback; nothing of them is left at the end."""
    streaming = Streaming(cast(Any, None), **{"idle_s": 0, **options})
    listener = Listener("127.0.0.1", 0, serve=HttpServer({}, upgrades=streaming.upgrades()).serve)
    listener.open()
    streaming.base_url, streaming.hosts = listener.base_url, listener.hosts
    async with asyncio.TaskGroup() as group:
        running = group.create_task(listener.run())
        try:
            async with asyncio.timeout(60):
                yield streaming
                while streaming.running:
                    await asyncio.sleep(0.01)
        finally:
            running.cancel()
            listener.stop_accepting()


def test_session_runs_and_ends_with_its_status(work: Any) -> None:
    async def main() -> client.Outcome:
        async with serving() as streaming:
            return await client.run(streaming.issue(EXEC))

    outcome = asyncio.run(main())
    assert outcome.stdout == b"hello"
    assert outcome.status["details"]["causes"][0]["message"] == "3"


@pytest.mark.parametrize(("session", "kind"), [(EXEC, "exec"), (ATTACH, "attach"), (FORWARD, "portforward")])
def test_url_names_the_verb(work: Any, session: Session, kind: str) -> None:
    async def main() -> str:
        async with serving() as streaming:
            return streaming.issue(session)

    assert f"/{kind}/" in asyncio.run(main())


def test_many_sessions_leave_nothing(work: Any) -> None:
    async def main() -> None:
        async with serving() as streaming:
            for _ in range(3):
                async with asyncio.TaskGroup() as group:
                    for _ in range(20):
                        group.create_task(client.run(streaming.issue(EXEC)))
            while streaming.running:
                await asyncio.sleep(0.01)
            names = [task.get_name() for task in asyncio.all_tasks()]
            assert len(names) <= 3 + 60, names

    asyncio.run(main())
    before = leaks.descriptors()
    asyncio.run(main())
    assert leaks.new_descriptors(before) == []


def test_client_that_goes_cancels_the_work(work: Any) -> None:
    cancelled = asyncio.Event()

    async def run(streams: Streams) -> Status:
        try:
            return await endless(streams)
        finally:
            cancelled.set()

    work(run)

    async def main() -> None:
        async with serving() as streaming, client.spdy(streaming.issue(EXEC)) as connection:
            await client.process_streams(connection, "error", "stdout", "stderr")
            connection.abort()
            await cancelled.wait()

    asyncio.run(main())


def test_idle_session_is_told_and_ended(work: Any) -> None:
    begun = asyncio.Event()

    async def run(streams: Streams) -> Status:
        begun.set()
        return await endless(streams)

    work(run)

    async def main() -> client.Outcome:
        async with serving(idle_s=30) as streaming, asyncio.TaskGroup() as group:
            outcome = group.create_task(client.run(streaming.issue(EXEC)))
            await begun.wait()
            skip_ahead(30)
        return outcome.result()

    assert "idle for 30 s" in asyncio.run(main()).status["message"]


def test_drain_lets_sessions_end_and_then_ends_them(work: Any) -> None:
    work(endless)

    async def main() -> Any:
        async with serving() as streaming, client.spdy(streaming.issue(EXEC)) as connection:
            streams = await client.process_streams(connection, "error", "stdout", "stderr")
            url = streaming.issue(EXEC)
            async with asyncio.TaskGroup() as group:
                group.create_task(streaming.drain(0.05))
                status = await client.drink(streams["error"])
                assert (await client.ask(url, *client.spdy_headers())).status == 503
                with pytest.raises(Unavailable):
                    streaming.issue(EXEC)
                await connection.close()
            return json.loads(status)

    assert "criollo is stopping" in asyncio.run(main())["message"]


def test_bug_in_a_session_ends_that_session(work: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def run(streams: Streams) -> Status:
        raise ValueError("a bug")

    work(run)

    async def main() -> None:
        async with serving() as streaming, client.spdy(streaming.issue(EXEC)) as connection:
            await client.process_streams(connection, "error", "stdout", "stderr")
            await connection.ended.wait()

    asyncio.run(main())
    assert "an error of our own" in caplog.text


def test_too_many_sessions_are_refused(work: Any) -> None:
    work(endless)

    async def main() -> client.Answer:
        async with serving(limit=1) as streaming, client.spdy(streaming.issue(EXEC)):
            return await client.ask(streaming.issue(EXEC), *client.spdy_headers())

    answer = asyncio.run(main())
    assert answer.status == 503
    assert b"1 sessions are open" in answer.body


def test_what_cannot_run_any_more_is_an_http_error(work: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> client.Answer:
        async with serving() as streaming:
            url = streaming.issue(EXEC)

            def refuse(*_: object) -> None:
                raise WrongState("container", "x", "EXITED", "RUNNING")

            monkeypatch.setattr(process, "check_session", refuse)
            return await client.ask(url, *client.spdy_headers())

    answer = asyncio.run(main())
    assert (answer.status, answer.body) == (409, b"container x is EXITED; this needs RUNNING\n")


@pytest.mark.parametrize("path", ["/exec/", "/exec/guess", "/attach/../exec/x", "/exec/a/b"])
def test_guesses_are_not_found(work: Any, path: str) -> None:
    async def main() -> int:
        async with serving() as streaming:
            return (await client.ask(streaming.base_url + path, *client.spdy_headers())).status

    assert asyncio.run(main()) == 404


def test_page_from_elsewhere_does_not_use_the_token_up(work: Any) -> None:
    async def main() -> client.Outcome:
        async with serving() as streaming:
            url = streaming.issue(EXEC)
            refused = await client.ask(url, *client.spdy_headers(), ("origin", "http://elsewhere.example"))
            assert refused.status == 403
            return await client.run(url)

    assert asyncio.run(main()).stdout == b"hello"


def test_waiting_tokens_are_limited(work: Any) -> None:
    async def main() -> None:
        async with serving() as streaming:
            for _ in range(1000):
                streaming.issue(EXEC)
            with pytest.raises(Exhausted):
                streaming.issue(EXEC)

    asyncio.run(main())
