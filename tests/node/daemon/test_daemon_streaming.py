"""Exec and attach through the streaming port of a real daemon: what clients get, and how sessions end."""

import asyncio
import contextlib
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from support import leaks, streaming
from support.cri import pb
from support.daemon import Daemon, wait_for


def exec_url(daemon: Daemon, container_id: str, *command: str, **fields: bool) -> str:
    asked = {"stdout": True, "stderr": not fields.get("tty"), **fields}
    return str(daemon.cri.call("Exec", pb.ExecRequest(container_id=container_id, cmd=list(command), **asked)).url)


def sleeper(daemon: Daemon, image: str) -> str:
    return daemon.run_container(daemon.run_pod(), daemon.container_config(image, "sleep", "1000"))


def in_session(daemon: Daemon, url: str, use: Callable[[dict[str, Any]], Awaitable[Any]], *kinds: str) -> Any:
    """What `use` gives with the open streams of a session; the connection is closed afterwards."""

    async def main() -> Any:
        async with streaming.spdy(url) as connection, asyncio.timeout(streaming.LIMIT_S):
            return await use(await streaming.process_streams(connection, "error", *(kinds or ("stdout", "stderr"))))

    return asyncio.run(main())


def test_exec_gives_output_and_success(daemon: Daemon, image: str) -> None:
    outcome = asyncio.run(streaming.run(exec_url(daemon, sleeper(daemon, image), "sh", "-c", "echo out; echo err >&2")))
    assert (outcome.stdout, outcome.stderr) == (b"out\n", b"err\n")
    assert outcome.status["status"] == "Success"


def test_exec_tells_the_exit_code_as_kubelet_does(daemon: Daemon, image: str) -> None:
    outcome = asyncio.run(streaming.run(exec_url(daemon, sleeper(daemon, image), "sh", "-c", "exit 42")))
    assert outcome.status["reason"] == "NonZeroExitCode"
    assert outcome.status["details"]["causes"] == [{"reason": "ExitCode", "message": "42"}]


def test_older_protocols_get_the_failure_as_text(daemon: Daemon, image: str) -> None:
    url = exec_url(daemon, sleeper(daemon, image), "sh", "-c", "exit 3")

    async def main() -> bytes:
        async with streaming.spdy(url, "v2.channel.k8s.io") as connection:
            streams = await streaming.process_streams(connection, "error", "stdout", "stderr")
            return await streaming.drink(streams["error"])

    assert asyncio.run(main()) == b"command terminated with non-zero exit code: 3"


def test_end_of_stdin_reaches_the_command(daemon: Daemon, image: str) -> None:
    data = os.urandom(3 << 20)
    outcome = asyncio.run(streaming.run(exec_url(daemon, sleeper(daemon, image), "cat", stdin=True), stdin=data))
    assert outcome.stdout == data
    assert outcome.status["status"] == "Success"


def test_terminal_takes_its_size_from_the_client(daemon: Daemon, image: str) -> None:
    script = "while [ \"$(busybox stty size)\" != '33 77' ]; do sleep 0.1; done; tty; busybox stty size"
    url = exec_url(daemon, sleeper(daemon, image), "/bin/busybox", "sh", "-c", script, tty=True)

    async def use(streams: dict[str, Any]) -> bytes:
        await streams["resize"].write(json.dumps({"Width": 77, "Height": 33}).encode())
        return await streaming.drink(streams["stdout"])

    assert in_session(daemon, url, use, "stdout", "resize").endswith(b"33 77\r\n")


def test_unix_socket_serves_the_same_sessions(daemon: Daemon, image: str) -> None:
    url = exec_url(daemon, sleeper(daemon, image), "echo", "hello")
    assert asyncio.run(streaming.run(url, unix=daemon.socket)).stdout == b"hello\n"


def test_attach_follows_a_container_until_it_stops(daemon: Daemon, image: str) -> None:
    script = "while true; do echo tick; sleep 0.1; done"
    container = daemon.run_container(daemon.run_pod(), daemon.container_config(image, "sh", "-c", script))
    request = pb.AttachRequest(container_id=container, stdout=True, stderr=True)
    url = daemon.cri.call("Attach", request).url

    async def use(streams: dict[str, Any]) -> tuple[bytes, bytes]:
        said = await streams["stdout"].read()
        stopping = asyncio.get_running_loop().run_in_executor(None, daemon.stop_container, container)
        said += await streaming.drink(streams["stdout"])
        await stopping
        return said, await streaming.drink(streams["error"])

    said, status = in_session(daemon, url, use)
    assert b"tick\n" in said
    assert json.loads(status)["status"] == "Success"


