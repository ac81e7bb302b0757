"""kill -9 and failures at every step of the verbs of pods and containers: nothing leaks, the retry works."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.cri import pb
from support.daemon import CGROUPS, Daemon, wait_for
from support.faults import failed, killed, struck
from support.footprint import footprint, left
from support.registry import free_port

pytestmark = pytest.mark.node

ALLOWED = ["seccomp-notifier-action.crio.io", "link-logs.crio.io"]
SETTINGS = {"crio.runtime.runtimes.crun.allowed_annotations": ALLOWED}
KNOBS = {"sweep_s": 0.3}

RUN_POD = [
    "criollo.state.records:PodRows.insert:after",
    "criollo.pods.cgroups:ensure:after",
    "criollo.pods.namespaces:pin_pod:before",
    "criollo.pods.namespaces:pin_pod:after",
    "criollo.linux.files:_fill:after",  # within the first file that is replaced: what is known of the network
    "criollo.network.cni:Cni.announce:after",
    "criollo.network.cni:Cni.add:before",
    "criollo.network.plugins:execute_for_result:before",
    "criollo.network.plugins:execute_for_result:after",  # between two plugins
    "criollo.network.cni:Cni.add:after",
    "criollo.pods.files:write:after",
    "criollo.pods.infra:_write_bundle:after",
    "criollo.runtimes.oci:OciRuntime.create:before",
    "criollo.monitor.conmon:_answer:before",
    "criollo.runtimes.oci:OciRuntime.create:after",
    "criollo.pods.infra:pin_pids:before",
    "criollo.linux.namespaces:pin_of:after",
    "criollo.runtimes.oci:OciRuntime.start:before",
    "criollo.runtimes.oci:OciRuntime.start:after",
]
POD_IS_READY = "criollo.pods.infra:watch:before"
RUN_MAPPED_POD = [
    "criollo.workers.pool:Workers.userns:before",
    "criollo.linux.namespaces:pin:before",
    "criollo.linux.namespaces:pin:after",
]
RUN_LINKED_POD = ["criollo.containers.linked_logs:bind:before", "criollo.containers.linked_logs:bind:after"]
CREATE = [
    "criollo.state.records:ContainerRows.insert:after",
    "criollo.storage.rootfs:RootStore.create:before",
    "criollo.storage.overlay:Overlay.mount:after",
    "criollo.storage.rootfs:RootStore.create:after",
    "criollo.containers.volumes:plan_mounts:before",
    "criollo.containers.volumes:plan_mounts:after",
    "criollo.containers.create:_write_bundle:before",
    "criollo.containers.create:prepare:after",
    "criollo.containers.create:_write_bundle:after",
    "criollo.runtimes.oci:OciRuntime.create:before",
    "criollo.monitor.conmon:_answer:before",
    "criollo.runtimes.oci:OciRuntime.create:after",
    "criollo.state.records:ContainerRows.put:before",
]
CONTAINER_IS_CREATED = "criollo.state.records:ContainerRows.put:after"
CREATE_MAPPED = ["criollo.storage.mapped:attach:after", "criollo.storage.overlay:Overlay.mount:after"]
CREATE_LINKED = ["criollo.containers.linked_logs:link:before", "criollo.containers.linked_logs:link:after"]
CREATE_NOTIFIED = ["criollo.containers.create:listen:before", "criollo.containers.create:listen:after"]
CREATE_DEBUGGING = ["criollo.containers.create:pin_of:before", "criollo.containers.create:pin_of:after"]
START = ["criollo.state.records:ContainerRows.put:before", "criollo.state.records:ContainerRows.put:after"]
REMOVE = [
    "criollo.runtimes.oci:OciRuntime.kill:before",
    "criollo.runtimes.oci:OciRuntime.kill:after",
    "criollo.runtimes.oci:OciRuntime.delete:before",
    "criollo.runtimes.oci:OciRuntime.delete:after",
    "criollo.storage.rootfs:RootStore.unmount:after",
    "criollo.storage.rootfs:RootStore.remove:after",
    "criollo.containers.teardown:_remove_files:after",
    "criollo.state.records:ContainerRows.delete:before",
    "criollo.state.records:ContainerRows.delete:after",
]
EXIT_IS_KEPT = "criollo.state.records:ContainerRows.keep:after"  # which never fails
REMOVE_POD = [
    "criollo.network.cni:Cni.delete:before",
    "criollo.network.cni:Cni.delete:after",
    "criollo.pods.infra:remove:before",
    "criollo.pods.infra:remove:after",
    "criollo.pods.namespaces:unpin_pod:before",
    "criollo.pods.namespaces:unpin_pod:after",
    "criollo.pods.files:remove:after",
    "criollo.pods.cgroups:remove:after",
    "criollo.state.records:PodRows.delete:before",
    "criollo.state.records:PodRows.delete:after",
]
UPDATE = ["criollo.containers.update:_apply:before", "criollo.containers.update:_apply:after"]
UPDATE_POD = ["criollo.pods.update:_apply:before", "criollo.pods.update:_apply:after"]
POINTS = sorted(
    {
        *RUN_POD, POD_IS_READY, *RUN_MAPPED_POD, *RUN_LINKED_POD, *CREATE, CONTAINER_IS_CREATED, *CREATE_MAPPED,
        *CREATE_LINKED, *CREATE_NOTIFIED, *CREATE_DEBUGGING, *START, EXIT_IS_KEPT, *REMOVE, *REMOVE_POD, *UPDATE, *UPDATE_POD,
    }
)  # fmt: skip


def everything(daemon: Daemon) -> Any:
    """A pod with an infra container and with two plugins that have work."""
    config = daemon.pod_config(port_mappings=[pb.PortMapping(container_port=80, host_port=free_port(), host_ip="127.0.0.1")])
    config.linux.security_context.namespace_options.pid = pb.POD
    return config


def mapped(config: Any) -> Any:
    options = config.linux.security_context.namespace_options.userns_options
    options.mode = pb.POD
    for ids in (options.uids, options.gids):
        ids.add(host_id=100000, container_id=0, length=65536)
    return config


def sleeping(daemon: Daemon, image: str, name: str = "main") -> Any:
    """A container with a volume."""
    config = daemon.container_config(image, "sleep", "1000", name=name)
    config.mounts.add(container_path="/v", host_path=str(daemon.logs))
    return config


@pytest.fixture
def linked(daemon: Daemon) -> Iterator[Any]:
    """The config of a pod that sees its logs in an emptyDir, which kubelet makes."""
    config = daemon.pod_config(annotations={"link-logs.crio.io": "logs"})
    pod = Path("/var/lib/kubelet/pods") / config.metadata.uid
    made = [each for each in pod.parents if not each.exists()]
    (pod / "volumes/kubernetes.io~empty-dir/logs").mkdir(parents=True)
    yield config
    daemon.remove_everything()
    shutil.rmtree(pod)
    for each in made:
        each.rmdir()


def pods(daemon: Daemon) -> list[str]:
    return [each.id for each in daemon.cri.call("ListPodSandbox").items]


def containers(daemon: Daemon) -> list[str]:
    return [each.id for each in daemon.cri.call("ListContainers").containers]


def assert_works(daemon: Daemon, container: str) -> None:
    assert daemon.output(container, "echo", "works") == "works\n"


def killed_run(daemon: Daemon, image: str, point: str, config: Any) -> None:
    killed(daemon, point, lambda: daemon.run_pod(config))
    assert pods(daemon) == []
    pod = daemon.run_pod(config)
    assert_works(
        daemon, daemon.run_container(pod, mapped(sleeping(daemon, image)) if is_mapped(config) else sleeping(daemon, image))
    )


def is_mapped(config: Any) -> bool:
    return bool(config.linux.security_context.namespace_options.userns_options.uids)


def failed_run(daemon: Daemon, point: str, config: Any) -> None:
    before = footprint(daemon)
    assert "fault was injected" in failed(daemon, point, lambda: daemon.run_pod(config))
    assert left(daemon, before) == {}
    daemon.run_pod(config)


@pytest.mark.parametrize("point", RUN_POD)
def test_killed_while_a_pod_is_made(daemon: Daemon, image: str, point: str) -> None:
    killed_run(daemon, image, point, everything(daemon))


@pytest.mark.parametrize("point", RUN_POD)
def test_a_failing_step_of_a_pod_is_told_and_undone(daemon: Daemon, point: str) -> None:
    failed_run(daemon, point, everything(daemon))


def test_killed_when_a_pod_is_ready_it_is_found_by_the_retry(daemon: Daemon) -> None:
    config = everything(daemon)
    killed(daemon, POD_IS_READY, lambda: daemon.run_pod(config))
    [pod] = pods(daemon)
    assert daemon.run_pod(config) == pod


@pytest.mark.parametrize("point", RUN_MAPPED_POD)
def test_killed_while_a_pod_with_a_user_namespace_is_made(daemon: Daemon, image: str, point: str) -> None:
    killed_run(daemon, image, point, mapped(daemon.pod_config()))


@pytest.mark.parametrize("point", RUN_MAPPED_POD)
def test_a_failing_step_of_a_pod_with_a_user_namespace_is_told_and_undone(daemon: Daemon, point: str) -> None:
    failed_run(daemon, point, mapped(daemon.pod_config()))


@pytest.mark.parametrize("point", RUN_LINKED_POD)
def test_killed_while_a_pod_with_linked_logs_is_made(daemon: Daemon, image: str, point: str, linked: Any) -> None:
    killed_run(daemon, image, point, linked)


@pytest.mark.parametrize("point", RUN_LINKED_POD)
def test_a_failing_step_of_a_pod_with_linked_logs_is_told_and_undone(daemon: Daemon, point: str, linked: Any) -> None:
    failed_run(daemon, point, linked)


def killed_create(daemon: Daemon, point: str, pod: str, config: Any) -> None:
    before = set(containers(daemon))
    killed(daemon, point, lambda: daemon.create(pod, config))
    assert set(containers(daemon)) == before
    assert_works(daemon, daemon.run_container(pod, config))


def failed_create(daemon: Daemon, point: str, pod: str, config: Any) -> None:
    before = footprint(daemon)
    assert "fault was injected" in failed(daemon, point, lambda: daemon.create(pod, config))
    assert left(daemon, before) == {}
    assert_works(daemon, daemon.run_container(pod, config))


@pytest.mark.parametrize("point", CREATE)
def test_killed_while_a_container_is_made(daemon: Daemon, image: str, point: str) -> None:
    killed_create(daemon, point, daemon.run_pod(), sleeping(daemon, image))


@pytest.mark.parametrize("point", [*CREATE, CONTAINER_IS_CREATED])
def test_a_failing_step_of_a_container_is_told_and_undone(daemon: Daemon, image: str, point: str) -> None:
    failed_create(daemon, point, daemon.run_pod(), sleeping(daemon, image))


def test_killed_when_a_container_is_created_it_is_found_by_the_retry(daemon: Daemon, image: str) -> None:
    pod, config = daemon.run_pod(), sleeping(daemon, image)
    killed(daemon, CONTAINER_IS_CREATED, lambda: daemon.create(pod, config))
    [container] = containers(daemon)
    assert daemon.create(pod, config) == container
    daemon.start_container(container)
    assert_works(daemon, container)


@pytest.mark.parametrize("point", CREATE_MAPPED)
@pytest.mark.parametrize("act", [killed_create, failed_create])
def test_a_step_of_a_container_with_a_user_namespace(daemon: Daemon, image: str, point: str, act: Any) -> None:
    act(daemon, point, daemon.run_pod(mapped(daemon.pod_config())), mapped(sleeping(daemon, image)))


@pytest.mark.parametrize("point", CREATE_LINKED)
@pytest.mark.parametrize("act", [killed_create, failed_create])
def test_a_step_of_a_container_with_linked_logs(daemon: Daemon, image: str, point: str, act: Any, linked: Any) -> None:
    act(daemon, point, daemon.run_pod(linked), sleeping(daemon, image))


@pytest.mark.parametrize("point", CREATE_NOTIFIED)
@pytest.mark.parametrize("act", [killed_create, failed_create])
def test_a_step_of_a_container_with_the_seccomp_notifier(daemon: Daemon, image: str, point: str, act: Any) -> None:
    pod = daemon.run_pod(daemon.pod_config(annotations={"seccomp-notifier-action.crio.io": "tell"}))
    config = sleeping(daemon, image)
    config.linux.security_context.seccomp.profile_type = pb.SecurityProfile.RuntimeDefault
    act(daemon, point, pod, config)
    daemon.remove_everything()
    assert list((daemon.runroot / "seccomp").iterdir()) == []


@pytest.mark.parametrize("point", CREATE_DEBUGGING)
@pytest.mark.parametrize("act", [killed_create, failed_create])
def test_a_step_of_a_container_that_joins_anothers_processes(daemon: Daemon, image: str, point: str, act: Any) -> None:
    pod = daemon.run_pod()
    config = sleeping(daemon, image, "debug")
    config.linux.security_context.namespace_options.pid = pb.TARGET
    config.linux.security_context.namespace_options.target_id = daemon.run_container(pod, sleeping(daemon, image))
    act(daemon, point, pod, config)


@pytest.mark.parametrize("point", START)
def test_killed_while_a_container_is_started(daemon: Daemon, image: str, point: str) -> None:
    container = daemon.create(daemon.run_pod(), sleeping(daemon, image))
    killed(daemon, point, lambda: daemon.start_container(container))
    assert daemon.status(container).state == pb.CONTAINER_CREATED
    daemon.start_container(container)
    assert_works(daemon, container)


def test_killed_in_the_grace_of_a_stop_the_container_runs_on(daemon: Daemon, image: str) -> None:
    script = "trap 'echo heard' TERM; echo ready; while true; do sleep 0.05; done"
    container = daemon.run_container(daemon.run_pod(), daemon.container_config(image, "sh", "-c", script))
    wait_for(lambda: "ready" in daemon.container_log(container))
    stopping = daemon.cri.begin("StopContainer", pb.StopContainerRequest(container_id=container, timeout=1000))
    wait_for(lambda: "heard" in daemon.container_log(container))
    daemon.kill()
    assert stopping.exception() is not None
    daemon.start()
    assert daemon.status(container).state == pb.CONTAINER_RUNNING
    daemon.stop_container(container)
    assert daemon.status(container).exit_code == 137


@pytest.mark.parametrize("point", [*REMOVE, EXIT_IS_KEPT])
def test_killed_while_a_container_is_removed(daemon: Daemon, image: str, point: str) -> None:
    pod, config = daemon.run_pod(), sleeping(daemon, image)
    container = daemon.run_container(pod, config)
    killed(daemon, point, lambda: daemon.remove_container(container))
    daemon.remove_container(container)
    assert containers(daemon) == []
    assert_works(daemon, daemon.run_container(pod, config))


@pytest.mark.parametrize("point", REMOVE)
def test_a_failing_step_of_a_removal_can_be_repeated(daemon: Daemon, image: str, point: str) -> None:
    pod, config = daemon.run_pod(), sleeping(daemon, image)
    before = footprint(daemon)
    container = daemon.run_container(pod, config)
    with struck(daemon, point, "fail"), contextlib.suppress(grpc.RpcError):
        daemon.remove_container(container)
    daemon.remove_container(container)
    assert containers(daemon) == []
    assert left(daemon, before) == {}


def test_a_name_whose_removal_failed_is_free_at_once(daemon: Daemon, image: str) -> None:
    """As on a disk that was full until now: the client's next try need not wait for the sweeper."""
    pod_config = everything(daemon)
    pod, config = daemon.run_pod(pod_config), sleeping(daemon, image)
    container = daemon.run_container(pod, config)
    failed(daemon, "criollo.state.records:ContainerRows.delete:before", lambda: daemon.remove_container(container))
    assert_works(daemon, daemon.run_container(pod, config))
    failed(daemon, "criollo.state.records:PodRows.delete:before", lambda: daemon.remove_pod(pod))
    assert_works(daemon, daemon.run_container(daemon.run_pod(pod_config), config))


