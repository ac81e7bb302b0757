"""AppArmor, enforced by a kernel: what a confined process can and cannot do, and which profiles are let in."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from support.cri import pb
from support.daemon import Daemon, wait_for

POLICY = Path("/sys/kernel/security/apparmor")
OURS = "crio-default (enforce)"

needs_apparmor = pytest.mark.skipif(not (POLICY / "profiles").exists(), reason="the kernel has no AppArmor switched on")
pytestmark = needs_apparmor


@pytest.fixture(scope="module")
def running(daemon_with: Callable[..., Daemon]) -> Daemon:
    return daemon_with()


@contextmanager
def profile(name: str, rules: str) -> Iterator[str]:
    """A profile in the kernel, for a block."""
    text = f"profile {name} flags=(attach_disconnected) {{\n  network,\n  capability,\n  file,\n  signal,\n{rules}\n}}\n"
    subprocess.run(["apparmor_parser", "--skip-cache", "--replace"], input=text.encode(), check=True)
    try:
        yield name
    finally:
        unload(name)


def unload(name: str) -> None:
    subprocess.run(["apparmor_parser", "--remove"], input=f"profile {name} {{ }}\n".encode(), check=True)


def loaded() -> str:
    return (POLICY / "profiles").read_text()


def security_of(config: object, **fields: object) -> object:
    security = config.linux.security_context  # type: ignore[attr-defined]
    for name, value in fields.items():
        getattr(security, name).MergeFrom(value) if hasattr(value, "DESCRIPTOR") else setattr(security, name, value)
    return config


def local(name: str) -> object:
    return pb.SecurityProfile(profile_type=pb.SecurityProfile.Localhost, localhost_ref=name)


def run(running: Daemon, image: str, **fields: object) -> str:
    config = running.container_config(image, "sh", "-c", "cat /proc/self/attr/current; exec sleep 10000")
    return running.run_container(running.run_pod(), security_of(config, **fields))


def label(running: Daemon, container: str) -> str:
    """Of the first process, as the kernel tells the node."""
    return Path(f"/proc/{running.info(container)['pid']}/attr/current").read_text().strip()


def fails(running: Daemon, container: str, *command: str) -> str:
    answer = running.exec(container, *command)
    assert answer.exit_code != 0, answer
    return str(answer.stderr.decode())


def test_our_profile_is_in_the_kernel_and_confines_what_asks_for_nothing(running: Daemon, image: str) -> None:
    assert f"{OURS}\n" in loaded()
    container = run(running, image)
    assert label(running, container) == OURS
    assert running.output(container, "cat", "/proc/self/attr/current").strip() == OURS  # an exec, from the inside
    assert running.container_log(container).strip() == OURS


def test_even_with_all_capabilities_a_confined_process_can_neither_mount_nor_write_to_the_kernel(
    running: Daemon, image: str
) -> None:
    every = pb.Capability(add_capabilities=["ALL"])
    container = run(running, image, capabilities=every)
    assert "ermission denied" in fails(running, container, "mount", "-t", "tmpfs", "none", "/tmp")
    for path in ("/proc/sys/kernel/sem", "/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches", "/proc/sysrq-trigger"):
        assert "ermission denied" in fails(running, container, "sh", "-c", f"echo 1 > {path}"), path
    assert "ermission denied" in fails(running, container, "head", "-c", "1", "/proc/kcore")
    running.output(container, "sh", "-c", "cat /proc/sys/kernel/core_pattern /proc/cpuinfo; echo 0 > /proc/self/oom_score_adj")
    running.output(container, "sh", "-c", "sleep 100 & kill -9 $!; touch /a; mkdir /b; rm -r /a /b; ps; cat /proc/1/status")


def test_an_unconfined_process_with_all_capabilities_can(running: Daemon, image: str) -> None:
    """The opposite of the test before: the refusals are the profile's."""
    every = pb.Capability(add_capabilities=["ALL"])
    unconfined = pb.SecurityProfile(profile_type=pb.SecurityProfile.Unconfined)
    container = run(running, image, capabilities=every, apparmor=unconfined)
    assert label(running, container) == "unconfined"
    running.output(container, "mount", "-t", "tmpfs", "none", "/tmp")


def test_a_privileged_container_is_unconfined(running: Daemon, image: str) -> None:
    pod = running.pod_config()
    pod.linux.security_context.privileged = True
    config = running.container_config(image, "sleep", "10000")
    container = running.run_container(running.run_pod(pod), security_of(config, privileged=True, apparmor=local("gone")))
    assert label(running, container) == "unconfined"


