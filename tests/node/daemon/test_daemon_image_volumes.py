"""Image volumes: what a container sees of an image that it mounts, and what is left when it has gone."""

import os
import signal
from pathlib import Path
from typing import Any

import grpc
import pytest
from support import leaks
from support.cri import pb
from support.daemon import Daemon, running_daemon
from support.image_node import pull, remove, status
from support.images import (
    char_device,
    directory,
    file,
    make_image,
    push,
    symlink,
    whiteout,
)
from support.registry import Registry

pytestmark = pytest.mark.node

handlers = pytest.mark.parametrize("handler", ["crun", "runc"])


@pytest.fixture(scope="module")
def content(daemon: Daemon, registry: Registry) -> str:
    """An image of two layers that has no program: files, links inside and out, a program's bit, a device."""
    below = [directory("model"), file("model/old", "gone"), file("model/weights", "w1"), char_device("null", 1, 3)]
    above = [
        whiteout("model/old"),
        directory("model/conf"),
        file("model/conf/a.json", "{}"),
        file("tool", "#!/bin/sh\necho it runs\n", mode=0o755),
        file("suid", "#!/bin/sh\n", mode=0o4755),
        symlink("inside", "/model/conf"),
        symlink("outside", "../../../../etc"),
        symlink("absolute", "/etc/passwd"),
    ]
    push(registry, "content", "v1", make_image([below, above]))
    return registry.reference("content", "v1")


def with_volume(daemon: Daemon, image: str, volume: str, *, at: str = "/vol", **fields: Any) -> Any:
    config = daemon.container_config(image, "sleep", "1000")
    add_volume(config, volume, at=at, **fields)
    return config


def add_volume(config: Any, volume: str, *, at: str, **fields: Any) -> None:
    config.mounts.add(container_path=at, image=pb.ImageSpec(image=volume), **fields)


def refused(daemon: Daemon, pod: str, config: Any, code: grpc.StatusCode = grpc.StatusCode.UNKNOWN) -> str:
    with pytest.raises(grpc.RpcError) as told:
        daemon.create(pod, config)
    assert told.value.code() is code, told.value
    assert daemon.cri.call("ListContainers").containers == []
    return str(told.value.details())


def volume_mounts(daemon: Daemon) -> list[str]:
    return [target for target in leaks.snapshot().mounts if target.startswith(str(daemon.root)) and "/volumes/" in target]


@handlers
def test_the_merged_layers_are_seen_read_only(daemon: Daemon, image: str, content: str, handler: str) -> None:
    pull(daemon, content)
    container = daemon.run_container(daemon.run_pod(handler=handler), with_volume(daemon, image, content))
    assert daemon.output(container, "ls", "/vol/model").split() == ["conf", "weights"]
    assert daemon.output(container, "cat", "/vol/model/weights", "/vol/model/conf/a.json") == "w1{}"
    assert daemon.exec(container, "touch", "/vol/model/new").exit_code != 0
    assert b"Read-only" in daemon.exec(container, "rm", "/vol/tool").stderr
    assert daemon.output(container, "/vol/tool") == "it runs\n"  # executable, unless the client says noexec


def test_devices_and_set_user_ids_of_the_image_do_not_act(daemon: Daemon, image: str, content: str) -> None:
    pull(daemon, content)
    container = daemon.run_container(daemon.run_pod(), with_volume(daemon, image, content))
    (line,) = [each for each in daemon.output(container, "cat", "/proc/mounts").splitlines() if " /vol " in each]
    assert {"ro", "nodev", "nosuid"} <= set(line.split()[3].split(","))
    assert daemon.exec(container, "cat", "/vol/null").exit_code != 0


def test_mount_options_of_the_client_hold(daemon: Daemon, image: str, content: str) -> None:
    pull(daemon, content)
    config = with_volume(daemon, image, content, mount_options=["noexec"])
    container = daemon.run_container(daemon.run_pod(), config)
    assert daemon.exec(container, "sh", "-c", "/vol/tool").exit_code == 126


@handlers
@pytest.mark.parametrize(
    ("sub_path", "seen"),
    [("model/conf", "a.json"), ("inside", "a.json"), ("./model//conf/.", "a.json"), ("model", "conf weights")],
)
def test_a_sub_path_is_seen_alone(daemon: Daemon, image: str, content: str, handler: str, sub_path: str, seen: str) -> None:
    pull(daemon, content)
    config = with_volume(daemon, image, content, image_sub_path=sub_path)
    container = daemon.run_container(daemon.run_pod(handler=handler), config)
    assert daemon.output(container, "ls", "/vol").split() == seen.split()
    assert daemon.exec(container, "touch", "/vol/new").exit_code != 0


def test_a_sub_path_may_be_a_file(daemon: Daemon, image: str, content: str) -> None:
    pull(daemon, content)
    config = with_volume(daemon, image, content, at="/etc/weights", image_sub_path="model/weights")
    container = daemon.run_container(daemon.run_pod(), config)
    assert daemon.output(container, "cat", "/etc/weights") == "w1"


