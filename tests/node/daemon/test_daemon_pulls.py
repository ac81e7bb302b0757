"""Pulls in progress: seen, followed, ended; by HTTP and by `crio status`."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from support import leaks
from support.bad_registry import BadRegistry, cut_after, hang_after, run_bad_registry
from support.daemon import Daemon, running_daemon, wait_for
from support.image_node import layers, no_images_left, pull, pull_request, registries_conf
from support.images import busybox_image, file, make_image

from criollo.cli.ask import ask

pytestmark = pytest.mark.node

CRIO = Path(sys.executable).parent / "crio"
SMALL, LARGE = [file("small", "x" * 2000)], [file("large", bytes(range(256)) * 4000)]


@pytest.fixture(scope="module")
def bad() -> Iterator[BadRegistry]:
    with run_bad_registry() as running:
        yield running


@pytest.fixture(scope="module")
def daemon(bad: BadRegistry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    before = leaks.snapshot()
    with running_daemon(Path(tmp_path_factory.mktemp("node")), registries=registries_conf(bad)) as running:
        yield running
    assert leaks.leaked(before) == {}


@pytest.fixture(autouse=True)
def store_is_empty_again(daemon: Daemon) -> Iterator[None]:
    with no_images_left(daemon):
        yield


class Pulling:
    """A pull in a thread of its own, of an image whose large layer stops half way."""

    def __init__(self, daemon: Daemon, bad: BadRegistry, name: str) -> None:
        self.image = make_image([SMALL, [*LARGE, file("of", name)]], compression="none")
        bad.add(name, "v1", self.image)
        bad.break_at(f"/v2/{name}/blobs/{self.image.layers[1].digest}", hang_after(5000))
        self.reference = bad.reference(name, "v1")
        self.failure: grpc.RpcError | None = None
        self._thread = threading.Thread(target=self._run, args=(daemon,))
        self._thread.start()

    def _run(self, daemon: Daemon) -> None:
        try:
            daemon.cri.call("PullImage", pull_request(self.reference), timeout_s=60)
        except grpc.RpcError as error:
            self.failure = error

    def join(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive()


def listed(daemon: Daemon) -> list[Any]:
    return list(json.loads(ask(Path(daemon.socket), "GET", "/pulls", {})))


def at_the_hang(daemon: Daemon) -> dict[str, Any]:
    """The only pull, when its small layer is here and its large one has stopped."""

    def ready() -> dict[str, Any] | None:
        found = listed(daemon)
        done = [layer["done"] for layer in found[0]["layers"]] if found else []
        return found[0] if len(done) == 2 and found[0]["layers"][0]["stage"] == "here" and done[1] == 5000 else None

    wait_for(lambda: ready() is not None)
    found = ready()
    assert found is not None
    return found


def status(daemon: Daemon, *words: str) -> "subprocess.CompletedProcess[str]":
    argv = [str(CRIO), "status", "-s", str(daemon.socket), *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)


def test_a_pull_that_is_ended_leaves_nothing(daemon: Daemon, bad: BadRegistry) -> None:
    pulling = Pulling(daemon, bad, "ended")
    found = at_the_hang(daemon)
    assert found["reference"] == pulling.reference
    assert found["stage"] == "layers"
    assert [layer["source"] for layer in found["layers"]] == [f"{bad.host}/ended"] * 2
    assert len(layers(daemon)) == 1
    answer = json.loads(ask(Path(daemon.socket), "DELETE", f"/pulls/{found['id']}", {}))
    assert "ended by a request" in answer["error"]
    pulling.join()
    assert "ended by a request" in str(pulling.failure)
    assert (listed(daemon), layers(daemon)) == ([], [])


def test_who_follows_is_told_layers_and_the_end(daemon: Daemon, bad: BadRegistry) -> None:
    pulling = Pulling(daemon, bad, "followed")
    found = at_the_hang(daemon)
    argv = [str(CRIO), "status", "-s", str(daemon.socket), "pulls", "-f", "--json", found["id"]]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        first = [json.loads(following.stdout.readline()) for _ in range(4)]
        assert [each["type"] for each in first] == ["begin", "stage", "layer", "layer"]
        assert first[0]["reference"] == pulling.reference
        assert status(daemon, "pulls", "--cancel", pulling.reference).returncode == 0
        rest = [json.loads(line) for line in following.stdout]
        assert following.wait(60) == 1
        assert rest[-1]["type"] == "error"
    pulling.join()
    late = status(daemon, "pulls", "-f", "--json", found["id"])  # the end is remembered for a while
    assert json.loads(late.stdout.splitlines()[-1]) == rest[-1]


def test_a_reader_that_does_not_read_holds_nobody(daemon: Daemon, bad: BadRegistry) -> None:
    pulling = Pulling(daemon, bad, "unread")
    found = at_the_hang(daemon)
    with socket.socket(socket.AF_UNIX) as lazy:
        lazy.connect(str(daemon.socket))
        lazy.sendall(f"GET /pulls/{found['id']}/events HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        other = make_image([[file("other", "o" * 100000)]])
        bad.add("beside", "v1", other)
        assert pull(daemon, bad.reference("beside", "v1")) == other.id
        assert status(daemon, "pulls", "--cancel", found["id"]).returncode == 0
        pulling.join()


def test_retries_are_counted(daemon: Daemon, bad: BadRegistry) -> None:
    image = make_image([[file("cut", bytes(range(256)) * 2000)]], compression="none")
    bad.add("cut", "v1", image)
    bad.break_at("/v2/cut/blobs/" + image.layers[0].digest, cut_after(1000), times=1)
    bad.break_at("/v2/cut/blobs/" + image.layers[0].digest, hang_after(1000))
    thread = threading.Thread(target=lambda: _ignoring(daemon, bad.reference("cut", "v1")))
    thread.start()
    wait_for(lambda: any(layer["retries"] == 1 for each in listed(daemon) for layer in each["layers"]))
    assert "1 retries" in status(daemon, "pulls").stdout
    assert status(daemon, "pulls", "--cancel", bad.reference("cut", "v1")).returncode == 0
    thread.join(60)


def _ignoring(daemon: Daemon, reference: str) -> None:
    with pytest.raises(grpc.RpcError):
        pull(daemon, reference)


def test_status_tells_what_scripts_read(daemon: Daemon, bad: BadRegistry) -> None:
    bad.add("run", "v1", busybox_image())
    pull(daemon, bad.reference("run", "v1"))
    pod_id = daemon.run_pod()
    container = daemon.run_container(pod_id, daemon.container_config(bad.reference("run", "v1"), "sleep", "1000"))
    told = status(daemon, "containers", "-i", container)
    assert told.returncode == 0, told.stderr
    assert f"sandbox: {pod_id}\n" in told.stdout
    assert "image: " + bad.reference("run", "v1") in told.stdout
    assert "storage driver: overlay" in status(daemon, "info").stdout
    assert "[crio" in status(daemon, "config").stdout
    assert status(daemon, "pulls").stdout == "no pull is in progress\n"


@pytest.mark.parametrize(
    "words", [("containers",), ("containers", "-i", "nothing"), ("pulls", "-f", "nothing"), ("pulls", "--cancel", "nothing")]
)
def test_what_is_not_there_has_status_1(daemon: Daemon, words: tuple[str, ...]) -> None:
    told = status(daemon, *words)
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr.startswith("crio: ")


def test_a_socket_where_nobody_is_has_status_1(tmp_path: Path) -> None:
    for verb in ("info", "config", "pulls"):
        done = subprocess.run([str(CRIO), "status", "-s", str(tmp_path / "none"), verb], capture_output=True, check=False)
        assert done.returncode == 1
