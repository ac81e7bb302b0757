"""Pod sandboxes through the socket: namespaces, network, files, idempotence."""

import json
import os
import signal
import subprocess
from pathlib import Path

import grpc
import pytest
from support.cri import pb
from support.daemon import CGROUPS, Daemon, wait_for
from support.registry import free_port

pytestmark = pytest.mark.node


def status(daemon: Daemon, pod: str, *, verbose: bool = False) -> object:
    answer = daemon.cri.call("PodSandboxStatus", pb.PodSandboxStatusRequest(pod_sandbox_id=pod, verbose=verbose))
    return answer if verbose else answer.status


def test_a_pod_is_ready_with_an_address(daemon: Daemon) -> None:
    pod = daemon.run_pod()
    found = status(daemon, pod)
    assert found.state == pb.SANDBOX_READY
    assert found.network.ip.startswith(daemon.net)
    assert found.created_at > 0


def test_repeating_a_run_returns_the_same_pod(daemon: Daemon) -> None:
    config = daemon.pod_config()
    assert daemon.run_pod(config) == daemon.run_pod(config)


def test_a_taken_name_is_refused_once_its_pod_is_stopped(daemon: Daemon) -> None:
    config = daemon.pod_config()
    daemon.stop_pod(daemon.run_pod(config))
    with pytest.raises(grpc.RpcError) as refused:
        daemon.run_pod(config)
    assert refused.value.code() is grpc.StatusCode.ALREADY_EXISTS


def test_an_unknown_handler_is_not_found(daemon: Daemon) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        daemon.run_pod(handler="nonesuch")
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert "nonesuch" in refused.value.details()


def test_the_pods_of_both_runtimes_work(daemon: Daemon, image: str) -> None:
    for handler in ("crun", "runc"):
        pod = daemon.run_pod(handler=handler)
        container = daemon.run_container(pod, daemon.container_config(image, "sleep", "1000"))
        assert daemon.output(container, "hostname") != ""
        assert status(daemon, pod).runtime_handler == handler


def test_stopping_and_removing_twice_and_unknown_ids_succeed(daemon: Daemon) -> None:
    pod = daemon.run_pod()
    for _ in range(2):
        daemon.stop_pod(pod)
    for name in (pod, pod, "f" * 64):
        daemon.cri.call("RemovePodSandbox", pb.RemovePodSandboxRequest(pod_sandbox_id=name))
    daemon.stop_pod("f" * 64)


def test_a_stopped_pod_is_not_ready_and_keeps_no_network(daemon: Daemon) -> None:
    pod = daemon.run_pod()
    daemon.stop_pod(pod)
    assert status(daemon, pod).state == pb.SANDBOX_NOTREADY
    assert not (daemon.runroot / "netns" / pod).exists()


def test_removing_a_pod_kills_and_removes_its_containers(daemon: Daemon, image: str) -> None:
    pod = daemon.run_pod()
    container = daemon.run_container(pod, daemon.container_config(image, "sleep", "1000"))
    daemon.cri.call("RemovePodSandbox", pb.RemovePodSandboxRequest(pod_sandbox_id=pod))
    assert container not in [each.id for each in daemon.cri.call("ListContainers").containers]


def test_containers_of_a_pod_share_its_network_and_hostname(daemon: Daemon, image: str) -> None:
    pod = daemon.run_pod(daemon.pod_config(hostname="shared-name"))
    one = daemon.run_container(pod, daemon.container_config(image, "sleep", "1000", name="one"))
    two = daemon.run_container(pod, daemon.container_config(image, "sleep", "1000", name="two"))
    assert daemon.output(one, "hostname") == daemon.output(two, "hostname") == "shared-name\n"
    assert daemon.output(one, "readlink", "/proc/self/ns/net") == daemon.output(two, "readlink", "/proc/self/ns/net")
    assert status(daemon, pod).network.ip in daemon.output(one, "ip", "addr")


def test_a_shared_pid_namespace_has_the_infra_process_first(daemon: Daemon, image: str) -> None:
    config = daemon.pod_config()
    config.linux.security_context.namespace_options.pid = pb.POD
    pod = daemon.run_pod(config)
    wanted = daemon.container_config(image, "sleep", "1000")
    wanted.linux.security_context.namespace_options.pid = pb.POD
    container = daemon.run_container(pod, wanted)
    processes = daemon.output(container, "ps", "-o", "pid,args")
    assert "catatonit" in processes
    assert "sleep 1000" in processes


def test_a_pod_with_its_infra_process_killed_is_not_ready(daemon: Daemon) -> None:
    config = daemon.pod_config()
    config.linux.security_context.namespace_options.pid = pb.POD
    pod = daemon.run_pod(config)
    answer = status(daemon, pod, verbose=True)
    os.kill(json.loads(answer.info["info"])["pid"], signal.SIGKILL)
    wait_for(lambda: status(daemon, pod).state == pb.SANDBOX_NOTREADY)


def test_a_host_network_pod_sees_the_nodes_interfaces(daemon: Daemon, image: str) -> None:
    config = daemon.pod_config()
    config.linux.security_context.namespace_options.network = pb.NODE
    pod = daemon.run_pod(config)
    wanted = daemon.container_config(image, "sleep", "1000")
    wanted.linux.security_context.namespace_options.network = pb.NODE
    container = daemon.run_container(pod, wanted)
    assert os.readlink("/proc/self/ns/net") == daemon.output(container, "readlink", "/proc/self/ns/net").strip()
    assert status(daemon, pod).network.ip == ""
    assert daemon.output(container, "cat", "/etc/hosts") == Path("/etc/hosts").read_text()


