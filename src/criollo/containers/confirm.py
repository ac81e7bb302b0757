"""Whether a process that was started is confined as its spec says.

A runtime that is tricked into writing the label to something else than /proc (an image or a volume that puts a directory there)
leaves the process unconfined and says nothing (CVE-2019-16884, CVE-2023-28642). The kernel's word is read after the start; a
process that is still not confined when ten seconds have passed is killed. Only for our own AppArmor profile, which nobody can
leave, and for labels of SELinux: a profile of the node's own may let a process go.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

from criollo.containers.context import Containers
from criollo.containers.watch import watched
from criollo.errors import CriolloError, Exhausted, refuse_scarce
from criollo.linux import procfs
from criollo.linux.selinux import parse_label, same
from criollo.model.container import Container
from criollo.security.apparmor_profile import NAME
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

LIMIT_S: Final = 10.0

_FIRST_WAIT_S: Final = 0.01
_LONGEST_WAIT_S: Final = 1.0


async def confirm(
    containers: Containers,
    container: Container,
    *,
    read: Callable[[int], str] = lambda pid: label_of(pid),
    limit_s: float = LIMIT_S,
) -> None:
    """Return when the first process has its label or is gone; kill the container when neither comes."""
    is_right = _expected(containers, container)
    if is_right is None:
        return None
    loop = asyncio.get_running_loop()
    deadline, wait_s = loop.time() + limit_s, _FIRST_WAIT_S
    while True:
        try:
            if not procfs.is_alive(container.pid, container.pid_started) or is_right(label := read(container.pid)):
                return None
        except Exhausted:  # who cannot look knows nothing yet
            deadline = loop.time() + limit_s
        else:
            if loop.time() > deadline:
                return await _kill(containers, container, label)
        await asyncio.sleep(wait_s)
        wait_s = min(2 * wait_s, _LONGEST_WAIT_S)


def label_of(pid: int) -> str:
    """What the kernel says of a process; empty for one that is gone.

    Raises:
        Exhausted: no descriptor is left to look with.
    """
    for name in ("apparmor/current", "current"):
        try:
            return Path(f"/proc/{pid}/attr/{name}").read_bytes().rstrip(b"\0\n").decode("utf-8", "replace")
        except OSError as error:
            refuse_scarce(error, f"cannot see how process {pid} is confined")
    return ""


def has_profile(label: str, profile: str) -> bool:
    """Whether a label of AppArmor, `NAME (MODE)` or several joined by `//&`, has a profile in it."""
    return profile in label.rpartition(" (")[0].split("//&")


async def _kill(containers: Containers, container: Container, label: str) -> None:
    log.error("container is not confined as it should be; killing it", container=container.id, label=label)
    try:
        await containers.runtime_of(container.handler).kill_all(watched(containers, container))
    except CriolloError as error:
        log.error("unconfined container cannot be killed", container=container.id, error=error)


def _expected(containers: Containers, container: Container) -> Callable[[str], bool] | None:
    if wanted := container.process_label:
        level = parse_label(wanted).level
        # A policy may move a process to another type as soon as it executes something; the level stays.
        return lambda label: same(label, wanted) or bool(level and label.endswith(f":{level}"))
    security = container.config.security
    try:
        if containers.apparmor is None or containers.apparmor.choose(security.apparmor, privileged=security.privileged) != NAME:
            return None
    except CriolloError:  # it was unloaded meanwhile
        return None
    return lambda label: has_profile(label, NAME)
