"""What tests of images through the socket do all the time: pull, look, be refused, find nothing left."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from support import leaks
from support.bad_registry import BadRegistry, Fault
from support.cri import pb
from support.daemon import Daemon
from support.registry import Registry


def registries_conf(*registries: Registry | BadRegistry) -> str:
    """All of them marked insecure; short names stay docker.io's."""
    return "".join(f'[[registry]]\nlocation = "{each.host}"\ninsecure = true\n' for each in registries)


def pull(daemon: Daemon, reference: str, *, timeout_s: float = 60, **auth: str) -> str:
    """The id of a pulled image; `auth` are fields of AuthConfig."""
    return str(daemon.cri.call("PullImage", pull_request(reference, **auth), timeout_s=timeout_s).image_ref)


def pull_request(reference: str, **auth: str) -> Any:
    return pb.PullImageRequest(image=pb.ImageSpec(image=reference), auth=pb.AuthConfig(**auth) if auth else None)


def refused(daemon: Daemon, reference: str, code: grpc.StatusCode, **auth: str) -> str:
    """What the client is told when a pull fails with this code."""
    with pytest.raises(grpc.RpcError) as told:
        pull(daemon, reference, **auth)
    assert told.value.code() is code, told.value
    return str(told.value.details())


def status(daemon: Daemon, name: str) -> Any:
    """The image of this name or id, or None."""
    answer = daemon.cri.call("ImageStatus", pb.ImageStatusRequest(image=pb.ImageSpec(image=name)))
    return answer.image if answer.HasField("image") else None


def images(daemon: Daemon) -> list[Any]:
    return list(daemon.cri.call("ListImages").images)


def remove(daemon: Daemon, name: str) -> None:
    daemon.cri.call("RemoveImage", pb.RemoveImageRequest(image=pb.ImageSpec(image=name)))


def layers(daemon: Daemon) -> list[Path]:
    """The directories of all layers."""
    return sorted(path for path in (daemon.root / "layers").iterdir() if path.name != "empty")


def nothing_left(daemon: Daemon) -> None:
    """No layer, no tree in the making; what was removed is being deleted. A check after a kill may hold layers for a moment."""
    assert leaks.settled(lambda: {"layers": left} if (left := [path.name for path in layers(daemon)]) else {}, 60) == {}
    assert os.listdir(daemon.root / "staging") == []


@contextlib.contextmanager
def no_images_left(daemon: Daemon) -> Iterator[None]:
    """After the block all pods and images are removed, which must leave the store empty."""
    yield
    if daemon.process is None:
        daemon.start()
    daemon.remove_everything()
    for image in images(daemon):
        remove(daemon, image.id)
    nothing_left(daemon)
    assert leaks.settled(lambda: {"trash": left} if (left := os.listdir(daemon.root / "trash")) else {}, 60) == {}


class Gate:
    """A fault that lets requests wait until `open`."""

    def __init__(self) -> None:
        self._opened = threading.Event()

    def fault(self) -> Fault:
        def wait(handler: Any, reply: Any) -> Any:
            self._opened.wait(60)
            return reply

        return wait

    def open(self) -> None:
        self._opened.set()
