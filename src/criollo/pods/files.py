"""The files of a pod that its containers see: hostname, resolv.conf, hosts, and /dev/shm.

    <runroot>/pods/<id>/etc/            a tmpfs of a megabyte, one per pod
    <runroot>/pods/<id>/etc/hostname    one line
    <runroot>/pods/<id>/etc/resolv.conf
    <runroot>/pods/<id>/etc/containerenv    empty: by /run/.containerenv programs know that they are in a container
    <runroot>/pods/<id>/etc/hosts       only with host network: a copy of the node's; else kubelet or the image brings it
    <runroot>/pods/<id>/shm/            a tmpfs, 64 MiB unless the pod may ask otherwise; not with host IPC (/dev/shm)

Containers may write to these files, as they can on other runtimes (VPN clients rewrite resolv.conf), and each write to a
bind-mounted file lands in the filesystem that holds it. So that filling them cannot starve conmon and the runtime, which
share the run-state tmpfs, they live on a small tmpfs of their own: the container gets ENOSPC, nobody else does
(CVE-2020-8557). Mounting it takes 0.2 ms. A copy of the node's hosts, never the file itself, keeps a host-network pod
from writing to the node. Files are written once, before the first container, with O_EXCL and O_NOFOLLOW, and never
again, so that no link put in their place is followed (CVE-2025-9566).

Line files have one writer here: each field is refused if it holds a control character or what separates fields.
"""

import ipaddress
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from criollo.aio import threads
from criollo.errors import Invalid, explain
from criollo.linux import mount
from criollo.linux.files import read_limited, remove_tree
from criollo.model.ids import is_id, short
from criollo.model.pod import Dns, NamespaceMode, Pod

DEFAULT_SHM_BYTES: Final = 64 << 20
HOST_SHM: Final = Path("/dev/shm")  # noqa: S108  # the node's own, mounted for host-IPC pods

_COPIES: Final = {"resolv.conf": Path("/etc/resolv.conf"), "hosts": Path("/etc/hosts")}

_ROOM_BYTES: Final = 1 << 20
_COPY_LIMIT_BYTES: Final = 8 << 20
_MAX_DNS_ENTRIES: Final = 64
_WORD: Final = re.compile(r"[!-~]{1,255}")
_MOUNT_FLAGS: Final = mount.MS_NOSUID | mount.MS_NODEV | mount.MS_NOEXEC


def resolv_conf(dns: Dns) -> bytes:
    """The text of resolv.conf.

    Raises:
        Invalid: naming the field, e.g. a search domain with a newline.
    """
    lines = []
    if dns.searches:
        lines.append("search " + " ".join(_words("config.dns_config.searches", dns.searches)))
    lines += [f"nameserver {server}" for server in _servers(dns.servers)]
    if dns.options:
        lines.append("options " + " ".join(_words("config.dns_config.options", dns.options)))
    return "".join(line + "\n" for line in lines).encode("ascii")


def locate(pod: Pod, *, runroot: Path) -> dict[str, str]:
    """Name → path of the files that a pod has, whether they exist yet or not; a name that is absent: none of ours."""
    etc, options = _directory(runroot, pod) / "etc", pod.config.security.namespaces
    files = {
        "hostname": etc / "hostname",
        "resolv.conf": etc / "resolv.conf",
        "containerenv": etc / "containerenv",
        "shm": HOST_SHM if options.ipc is NamespaceMode.NODE else _directory(runroot, pod) / "shm",
    }
    if pod.host_network:
        files["hosts"] = etc / "hosts"
    return {name: str(path) for name, path in files.items()}


async def write(pod: Pod, *, runroot: Path, shm_bytes: int = DEFAULT_SHM_BYTES) -> dict[str, str]:
    """Make the files of a pod and the directory of its logs; returns name → path as `locate`.

    On an error the caller tears down (`remove`).

    Raises:
        Invalid: a field that cannot stand in such a file.
        Exhausted, HostFailed: the host refused.
    """
    dns = pod.config.dns
    hostname = f"{pod.hostname or short(pod.id)}\n".encode()
    contents: dict[str, bytes | None] = {"hostname": hostname, "resolv.conf": None, "containerenv": b""}
    if dns is not None and (dns.servers or dns.searches or dns.options):
        contents["resolv.conf"] = resolv_conf(dns)
    if pod.host_network:
        contents["hosts"] = None
    has_shm = pod.config.security.namespaces.ipc is not NamespaceMode.NODE
    with explain(f"make the files of pod {pod.id}"):
        await threads.mounts(_make, pod, _directory(runroot, pod), contents, shm_bytes=shm_bytes if has_shm else None)
    return locate(pod, runroot=runroot)