def test_stopped_container_ends_its_execs(daemon: Daemon, image: str) -> None:
    container = sleeper(daemon, image)
    url = exec_url(daemon, container, "sleep", "5432")

    async def use(streams: dict[str, Any]) -> bytes:
        await asyncio.get_running_loop().run_in_executor(None, wait_for, lambda: commands("5432"))
        await asyncio.get_running_loop().run_in_executor(None, daemon.stop_container, container)
        return await streaming.drink(streams["error"])

    causes = json.loads(in_session(daemon, url, use))["details"]["causes"]
    assert causes == [{"reason": "ExitCode", "message": "137"}]


def test_client_that_goes_ends_its_command(daemon: Daemon, image: str) -> None:
    container = sleeper(daemon, image)
    url = exec_url(daemon, container, "sleep", "4321")

    async def use(streams: dict[str, Any]) -> None:
        await asyncio.get_running_loop().run_in_executor(None, wait_for, lambda: commands("4321"))

    in_session(daemon, url, use)
    wait_for(lambda: not commands("4321"))


def commands(argument: str) -> list[str]:
    """The processes that sleep for so long."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if words[0] == b"sleep" and argument.encode() in words:
                found.append(pid)
    return found


def test_token_serves_once_and_is_never_redirected(daemon: Daemon, image: str) -> None:
    url = exec_url(daemon, sleeper(daemon, image), "true")
    asyncio.run(streaming.run(url))
    answer = asyncio.run(streaming.ask(url, *streaming.spdy_headers(), ("location", "http://192.0.2.1/")))
    assert answer.status == 404
    assert b"token is unknown, was used" in answer.body
    assert "location" not in answer.headers


def test_token_of_an_exec_is_none_of_an_attach(daemon: Daemon, image: str) -> None:
    url = exec_url(daemon, sleeper(daemon, image), "true").replace("/exec/", "/attach/")
    assert asyncio.run(streaming.ask(url, *streaming.spdy_headers())).status == 404


def test_state_is_asked_again_when_the_client_comes(daemon: Daemon, image: str) -> None:
    container = sleeper(daemon, image)
    url = exec_url(daemon, container, "true")
    daemon.stop_container(container)
    answer = asyncio.run(streaming.ask(url, *streaming.spdy_headers()))
    assert answer.status == 409
    assert b"this needs RUNNING" in answer.body


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ((), 400),
        ((("connection", "Upgrade"), ("upgrade", "SPDY/3.1")), 400),
        (streaming.spdy_headers("v9.channel.k8s.io"), 403),
        ((*streaming.spdy_headers(), ("origin", "http://elsewhere.example")), 403),
        ((*streaming.spdy_headers(), ("transfer-encoding", "chunked")), 400),
    ],
)
def test_refusals_can_be_read(daemon: Daemon, image: str, headers: list[tuple[str, str]], status: int) -> None:
    answer = asyncio.run(streaming.ask(exec_url(daemon, sleeper(daemon, image), "true"), *headers))
    assert answer.status == status
    assert answer.body.endswith(b"\n")


def test_bytes_before_the_agreement_are_refused(daemon: Daemon, image: str) -> None:
    url = exec_url(daemon, sleeper(daemon, image), "true")
    answer = asyncio.run(streaming.ask(url, *streaming.spdy_headers(), behind=b"\x80\x03"))
    assert answer.status == 400


def test_exec_is_checked_before_there_is_a_url(daemon: Daemon, image: str) -> None:
    container = sleeper(daemon, image)
    daemon.stop_container(container)
    with pytest.raises(grpc.RpcError) as refused:
        exec_url(daemon, container, "true")
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_stopping_daemon_tells_its_sessions(daemon: Daemon, image: str) -> None:
    container = sleeper(daemon, image)
    url = exec_url(daemon, container, "sleep", "8765")

    async def use(streams: dict[str, Any]) -> bytes:
        await asyncio.get_running_loop().run_in_executor(None, wait_for, lambda: commands("8765"))
        stopping = asyncio.get_running_loop().run_in_executor(None, daemon.stop)
        status = await streaming.drink(streams["error"])
        assert await stopping == 0
        return status

    assert "criollo is stopping" in json.loads(in_session(daemon, url, use))["message"]
    wait_for(lambda: not commands("8765"))
    daemon.start()
    assert daemon.output(container, "echo", "still here") == "still here\n"


def test_sessions_leave_nothing_in_the_daemon(daemon: Daemon, image: str) -> None:
    container = sleeper(daemon, image)

    async def many() -> None:
        urls = [exec_url(daemon, container, "echo", str(number)) for number in range(20)]
        async with asyncio.TaskGroup() as group:
            for url in urls:
                group.create_task(streaming.run(url))

    asyncio.run(many())
    before = leaks.held_by(daemon.pid)
    for _ in range(3):
        asyncio.run(many())
    grown = leaks.settled(lambda: more(before, leaks.held_by(daemon.pid)), 60)
    assert grown == {}


def more(before: dict[str, int], now: dict[str, int]) -> dict[str, list[str]]:
    return {name: [f"{count} -> {now[name]}"] for name, count in before.items() if now[name] > count}
