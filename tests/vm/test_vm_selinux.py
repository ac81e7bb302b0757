"""SELinux labels as a kernel shows them: `machine test --lsm selinux`. The guest is permissive, so policy refuses nothing.

Debian's policy names types for containers that it has not; those for virtual machines stand in for them.
"""

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from support.cri import pb
from support.daemon import Daemon

CONTEXTS = Path("/usr/share/containers/selinux/contexts")
LEVEL = r"s0:c[0-9]+,c[0-9]+"
TRY_SKIP = "try-skip-volume-selinux-label.crio.io"
NODE = pb.NODE

pytestmark = pytest.mark.skipif(not Path("/sys/fs/selinux/enforce").exists(), reason="the kernel has no SELinux switched on")


@pytest.fixture(scope="module")
def policy() -> Iterator[None]:
    """Types for containers that the loaded policy has."""
    CONTEXTS.parent.mkdir(parents=True, exist_ok=True)
    CONTEXTS.write_text('process = "system_u:system_r:svirt_t:s0"\nfile = "system_u:object_r:svirt_image_t:s0"\n')
    yield
    CONTEXTS.unlink()


@pytest.fixture(scope="module")
def running(policy: None, daemon_with: Callable[..., Daemon]) -> Daemon:
    return daemon_with(**{"crio.runtime.runtimes.crun.allowed_annotations": [TRY_SKIP]})


def label(path: str | Path) -> str:
    return os.getxattr(path, "security.selinux", follow_symlinks=False).rstrip(b"\0").decode()


def process_label(running: Daemon, container: str) -> str:
    return Path(f"/proc/{running.info(container)['pid']}/attr/current").read_text().rstrip("\0\n")


def level_of(text: str) -> str:
    return text.split(":", 3)[3]


def with_options(config: object, **options: str) -> object:
    for name, value in options.items():
        setattr(config.linux.security_context.selinux_options, name, value)  # type: ignore[attr-defined]
    return config


def run(running: Daemon, image: str, pod: str = "", *mounts: object) -> str:
    config = running.container_config(image, "sleep", "10000", name=f"c{len(running.cri.call('ListContainers').containers)}")
    config.mounts.extend(mounts)
    return running.run_container(pod or running.run_pod(), config)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    (tmp_path / "volume/directory").mkdir(parents=True)
    (tmp_path / "volume/directory/file").touch()
    (tmp_path / "volume/link").symlink_to(tmp_path / "outside")
    (tmp_path / "outside").touch()
    return tmp_path / "volume"


def test_processes_and_files_of_a_pod_have_a_level_of_their_own(running: Daemon, image: str) -> None:
    pod = running.run_pod()
    one, two, stranger = run(running, image, pod), run(running, image, pod), run(running, image)
    labels = [process_label(running, each) for each in (one, two, stranger)]
    assert all(re.fullmatch(f"system_u:system_r:svirt_t:{LEVEL}", each) for each in labels)
    assert labels[0] == labels[1] != labels[2]
    assert running.output(one, "cat", "/proc/self/attr/current").rstrip("\0\n") == labels[0]  # an exec
    running.output(one, "sh", "-c", "touch /made /dev/shm/made")
    root = f"/proc/{running.info(one)['pid']}/root"
    for path in ("/.", "/bin", "/made", "/etc/hostname", "/etc/resolv.conf", "/dev/shm", "/dev/shm/made"):
        assert label(root + path) == f"system_u:object_r:svirt_image_t:{level_of(labels[0])}", path


def test_levels_are_known_after_a_restart_and_containers_keep_theirs(running: Daemon, image: str) -> None:
    container = run(running, image)
    before = process_label(running, container)
    running.restart()
    assert running.output(container, "cat", "/proc/self/attr/current").rstrip("\0\n") == before
    assert level_of(process_label(running, run(running, image))) != level_of(before)


def test_a_pod_may_ask_for_its_label(running: Daemon, image: str) -> None:
    pod = running.run_pod(with_options(running.pod_config(), level="s0:c200,c100"))
    assert level_of(process_label(running, run(running, image, pod))) == "s0:c100,c200"
    config = with_options(running.container_config(image, "sleep", "10000"), type="virtd_t", level="s0")
    assert process_label(running, running.run_container(pod, config)) == "system_u:system_r:virtd_t:s0"


