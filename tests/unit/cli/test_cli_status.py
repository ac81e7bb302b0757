"""crio status against a daemon that only talks."""

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import pytest

from criollo.aio.http_server import HttpServer, Reply, Request
from criollo.cli.main import run
from criollo.daemon.front_door import FrontDoor
from criollo.errors import NotFound

EVIL = "\x1b]0;owned\x07"
PULL = {
    **{"id": "abc", "reference": "example.com/a:1", "stage": "layers"},
    "layers": [
        {"digest": "sha256:1", "size": 10, "done": 10, "stage": "here"},
        {"digest": "sha256:2", "size": 90, "done": 5, "stage": "pulling", "retries": 2},
    ],
}
EVENTS = [
    {"type": "begin", "id": "abc", "reference": "example.com/a:1"},
    {"type": "stage", "stage": EVIL},
    {"type": "layer", "place": 0, "layer": {"digest": "sha256:1", "size": 10, "done": 3, "stage": "pulling", "source": "h/a"}},
    {"type": "result", "image": "1" * 64},
]


@pytest.fixture
def socket(tmp_path: Path) -> Iterator[Path]:
    """Served until the test ends."""
    started, stop, path = threading.Event(), threading.Event(), tmp_path / "s"

    async def main() -> None:
        http = HttpServer(routes())
        door = FrontDoor(path, grpc=http.serve, http=http.serve)
        door.open()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(door.run())
            started.set()
            while not stop.is_set():
                await asyncio.sleep(0.005)
            door.stop_accepting()
            task.cancel()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    assert started.wait(60)
    yield path
    stop.set()
    thread.join(60)


def routes() -> dict[tuple[str, str], Any]:
    def fixed(document: object) -> Any:
        async def route(request: Request) -> Reply:
            return Reply(body=json.dumps(document).encode())

        return route

    async def inside(request: Request) -> Reply:
        return Reply(body=f"told by {request.path}\n".encode())

    async def config(request: Request) -> Reply:
        return Reply(body=b"[crio]\n")

    async def events(request: Request) -> Reply:
        if request.words[0] == "gone":
            raise NotFound("pull", "gone")
        last = [{"type": "error", "error": "no luck"}] if request.words[0] == "bad" else EVENTS
        return Reply(parts=lines(last))

    async def lines(told: list[dict[str, Any]]) -> AsyncGenerator[bytes, None]:
        for event in told:
            yield json.dumps(event).encode() + b"\n"

    async def container(request: Request) -> Reply:
        return Reply(body=json.dumps({"name": request.words[0], "labels": {"a": EVIL}, "ip_addresses": ["10.0.0.1"]}).encode())

    ids = {"uids": [{"container_id": 0, "host_id": 1, "size": 2}], "gids": []}
    info = {"cgroup_driver": "systemd", "storage_driver": "overlay", "storage_root": "/r", "default_id_mappings": ids}
    return {
        ("GET", "/info"): fixed(info),
        ("GET", "/config"): config,
        ("GET", "/pulls"): fixed([PULL]),
        ("GET", "/pulls/{}/events"): events,
        ("DELETE", "/pulls/{}"): fixed({}),
        ("GET", "/containers/{}"): container,
        ("GET", "/debug/goroutines"): inside,
        ("GET", "/debug/heap"): inside,
    }


def status(socket: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    return run(["status", "-s", str(socket), *words]), *capsys.readouterr()


@pytest.mark.parametrize("verb", ["info", "i"])
def test_info_has_crios_words(socket: Path, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    code, out, _ = status(socket, capsys, verb)
    assert code == 0
    assert "cgroup driver: systemd\nstorage driver: overlay\nstorage graph root: /r\n" in out
    assert "default UID mappings (format <container>:<host>:<size>):\n  0:1:2\n" in out


def test_config_is_printed_as_it_is(socket: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(socket, capsys, "c") == (0, "[crio]\n", "")


def test_stacks_are_printed(socket: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(socket, capsys, "g") == (0, "told by /debug/goroutines\n", "")


def test_heap_goes_to_the_file_that_is_named_or_to_stdout(
    socket: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "heap.out"
    assert status(socket, capsys, "heap", "-f", str(file)) == (0, f"Wrote heap dump to: {file}\n", "")
    assert file.read_text() == "told by /debug/heap\n"
    assert status(socket, capsys, "hp", "-f", "-") == (0, "told by /debug/heap\n", "")
    code, _, said = status(socket, capsys, "heap", "-f", str(tmp_path / "none" / "heap.out"))
    assert code == 1
    assert "cannot write the heap dump to" in said


def test_a_container_is_told_and_escaped(socket: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = status(socket, capsys, "s", "-i", "a b")
    assert code == 0
    assert "ips: 10.0.0.1" in out
    assert all(letter.isprintable() or letter == "\n" for letter in out)


def test_pulls_are_listed(socket: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = "abc  example.com/a:1  layers  1 of 2 layers, 15 of 100 bytes, 2 retries\n"
    assert status(socket, capsys, "pulls") == (0, line, "")
    assert status(socket, capsys, "pulls", "example.com/a:1") == (0, line, "")
    code, out, err = status(socket, capsys, "pulls", "other")
    assert (code, out, "pull other not found" in err) == (1, "", True)
    assert status(socket, capsys, "pulls", "--cancel", "-f", "abc")[0] == 2
    assert json.loads(status(socket, capsys, "pulls", "--json")[1]) == [PULL]


def test_a_pull_is_followed_to_its_end(socket: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = status(socket, capsys, "pulls", "-f", "example.com/a:1")
    assert code == 0
    assert out.splitlines()[0] == "pull example.com/a:1"
    assert "from h/a" in out
    assert out.splitlines()[-1] == f"image {'1' * 64}"
    assert all(letter.isprintable() or letter == "\n" for letter in out)
    as_json = status(socket, capsys, "pulls", "-f", "--json", "abc")[1]
    assert [json.loads(line) for line in as_json.splitlines()] == EVENTS


def test_a_pull_that_fails_has_status_1(socket: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = status(socket, capsys, "pulls", "-f", "bad")
    assert (code, "no luck" in err) == (1, True)
    code, _, err = status(socket, capsys, "pulls", "-f", "gone")
    assert (code, err) == (1, "crio: pull gone not found\n")


def test_a_pull_is_ended(socket: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(socket, capsys, "pulls", "--cancel", "abc") == (0, "", "")
    assert status(socket, capsys, "pulls", "--cancel")[0] == 2


def test_nobody_there_has_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (("info",), ("config",), ("pulls",), ("pulls", "-f", "x"), ("containers", "-i", "x"), ("containers",)):
        code, out, err = status(tmp_path / "none", capsys, *words)
        assert (code, out, err.count("\n")) == (1, "", 1)