def test_a_profile_of_the_node_confines_a_container_and_what_is_executed_in_it(running: Daemon, image: str) -> None:
    with profile("criollo-test-no-write", "  deny /forbidden/** w,") as name:
        container = run(running, image, apparmor=local(name))
        assert label(running, container) == f"{name} (enforce)"
        running.output(container, "mkdir", "/forbidden")
        assert "ermission denied" in fails(running, container, "touch", "/forbidden/x")
        running.output(container, "touch", "/allowed")
        running.remove_everything()


@pytest.mark.parametrize("form", ["localhost/{}", "{}"])
def test_the_deprecated_field_names_a_profile_with_and_without_its_prefix(running: Daemon, image: str, form: str) -> None:
    with profile("criollo-test-old-field", "") as name:
        container = run(running, image, apparmor_profile=form.format(name))
        assert label(running, container) == f"{name} (enforce)"
        running.remove_everything()


def test_a_profile_that_is_not_loaded_is_refused_by_name(running: Daemon, image: str) -> None:
    pod = running.run_pod()
    config = security_of(running.container_config(image, "true"), apparmor=local("criollo-test-gone"))
    with pytest.raises(grpc.RpcError) as caught:
        running.create(pod, config)
    assert "criollo-test-gone" in caught.value.details(), running.log()[-3000:]
    assert "apparmor_parser" in caught.value.details()
    assert running.cri.call("ListContainers").containers == [] or all(
        each.pod_sandbox_id != pod for each in running.cri.call("ListContainers").containers
    )


def test_our_profile_comes_back_when_somebody_unloads_it(running: Daemon, image: str) -> None:
    running.remove_everything()
    unload("crio-default")
    assert OURS not in loaded()
    assert label(running, run(running, image)) == OURS


def test_a_restart_loads_nothing_anew_and_containers_stay_confined(running: Daemon, image: str) -> None:
    container = run(running, image)
    before = (POLICY / "revision").open("rb", buffering=0)
    number = os.read(before.fileno(), 64)
    before.close()
    running.restart()
    after = (POLICY / "revision").open("rb", buffering=0)
    assert os.read(after.fileno(), 64) == number
    after.close()
    assert label(running, container) == OURS
    assert running.output(container, "cat", "/proc/self/attr/current").strip() == OURS


def test_containers_that_share_a_pid_namespace_are_confined_with_their_infra_container(running: Daemon, image: str) -> None:
    pod = running.pod_config()
    pod.linux.security_context.namespace_options.pid = pb.POD
    try:
        pod_id = running.run_pod(pod)
    except grpc.RpcError as error:
        pytest.skip(f"this machine has no infra container: {error.details()}")
    config = running.container_config(image, "sleep", "10000")
    config.linux.security_context.namespace_options.pid = pb.POD
    container = running.run_container(pod_id, config)
    assert running.output(container, "cat", "/proc/1/attr/current").strip() == OURS


def test_a_configured_profile_must_be_loaded_and_is_then_the_default(daemon_with: Callable[..., Daemon], image: str) -> None:
    with pytest.raises(AssertionError, match=r"criollo-test-default.*apparmor_parser"):
        daemon_with(**{"crio.runtime.apparmor_profile": "criollo-test-default"})
    with profile("criollo-test-default", "") as name:
        own = daemon_with(**{"crio.runtime.apparmor_profile": name})
        assert label(own, run(own, image)) == f"{name} (enforce)"
        own.remove_everything()


def test_an_unconfined_default_confines_nothing(daemon_with: Callable[..., Daemon], image: str) -> None:
    own = daemon_with(**{"crio.runtime.apparmor_profile": "unconfined"})
    assert label(own, run(own, image)) == "unconfined"


def test_the_default_profile_changes_by_sighup(daemon_with: Callable[..., Daemon], image: str) -> None:
    own = daemon_with(**{"crio.runtime.apparmor_profile": "unconfined"})
    before = run(own, image)

    def change(old: str, new: str, said: str) -> None:
        conf = own.place / "crio.conf"
        conf.write_text(conf.read_text().replace(f'apparmor_profile = "{old}"', f'apparmor_profile = "{new}"'))
        seen = len(own.log())
        os.kill(own.pid, signal.SIGHUP)
        wait_for(lambda: said in own.log()[seen:])

    with profile("criollo-test-default", "") as name:
        change("unconfined", name, "configuration reload completed")
        assert label(own, run(own, image)) == f"{name} (enforce)"
        assert label(own, before) == "unconfined"
        change(name, "criollo-none", "unable to reload configuration")
        assert label(own, run(own, image)) == f"{name} (enforce)"
        own.remove_everything()
