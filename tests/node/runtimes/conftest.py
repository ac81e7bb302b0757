"""A node directory on a tmpfs per test, and a leak check around it."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from handmade import PARENT, Node
from support import leaks

from criollo.aio import threads
from criollo.linux import procfs
from criollo.runtimes.oci import OciRuntime


def _living(root: Path) -> dict[int, str]:
    """Monitors and runtimes of a test: they name its directory."""
    found = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path(f"/proc/{name}/cmdline").read_bytes()
        except OSError:
            continue
        if os.fsencode(root) in command and (started := procfs.start_time(int(name))) and procfs.is_alive(int(name), started):
            found[int(name)] = command.replace(b"\0", b" ").decode(errors="replace")
    return found


def _zombies_of_ours() -> list[str]:
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return [pid for pid in children if "State:\tZ" in Path(f"/proc/{pid}/status").read_text()]


@pytest.fixture(scope="session", autouse=True)
def hugetlb_hierarchy() -> None:
    """crun of Debian 12 wants the hugetlb controller mounted on a node with version 1."""
    place = Path("/sys/fs/cgroup/hugetlb")
    if not Path("/sys/fs/cgroup/cgroup.controllers").exists() and not os.path.ismount(place):
        place.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "cgroup", "-o", "hugetlb", "cgroup", str(place)], check=True)


@pytest.fixture
def node() -> Iterator[Node]:
    """Fails the test that leaves a process, a descriptor, a cgroup or a file of a container behind."""
    threads.close()
    root = Path(tempfile.mkdtemp(prefix="criollo-node-", dir="/dev/shm"))
    descriptors = leaks.descriptors()
    made = Node(root)
    yield made
    made.close()
    threads.close()
    inside = made.hierarchies.processes(PARENT)
    made.hierarchies.kill(PARENT)  # so that one test that leaks does not fail the others
    made.hierarchies.remove(PARENT)
    deadline = time.monotonic() + 30
    while _living(root) and time.monotonic() < deadline:
        time.sleep(0.01)
    left = {
        "processes": _living(root),
        "in containers": inside,
        "zombies": _zombies_of_ours(),
        "cgroups": made.hierarchies.exists(PARENT),
        "descriptors": leaks.new_descriptors(descriptors),
        "files": [str(path) for name in ("exits", "attach", "state") for path in (root / name).iterdir()],
        "execs": [str(path) for path in root.glob("*/exec-*")],
    }
    shutil.rmtree(root)
    assert not any(left.values()), left


@pytest.fixture(params=["crun", "runc"])
def runtime(request: pytest.FixtureRequest, node: Node) -> OciRuntime:
    return node.runtime(request.param)