def test_sysctls_are_set_in_the_pod_and_not_on_the_node(daemon: Daemon, image: str) -> None:
    node = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()
    config = daemon.pod_config()
    config.linux.sysctls["net.ipv4.ip_unprivileged_port_start"] = "77"
    config.linux.sysctls["kernel.shm_rmid_forced"] = "1"
    container = daemon.run_container(daemon.run_pod(config), daemon.container_config(image, "sleep", "1000"))
    assert daemon.output(container, "cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start") == "77\n"
    assert daemon.output(container, "cat", "/proc/sys/kernel/shm_rmid_forced") == "1\n"
    assert Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text() == node


@pytest.mark.parametrize(
    ("name", "value"),
    [("kernel.core_pattern", "|/x"), ("kernel.shmmax", "1+kernel.core_pattern=|/x"), ("net.ipv4.../../kernel/x", "1")],
)
def test_a_sysctl_that_is_not_the_pods_is_refused(daemon: Daemon, name: str, value: str) -> None:
    config = daemon.pod_config()
    config.linux.sysctls[name] = value
    core = Path("/proc/sys/kernel/core_pattern").read_text()
    with pytest.raises(grpc.RpcError) as refused:
        daemon.run_pod(config)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert Path("/proc/sys/kernel/core_pattern").read_text() == core


def test_dns_and_hostname_files_say_what_was_asked(daemon: Daemon, image: str) -> None:
    dns = pb.DNSConfig(servers=["10.96.0.10"], searches=["svc.cluster.local"], options=["ndots:5"])
    pod = daemon.run_pod(daemon.pod_config(hostname="named", dns_config=dns))
    container = daemon.run_container(pod, daemon.container_config(image, "sleep", "1000"))
    assert daemon.output(container, "cat", "/etc/resolv.conf") == (
        "search svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"
    )
    assert daemon.output(container, "cat", "/etc/hostname") == "named\n"


def test_shared_memory_is_shared_within_the_pod_and_bounded(daemon: Daemon, image: str) -> None:
    pod = daemon.run_pod()
    one = daemon.run_container(pod, daemon.container_config(image, "sleep", "1000", name="one"))
    two = daemon.run_container(pod, daemon.container_config(image, "sleep", "1000", name="two"))
    daemon.output(one, "sh", "-c", "echo seen > /dev/shm/note")
    assert daemon.output(two, "cat", "/dev/shm/note") == "seen\n"
    assert daemon.exec(one, "dd", "if=/dev/zero", "of=/dev/shm/fill", "bs=1M", "count=65").exit_code != 0


def test_a_host_port_reaches_the_container(daemon: Daemon, image: str) -> None:
    port = free_port()
    mapping = pb.PortMapping(protocol=pb.TCP, container_port=8080, host_port=port)
    pod = daemon.run_pod(daemon.pod_config(port_mappings=[mapping]))
    serve = daemon.container_config(image, "sh", "-c", "mkdir /w; echo served > /w/index.html; httpd -f -p 8080 -h /w")
    container = daemon.run_container(pod, serve)
    wait_for(lambda: daemon.exec(container, "wget", "-qO-", "http://127.0.0.1:8080/").exit_code == 0)
    gateway = daemon.net + "1"
    other = daemon.run_container(daemon.run_pod(), daemon.container_config(image, "sleep", "1000"))
    assert daemon.output(other, "wget", "-qO-", f"http://{gateway}:{port}/") == "served\n"
    rules = subprocess.run(["iptables", "-t", "nat", "-S"], capture_output=True, text=True, check=True).stdout
    assert f"--dport {port} " in rules
    daemon.remove_pod(pod)
    rules = subprocess.run(["iptables", "-t", "nat", "-S"], capture_output=True, text=True, check=True).stdout
    assert f"--dport {port} " not in rules


def test_lists_filter_by_state_label_and_id(daemon: Daemon) -> None:
    one, two = daemon.run_pod(daemon.pod_config("first")), daemon.run_pod(daemon.pod_config("second"))
    daemon.stop_pod(two)

    def listed(**fields: object) -> list[str]:
        request = pb.ListPodSandboxRequest(filter=pb.PodSandboxFilter(**fields))
        return [each.id for each in daemon.cri.call("ListPodSandbox", request).items]

    assert listed(id=one[:12]) == [one]
    assert listed(state=pb.PodSandboxStateValue(state=pb.SANDBOX_NOTREADY)) == [two]
    assert listed(label_selector={"app": "first"}) == [one]
    assert listed(label_selector={"app": "first", "other": "x"}) == []
    streamed = [pod.id for part in daemon.cri.stream("StreamPodSandboxes") for pod in part.pod_sandboxes]
    assert sorted(streamed) == sorted(listed())


def test_a_pods_cgroup_goes_with_it_when_nobody_else_made_it(daemon: Daemon, image: str) -> None:
    config = daemon.pod_config()
    by_systemd = CGROUPS == "systemd"
    config.linux.cgroup_parent = "criollotest-pod1.slice" if by_systemd else "/criollotest/pod1"
    pod = daemon.run_pod(config)
    container = daemon.run_container(pod, daemon.container_config(image, "sleep", "1000"))
    below = "/criollotest.slice/criollotest-pod1.slice/crio-" if by_systemd else "/criollotest/pod1/crio-"
    assert below in Path(f"/proc/{daemon.info(container)['pid']}/cgroup").read_text()
    daemon.remove_pod(pod)
    assert not [*Path("/sys/fs/cgroup").glob("criollotest*"), *Path("/sys/fs/cgroup").glob("*/criollotest*")]
