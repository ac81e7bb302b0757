"""SELinux, enforced by a kernel: `machine test --enforce`. What a container of one pod cannot do to another's files.

The types are of the guest's policy module (`machine/confined.cil`); the categories are ours.
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.artifacts import make_artifact, push_artifact
from support.cri import pb
from support.daemon import Daemon, running_daemon
from support.registry import Registry

ENFORCE = Path("/sys/fs/selinux/enforce")
CONTEXTS = Path("/usr/share/containers/selinux/contexts")
PROCESS, FILE = "guest_container_t", "guest_content_t"

pytestmark = pytest.mark.skipif(
    not ENFORCE.exists() or ENFORCE.read_text() != "1", reason="the kernel enforces no SELinux policy: machine test --enforce"
)
handlers = pytest.mark.parametrize("handler", ["crun", "runc"])


@pytest.fixture(scope="module")
def running(daemon_with: Callable[..., Daemon], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    CONTEXTS.parent.mkdir(parents=True, exist_ok=True)
    CONTEXTS.write_text(f'process = "system_u:system_r:{PROCESS}:s0"\nfile = "system_u:object_r:{FILE}:s0"\n')
    root = tmp_path_factory.mktemp("root")
    subprocess.run(["chcon", "-t", FILE, root], check=True)  # what an image brought is mapped under its own label
    yield daemon_with(**{"crio.root": str(root)})
    CONTEXTS.unlink()


@pytest.fixture(autouse=True)
def _clean(running: Daemon, no_leaks: Callable[[Daemon], None]) -> None:
    no_leaks(running)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    place = tmp_path / "volume"
    place.mkdir(mode=0o777)
    (place / "secret").write_text("secret\n")
    (place / "secret").chmod(0o666)
    return place


def run(running: Daemon, image: str, volume: Path, *, handler: str = "", relabel: bool = False, level: str = "") -> str:
    """A container of a new pod that mounts a volume, with all capabilities."""
    pod, config = running.pod_config(), running.container_config(image, "sleep", "10000")
    pod.linux.security_context.selinux_options.level = level
    config.linux.security_context.capabilities.add_capabilities.append("ALL")
    config.mounts.append(pb.Mount(container_path="/v", host_path=str(volume), selinux_relabel=relabel))
    return running.run_container(running.run_pod(pod, handler=handler), config)


def label(running: Daemon, container: str) -> str:
    return Path(f"/proc/{running.info(container)['pid']}/attr/current").read_text().rstrip("\0\n")


def refused(running: Daemon, container: str, *command: str) -> None:
    answer = running.exec(container, *command)
    assert answer.exit_code != 0, answer
    assert b"ermission denied" in answer.stderr, answer


def refusals(inode: int) -> str:
    """What the kernel has logged of denials for a file."""
    log = subprocess.run(["dmesg"], capture_output=True, text=True, check=True).stdout
    return "\n".join(line for line in log.splitlines() if "avc:  denied" in line and f"ino={inode} " in line)


@handlers
def test_a_container_works_and_is_confined(running: Daemon, image: str, volume: Path, handler: str) -> None:
    container = run(running, image, volume, handler=handler, relabel=True)
    assert label(running, container).startswith(f"system_u:system_r:{PROCESS}:s0:c")
    assert running.output(container, "cat", "/proc/self/attr/current").rstrip("\0\n") == label(running, container)  # an exec
    assert running.output(container, "cat", "/v/secret") == "secret\n"
    running.output(container, "sh", "-c", "echo x > /v/new; echo x > /made; mkdir /tmp/d; echo x > /dev/shm/x; rm /made; ps")


@handlers
def test_another_pods_volume_is_refused_to_root_with_all_capabilities(
    running: Daemon, image: str, volume: Path, handler: str
) -> None:
    owner = run(running, image, volume, handler=handler, relabel=True)
    thief = run(running, image, volume, handler=handler)
    assert label(running, owner) != label(running, thief)
    refused(running, thief, "cat", "/v/secret")
    refused(running, thief, "sh", "-c", "echo x > /v/secret")
    refused(running, thief, "ls", "/v")
    assert running.output(owner, "cat", "/v/secret") == "secret\n"
    assert label(running, thief).split(":", 3)[3] in refusals(volume.stat().st_ino)


def test_who_is_given_the_same_categories_may_read(running: Daemon, image: str, volume: Path) -> None:
    """The opposite of the test before: what refuses is the level."""
    run(running, image, volume, relabel=True, level="s0:c100,c200")
    friend = run(running, image, volume, level="s0:c100,c200")
    stranger = run(running, image, volume, level="s0:c100,c201")
    assert running.output(friend, "cat", "/v/secret") == "secret\n"
    refused(running, stranger, "cat", "/v/secret")


def test_a_directory_of_the_node_is_refused_unless_it_is_relabelled(running: Daemon, image: str, volume: Path) -> None:
    container = run(running, image, volume)
    refused(running, container, "cat", "/v/secret")
    relabelled = run(running, image, volume, relabel=True)
    assert running.output(relabelled, "cat", "/v/secret") == "secret\n"


def test_a_privileged_container_may_read_everything(running: Daemon, image: str, volume: Path) -> None:
    run(running, image, volume, relabel=True)
    pod, config = running.pod_config(), running.container_config(image, "sleep", "10000")
    pod.linux.security_context.privileged = config.linux.security_context.privileged = True
    config.mounts.append(pb.Mount(container_path="/v", host_path=str(volume)))
    container = running.run_container(running.run_pod(pod), config)
    assert PROCESS not in label(running, container)
    assert running.output(container, "cat", "/v/secret") == "secret\n"


def test_after_a_restart_containers_are_confined_as_before(running: Daemon, image: str, volume: Path) -> None:
    owner, thief = run(running, image, volume, relabel=True), run(running, image, volume)
    running.restart()
    assert running.output(owner, "cat", "/v/secret") == "secret\n"
    refused(running, thief, "cat", "/v/secret")


def test_a_file_of_an_artifact_has_the_label_of_who_mounts_it(running: Daemon, image: str, registry: Registry) -> None:
    push_artifact(registry, "team/model", "v1", make_artifact({"weights": b"weights", "notes": b"notes"}))
    reference = registry.reference("team/model", "v1")
    running.pull(reference)
    files: dict[str, list[str]] = {}
    for _ in range(2):
        config = running.container_config(image, "sleep", "10000")
        config.mounts.add(container_path="/m", image=pb.ImageSpec(image=reference))
        container = running.run_container(running.run_pod(), config)
        assert running.output(container, "cat", "/m/weights", "/m/notes") == "weightsnotes"
        level = label(running, container).split(":", 3)[3]
        place = Path(f"/proc/{running.info(container)['pid']}/root/m")
        files[container] = [
            os.getxattr(place / name, "security.selinux").decode().rstrip("\0") for name in ("weights", "notes")
        ]
        assert files[container] == [f"system_u:object_r:{FILE}:{level}"] * 2
    one, other = files.values()
    assert one != other


def test_a_root_that_containers_cannot_run_from_is_told_at_the_start(
    running: Daemon, tmp_path_factory: pytest.TempPathFactory
) -> None:
    said = "containers cannot run what is in the store"
    assert said not in running.log()
    root = tmp_path_factory.mktemp("unreadable")
    with running_daemon(tmp_path_factory.mktemp("told"), settings={"crio.root": str(root)}) as other:
        assert said in other.log()
        assert f"semanage fcontext -a -e /var/lib/containers/storage {root}" in other.log()
