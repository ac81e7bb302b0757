"""A look into the real daemon: stacks, memory, profiles; by sockets, a port, verbs and signals."""

import http.client
import os
import re
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import leaks
from support.daemon import CRIO, Daemon, running_daemon, wait_for

pytestmark = pytest.mark.node


@pytest.fixture
def profiled(tmp_path: Path) -> Iterator[Daemon]:
    before = leaks.snapshot()
    settings = {
        "crio.profile.profile": True,
        "crio.profile.profile_port": 0,
        "crio.profile.enable_profile_unix_socket": True,
        "crio.profile.profile_cpu": str(tmp_path / "cpu.txt"),
        "crio.profile.profile_mem": str(tmp_path / "mem.txt"),
    }
    with running_daemon(tmp_path / "node", settings=settings) as running:
        yield running
    assert leaks.leaked(before) == {}


@pytest.fixture
def usual(tmp_path: Path) -> Iterator[Daemon]:
    before = leaks.snapshot()
    with running_daemon(tmp_path / "node") as running:
        yield running
    assert leaks.leaked(before) == {}


def get(daemon: Daemon, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("localhost", timeout=60)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(daemon.socket)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def crio(daemon: Daemon, *words: str) -> str:
    command = [str(CRIO), "-c", "", "-d", "", "status", f"--socket={daemon.socket}", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def test_stacks_and_memory_are_told_by_the_socket_and_by_crio(usual: Daemon, tmp_path: Path) -> None:
    status, stacks = get(usual, "/debug/goroutines")
    assert status == 200
    assert "goroutine task [front door]:" in stacks
    assert "goroutine task [sweeper]:" in stacks
    assert get(usual, "/debug/heap")[1].startswith("heap profile: resident ")
    assert "goroutine" in crio(usual, "goroutines")
    assert f"Wrote heap dump to: {tmp_path}/heap.out" in crio(usual, "heap", "-f", str(tmp_path / "heap.out"))
    assert "builtins.dict" in (tmp_path / "heap.out").read_text()
    assert get(usual, "/debug/pprof/goroutine")[0] == 404


def test_signals_tell_stacks_and_end_nothing(usual: Daemon) -> None:
    os.kill(usual.pid, signal.SIGUSR2)
    os.kill(usual.pid, signal.SIGUSR1)
    wait_for(lambda: "stacks written" in usual.log())
    path = Path(re.findall(r'"stacks written" path=(\S+)', usual.log())[-1])
    try:
        assert "goroutine task [front door]:" in path.read_text()
    finally:
        path.unlink()
    assert usual.cri.call("Version").runtime_name


def test_profiles_are_served_where_they_are_asked_for_and_written_at_the_end(profiled: Daemon, tmp_path: Path) -> None:
    assert get(profiled, "/debug/pprof/goroutine")[0] == 200
    status, profile = get(profiled, "/debug/pprof/profile?seconds=1")
    assert (status, profile.startswith("# profile by samples: ")) == (200, True)
    [url] = re.findall(r'"serving profiles" url=(http://127\.0\.0\.1:\d+/debug/pprof/)', profiled.log())
    with urllib.request.urlopen(f"{url}goroutine", timeout=30) as answer:
        assert b"goroutine task [profile port]:" in answer.read()
    assert profiled.stop() == 0
    assert "criollo.daemon.main" in (tmp_path / "cpu.txt").read_text()
    assert "allocations since the start" in (tmp_path / "mem.txt").read_text()