@pytest.mark.parametrize("sub_path", ["none", "model/weights/below", "outside", "absolute", "model/old"])
def test_a_sub_path_that_the_image_lacks_is_refused_and_leaves_nothing(
    daemon: Daemon, image: str, content: str, sub_path: str
) -> None:
    pull(daemon, content)
    pod = daemon.run_pod()
    told = refused(daemon, pod, with_volume(daemon, image, content, image_sub_path=sub_path))
    assert told.startswith("ImageVolumeMountFailed: cannot mount image")
    assert sub_path in told
    assert "does not exist in the image volume" in told
    assert volume_mounts(daemon) == []


def test_a_sub_path_to_a_device_is_refused(daemon: Daemon, image: str, content: str) -> None:
    pull(daemon, content)
    told = refused(daemon, daemon.run_pod(), with_volume(daemon, image, content, image_sub_path="null"))
    assert "a directory or a regular file" in told


def test_an_image_that_is_not_here_is_refused(daemon: Daemon, image: str) -> None:
    told = refused(daemon, daemon.run_pod(), with_volume(daemon, image, "nowhere.example/none:1"))
    assert told.startswith("ImageVolumeMountFailed: cannot mount image nowhere.example/none:1 at /vol: ")
    assert "pull it first" in told


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_image_in_use_as_a_volume_cannot_be_removed(daemon: Daemon, image: str, content: str, number: int) -> None:
    image_id = pull(daemon, content)
    pod = daemon.run_pod()
    container = daemon.run_container(pod, with_volume(daemon, image, image_id))
    daemon.restart(number)
    with pytest.raises(grpc.RpcError) as told:
        remove(daemon, content)
    assert container[:12] in str(told.value.details())
    assert daemon.output(container, "cat", "/vol/model/weights") == "w1"
    daemon.remove_pod(pod)
    remove(daemon, content)
    assert status(daemon, content) is None


def test_status_tells_the_image_of_a_mount(daemon: Daemon, image: str, content: str) -> None:
    image_id = pull(daemon, content)
    config = daemon.container_config(image, "sleep", "1000")
    config.mounts.add(
        container_path="/vol", image=pb.ImageSpec(image=image_id, user_specified_image=content), image_sub_path="model"
    )
    container = daemon.run_container(daemon.run_pod(), config)
    (mount,) = daemon.status(container).mounts
    assert (mount.image.image, mount.image.user_specified_image) == (image_id, content)
    assert mount.image.image_ref == status(daemon, content).repo_digests[0]
    assert (mount.container_path, mount.image_sub_path, mount.readonly) == ("/vol", "model", True)


def test_many_containers_mount_the_same_image_and_one_mounts_it_often(daemon: Daemon, image: str, content: str) -> None:
    pull(daemon, content)
    pod = daemon.run_pod()
    names = ["one", "two", "three"]
    found = []
    for name in names:
        config = with_volume(daemon, image, content)
        config.metadata.name, config.log_path = name, f"{name}/0.log"
        add_volume(config, content, at="/also", image_sub_path="model/conf")
        found.append(daemon.run_container(pod, config))
    for container in found:
        assert daemon.output(container, "cat", "/vol/model/weights") == "w1"
        assert daemon.output(container, "ls", "/also").split() == ["a.json"]
    daemon.remove_container(found[0])
    assert daemon.output(found[1], "cat", "/vol/model/weights") == "w1"


def test_an_image_may_mount_itself_and_one_without_layers_is_empty(daemon: Daemon, registry: Registry, image: str) -> None:
    push(registry, "nothing", "v1", make_image([]))
    pull(daemon, registry.reference("nothing", "v1"))
    config = with_volume(daemon, image, image)
    add_volume(config, registry.reference("nothing", "v1"), at="/empty")
    container = daemon.run_container(daemon.run_pod(), config)
    assert daemon.output(container, "ls", "/vol/bin/busybox") == "/vol/bin/busybox\n"
    assert daemon.output(container, "ls", "/empty") == ""


def test_volumes_are_the_same_with_copies_of_trees(
    registry: Registry, content: str, image: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = Path(tmp_path_factory.mktemp("vfs"))
    settings = {"crio.storage_driver": "vfs"}
    with running_daemon(place, registries=registry.registries_conf(), settings=settings) as other:
        for reference in (image, content):
            pull(other, reference)
        config = with_volume(other, image, content)
        add_volume(config, content, at="/part", image_sub_path="inside")
        container = other.run_container(other.run_pod(), config)
        assert other.output(container, "ls", "/vol/model").split() == ["conf", "weights"]
        assert other.output(container, "ls", "/part").split() == ["a.json"]
        assert other.exec(container, "touch", "/vol/new").exit_code != 0
        assert other.exec(container, "touch", "/part/new").exit_code != 0


def test_kill_of_the_daemon_leaves_no_volume_behind(daemon: Daemon, image: str, content: str) -> None:
    pull(daemon, content)
    pod = daemon.run_pod()
    for point in (
        "criollo.storage.rootfs:RootStore.mount_volume:after:kill",
        "criollo.storage.volumes:make:after:kill",
        "criollo.storage.overlay:Overlay.mount:after:kill",
    ):
        daemon.stop()
        daemon.start(fault=point)
        with pytest.raises(grpc.RpcError):
            daemon.create(pod, with_volume(daemon, image, content, image_sub_path="model"))
        daemon.wait_death()
        daemon.start()
        assert volume_mounts(daemon) == []
        assert os.listdir(Path(daemon.root) / "rootfs") == []