@pytest.mark.parametrize("options", [{"type": "no_such_type_t"}, {"level": "s0:c5000"}, {"user": 'x"y'}])
def test_a_label_that_the_policy_has_not_is_refused(running: Daemon, image: str, options: dict[str, str]) -> None:
    pod = running.run_pod()
    with pytest.raises(grpc.RpcError) as caught:
        running.create(pod, with_options(running.container_config(image, "true"), **options))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, caught.value.details()
    assert "selinux_options" in caught.value.details()
    with pytest.raises(grpc.RpcError):
        running.run_pod(with_options(running.pod_config(), **options))


@pytest.mark.parametrize("how", ["privileged", "pid", "ipc", "network"])
def test_who_shares_much_with_the_host_is_not_labelled(running: Daemon, image: str, how: str) -> None:
    pod, config = running.pod_config(), running.container_config(image, "sleep", "10000")
    for security in (pod.linux.security_context, config.linux.security_context):
        if how == "privileged":
            security.privileged = True
        else:
            setattr(security.namespace_options, how, NODE)
    container = running.run_container(running.run_pod(pod), config)
    assert "svirt" not in process_label(running, container)
    made = label(f"/proc/{running.info(container)['pid']}/root/bin")
    assert ("svirt_image_t" in made) == (how in ("privileged", "network"))


def test_a_volume_is_relabelled_only_where_it_is_asked_for(running: Daemon, image: str, volume: Path) -> None:
    before = label(volume)
    run(running, image, "", pb.Mount(container_path="/v", host_path=str(volume)))
    assert label(volume) == before
    container = run(running, image, "", pb.Mount(container_path="/v", host_path=str(volume), selinux_relabel=True))
    wanted = f"system_u:object_r:svirt_image_t:{level_of(process_label(running, container))}"
    for path in ("", "directory", "directory/file", "link"):
        assert label(volume / path) == wanted, path
    assert label(volume.parent / "outside") != wanted


def test_a_volume_that_is_right_already_may_be_skipped(running: Daemon, image: str, volume: Path) -> None:
    config = with_options(running.pod_config(annotations={TRY_SKIP: "true"}), level="s0:c200,c100")
    pod = running.run_pod(config)
    asked = pb.Mount(container_path="/v", host_path=str(volume), selinux_relabel=True)
    run(running, image, pod, asked)
    file = volume / "directory/file"
    assert level_of(label(file)) == "s0:c100,c200"
    subprocess.run(["chcon", "-l", "s0", str(file)], check=True)
    run(running, image, pod, asked)
    assert level_of(label(file)) == "s0"
    run(running, image, running.run_pod(with_options(running.pod_config(), level="s0:c100,c200")), asked)  # not annotated
    assert level_of(label(file)) == "s0:c100,c200"


def test_what_the_node_lives_by_is_not_relabelled(running: Daemon, image: str) -> None:
    before = label("/etc")
    config = running.container_config(image, "true")
    config.mounts.append(pb.Mount(container_path="/v", host_path="/etc", selinux_relabel=True))
    with pytest.raises(grpc.RpcError) as caught:
        running.create(running.run_pod(), config)
    assert "cannot relabel /etc" in caught.value.details()
    assert label("/etc") == before


def test_an_image_volume_has_the_label_too(running: Daemon, image: str) -> None:
    config = running.container_config(image, "sleep", "10000")
    config.mounts.append(pb.Mount(container_path="/v", image=pb.ImageSpec(image=image), readonly=True))
    container = running.run_container(running.run_pod(), config)
    wanted = f"system_u:object_r:svirt_image_t:{level_of(process_label(running, container))}"
    assert label(f"/proc/{running.info(container)['pid']}/root/v/bin") == wanted


def test_host_network_is_labelled_where_that_is_configured(
    policy: None, daemon_with: Callable[..., Daemon], image: str
) -> None:
    own = daemon_with(**{"crio.runtime.hostnetwork_disable_selinux": False})
    pod, config = own.pod_config(), own.container_config(image, "sleep", "10000")
    for security in (pod.linux.security_context, config.linux.security_context):
        security.namespace_options.network = NODE
    assert ":svirt_t:" in process_label(own, own.run_container(own.run_pod(pod), config))


def test_selinux_that_is_off_labels_nothing(policy: None, daemon_with: Callable[..., Daemon], image: str) -> None:
    own = daemon_with(**{"crio.runtime.selinux": False})
    assert "svirt" not in process_label(own, run(own, image))


def test_a_policy_without_containers_says_so_at_start(policy: None, daemon_with: Callable[..., Daemon]) -> None:
    kept = CONTEXTS.read_text()
    CONTEXTS.unlink()
    try:
        with pytest.raises(AssertionError, match=r"does not know system_u:system_r:container_t:s0.*selinux = false"):
            daemon_with()
    finally:
        CONTEXTS.write_text(kept)