@pytest.mark.parametrize("point", [*REMOVE, *REMOVE_POD])
def test_killed_while_a_pod_is_removed(daemon: Daemon, image: str, point: str) -> None:
    pod = daemon.run_pod(everything(daemon))
    daemon.run_container(pod, sleeping(daemon, image))
    killed(daemon, point, lambda: daemon.remove_pod(pod))
    daemon.remove_pod(pod)
    assert pods(daemon) == []


@pytest.mark.parametrize("point", REMOVE_POD)
def test_a_failing_step_of_a_pods_removal_can_be_repeated(daemon: Daemon, image: str, point: str) -> None:
    before = footprint(daemon)
    pod = daemon.run_pod(everything(daemon))
    daemon.run_container(pod, sleeping(daemon, image))
    with struck(daemon, point, "fail"), contextlib.suppress(grpc.RpcError):
        daemon.remove_pod(pod)
    daemon.remove_pod(pod)
    assert pods(daemon) == []
    assert left(daemon, before) == {}


def limit_of(parent: str) -> int:
    """The memory limit of a cgroup, wherever memory's hierarchy is."""
    for path, name in ((Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"), (Path("/sys/fs/cgroup"), "memory.max")):
        if (file := path / parent.lstrip("/") / name).exists():
            return int(file.read_text())
    raise AssertionError(f"no memory limit in {parent}")


@pytest.mark.parametrize("point", UPDATE)
def test_killed_while_limits_change_status_and_cgroup_agree(daemon: Daemon, image: str, point: str) -> None:
    config = sleeping(daemon, image)
    config.linux.resources.memory_limit_in_bytes = 64 << 20
    pod = daemon.run_pod()
    container = daemon.run_container(pod, config)
    asked = pb.LinuxContainerResources(memory_limit_in_bytes=128 << 20)
    request = pb.UpdateContainerResourcesRequest(container_id=container, linux=asked)
    killed(daemon, point, lambda: daemon.cri.call("UpdateContainerResources", request))
    assert daemon.status(container).resources.linux.memory_limit_in_bytes == 128 << 20
    pid = daemon.info(container)["pid"]
    assert limit_of(memory_cgroup(pid)) == 128 << 20


def memory_cgroup(pid: int) -> str:
    lines = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    return next((path for _, names, path in lines if "memory" in names.split(",")), lines[-1][2])


@pytest.mark.skipif(CGROUPS != "cgroupfs", reason="systemd holds the limits of slices")
@pytest.mark.parametrize("point", UPDATE_POD)
def test_killed_while_a_pod_is_resized_its_cgroup_follows(daemon: Daemon, image: str, point: str) -> None:
    pod = daemon.run_pod()
    container = daemon.run_container(pod, sleeping(daemon, image))
    asked = pb.LinuxContainerResources(memory_limit_in_bytes=128 << 20)
    request = pb.UpdatePodSandboxResourcesRequest(pod_sandbox_id=pod, resources=asked)
    killed(daemon, point, lambda: daemon.cri.call("UpdatePodSandboxResources", request))
    parent = str(Path(memory_cgroup(daemon.info(container)["pid"])).parent)
    assert limit_of(parent) == 128 << 20