async def remove(pod: Pod, *, runroot: Path) -> None:
    """Unmount and delete, with all else below `<runroot>/pods/<id>`, and logs whose directory is ours; safe to repeat.

    Raises:
        HostFailed: the host refused.
    """
    with explain(f"remove the files of pod {pod.id}"):
        await threads.mounts(_remove, _directory(runroot, pod))
        if pod.log_directory:
            await threads.files(remove_tree, Path(pod.log_directory))


async def remove_logs(log_dir: str, pod_id: str) -> None:
    """Delete the logs of a pod whose record cannot be read, if they lie where ours do; without `log_dir` there are none.

    Raises:
        HostFailed: the host refused.
    """
    if log_dir and is_id(pod_id):
        with explain(f"remove the logs of pod {pod_id}"):
            await threads.files(remove_tree, Path(log_dir) / pod_id)


def _make(pod: Pod, directory: Path, contents: dict[str, bytes | None], *, shm_bytes: int | None) -> None:
    """Blocking part of `write`; None stands for a copy of the node's file of that name."""
    if pod.logs:
        os.makedirs(pod.logs, 0o755, exist_ok=True)
    whole = {name: _copy(_COPIES[name]) if content is None else content for name, content in contents.items()}
    owner = _owner(pod)
    mapped = f"uid={owner[0]},gid={owner[1]}" + (f',context="{pod.mount_label}"' if pod.mount_label else "")
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)  # also with a user namespace: the runtime opens sources of mounts as the host's root
    etc = directory / "etc"
    etc.mkdir(mode=0o755)
    room = _ROOM_BYTES + 2 * sum(map(len, whole.values()))
    mount.mount("tmpfs", etc, "tmpfs", _MOUNT_FLAGS, f"mode=755,size={room},nr_inodes=64,{mapped}")
    for name, content in whole.items():
        _write_once(etc / name, content, owner)
    if shm_bytes is not None:
        shm = directory / "shm"
        shm.mkdir(mode=0o755)
        mount.mount("shm", shm, "tmpfs", _MOUNT_FLAGS, f"mode=1777,size={shm_bytes},{mapped}")


def _owner(pod: Pod) -> tuple[int, int]:
    """The host's uid and gid of the pod's root."""
    user = pod.user_namespace
    return (0, 0) if user is None else user.root


def _write_once(path: Path, content: bytes, owner: tuple[int, int]) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with os.fdopen(fd, "wb", buffering=0) as file:
        os.fchmod(fd, 0o644)  # whatever the umask
        os.fchown(fd, *owner)
        file.write(content)


def _copy(path: Path) -> bytes:
    """A file of the node, empty when there is none."""
    try:
        return read_limited(path, _COPY_LIMIT_BYTES)
    except FileNotFoundError:
        return b""


def _remove(directory: Path) -> None:
    for name in ("shm", "etc"):
        while mount.unmount(directory / name, detach=True):
            pass
    remove_tree(directory)


def _directory(runroot: Path, pod: Pod) -> Path:
    return runroot / "pods" / pod.id


def _words(field: str, words: Sequence[str]) -> Sequence[str]:
    _check_count(field, words)
    for at, word in enumerate(words):
        if not _WORD.fullmatch(word) or word[0] in "#;":
            raise Invalid(f"{field}[{at}]", word, "one word of at most 255 visible ASCII characters")
    return words


def _servers(servers: Sequence[str]) -> Sequence[str]:
    _check_count("config.dns_config.servers", servers)
    for at, server in enumerate(_words("config.dns_config.servers", servers)):
        try:
            ipaddress.ip_address(server)
        except ValueError:
            raise Invalid(f"config.dns_config.servers[{at}]", server, "an IP address") from None
    return servers


def _check_count(field: str, entries: Sequence[str]) -> None:
    if len(entries) > _MAX_DNS_ENTRIES:
        raise Invalid(field, f"{len(entries)} entries", f"at most {_MAX_DNS_ENTRIES}")
