"""kill -9 and failing drivers at every step of every verb: nothing leaks, the retry works."""

import os
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from support import leaks
from support.cri import pb
from support.daemon import Daemon
from support.registry import Registry

pytestmark = pytest.mark.node

RUN_POD = [
    "criollo.state.records:PodRows.insert:after",
    "criollo.pods.cgroups:ensure:after",
    "criollo.pods.namespaces:pin_pod:before",
    "criollo.pods.namespaces:pin_pod:after",
    "criollo.network.cni:Cni.add:before",
    "criollo.network.cni:Cni.add:after",
    "criollo.pods.files:write:after",
    "criollo.runtimes.oci:OciRuntime.create:before",
    "criollo.monitor.conmon:_answer:before",
    "criollo.runtimes.oci:OciRuntime.create:after",
    "criollo.runtimes.oci:OciRuntime.start:after",
]
CREATE = [
    "criollo.state.records:ContainerRows.insert:after",
    "criollo.storage.rootfs:RootStore.create:before",
    "criollo.storage.overlay:Overlay.mount:after",
    "criollo.storage.rootfs:RootStore.create:after",
    "criollo.runtimes.oci:OciRuntime.create:before",
    "criollo.monitor.conmon:_answer:before",
    "criollo.runtimes.oci:OciRuntime.create:after",
    "criollo.state.records:ContainerRows.put:before",
]
REMOVE = [
    "criollo.runtimes.oci:OciRuntime.kill:after",
    "criollo.runtimes.oci:OciRuntime.delete:before",
    "criollo.runtimes.oci:OciRuntime.delete:after",
    "criollo.storage.rootfs:RootStore.remove:after",
    "criollo.network.cni:Cni.delete:before",
    "criollo.network.cni:Cni.delete:after",
    "criollo.pods.namespaces:unpin_pod:before",
    "criollo.pods.namespaces:unpin_pod:after",
    "criollo.pods.files:remove:after",
    "criollo.state.records:PodRows.delete:before",
]
PULL = [
    "criollo.registry.client:Registry.manifest:after",
    "criollo.registry.client:Registry.blob:before",
    "criollo.registry.client:Registry.blob:after",
    "criollo.images.pull:_fetch_config:after",
    "criollo.images.progress:Progress.arrived:after",
    "criollo.storage.layers:Layers.stage:after",
    "criollo.storage.layers:Layers.commit:before",
    "criollo.storage.layers:Layers.commit:after",
    "criollo.storage.layers:Layers.sync:after",
    "criollo.state.images:ImageRows.add_layer:after",
    "criollo.state.images:ImageRows.add:before",
    "criollo.state.images:ImageRows.add:after",
]


def shared_pid_config(daemon: Daemon) -> Any:
    config = daemon.pod_config()
    config.linux.security_context.namespace_options.pid = pb.POD
    return config


def killed(daemon: Daemon, fault: str, act: Callable[[], object]) -> None:
    """Restart with the fault, act until the daemon dies of it, start a sound one."""
    daemon.stop()
    daemon.start(fault=f"{fault}:kill")
    with pytest.raises(grpc.RpcError):
        act()
    daemon.wait_death()
    daemon.start()


def failed(daemon: Daemon, fault: str, act: Callable[[], object]) -> str:
    """Restart with the fault, act, and return what the caller was told."""
    daemon.stop()
    daemon.start(fault=f"{fault}:fail")
    with pytest.raises(grpc.RpcError) as told:
        act()
    return str(told.value.details())


def prove_it_works(daemon: Daemon, image: str) -> None:
    pod = daemon.run_pod(shared_pid_config(daemon))
    container = daemon.run_container(pod, daemon.container_config(image, "sleep", "1000"))
    assert daemon.output(container, "echo", "works") == "works\n"
    daemon.remove_pod(pod)


@pytest.mark.parametrize("point", RUN_POD)
def test_killed_while_a_pod_is_made(daemon: Daemon, image: str, point: str) -> None:
    config = shared_pid_config(daemon)
    killed(daemon, point, lambda: daemon.run_pod(config))
    assert list(daemon.cri.call("ListPodSandbox").items) == []
    pod = daemon.run_pod(config)
    container = daemon.run_container(pod, daemon.container_config(image, "sleep", "1000"))
    assert daemon.output(container, "echo", "works") == "works\n"


@pytest.mark.parametrize("point", RUN_POD)
def test_a_failing_step_of_a_pod_is_told_and_undone(daemon: Daemon, image: str, point: str) -> None:
    config = shared_pid_config(daemon)
    before = leaks.snapshot(namespaces_dir=daemon.runroot)
    assert "fault was injected" in failed(daemon, point, lambda: daemon.run_pod(config))
    assert without_daemon(leaks.leaked(before, namespaces_dir=daemon.runroot), daemon) == {}
    daemon.run_pod(config)


@pytest.mark.parametrize("point", CREATE)
def test_killed_while_a_container_is_made(daemon: Daemon, image: str, point: str) -> None:
    pod, config = daemon.run_pod(), daemon.container_config(image, "sleep", "1000")
    killed(daemon, point, lambda: daemon.create(pod, config))
    assert list(daemon.cri.call("ListContainers").containers) == []
    container = daemon.run_container(pod, config)
    assert daemon.output(container, "echo", "works") == "works\n"


@pytest.mark.parametrize("point", CREATE)
def test_a_failing_step_of_a_container_is_told_and_undone(daemon: Daemon, image: str, point: str) -> None:
    pod, config = daemon.run_pod(), daemon.container_config(image, "sleep", "1000")
    before = leaks.snapshot(namespaces_dir=daemon.runroot)
    assert "fault was injected" in failed(daemon, point, lambda: daemon.create(pod, config))
    assert without_daemon(leaks.leaked(before, namespaces_dir=daemon.runroot), daemon) == {}
    daemon.run_container(pod, config)


@pytest.mark.parametrize("point", REMOVE)
def test_killed_while_a_pod_is_removed(daemon: Daemon, image: str, point: str) -> None:
    pod = daemon.run_pod(shared_pid_config(daemon))
    daemon.run_container(pod, daemon.container_config(image, "sleep", "1000"))
    killed(daemon, point, lambda: daemon.remove_pod(pod))
    daemon.remove_everything()
    assert list(daemon.cri.call("ListPodSandbox").items) == []
    prove_it_works(daemon, image)


@pytest.mark.parametrize("point", PULL)
def test_killed_while_an_image_is_pulled(daemon: Daemon, registry: Registry, image: str, point: str) -> None:
    daemon.cri.call("RemoveImage", pb.RemoveImageRequest(image=pb.ImageSpec(image=image)))
    killed(daemon, point, lambda: daemon.pull(image))
    images = list(daemon.cri.call("ListImages").images)
    kept = set(os.listdir(daemon.root / "layers")) - {"empty"}
    assert len(kept) == len(images)  # one layer each; without its image's row it is swept
    assert os.listdir(daemon.root / "staging") == []
    daemon.pull(image)
    prove_it_works(daemon, image)


def without_daemon(leaked: dict[str, list[str]], daemon: Daemon) -> dict[str, list[str]]:
    """The faulty daemon and its workers are processes too, and no leak."""
    processes = [line for line in leaked.pop("processes", []) if "conmon" in line or "crun" in line]
    return {**leaked, **({"processes": processes} if processes else {})}
