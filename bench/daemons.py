"""The daemons and the registry: their configuration, alike where it matters, and their processes.

Alike: the file system below both roots, a tmpfs for both run states, crun, cgroups by path, and the same chain of CNI
plugins (bridge with masquerade and host-local, then portmap) on a bridge and a subnet each.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from place import NETWORK, Place

LIMIT_S = 60
OURS, THEIRS = "ours", "containerd"
CRIO = Path(sys.executable).parent / "crio"
PLUGINS = "/usr/lib/cni"


class Running(NamedTuple):
    """A daemon that answers."""

    name: str
    socket: Path
    pid: int
    cgroup: Path


def write_network(place: Place, name: str) -> Path:
    """The CNI configuration of a daemon's pods; returns its directory."""
    directory = place.run / name / "net.d"
    directory.mkdir()
    subnet = f"10.{231 + place.names.index(name)}.0.0/16"
    bridge = {
        "type": "bridge",
        "bridge": place.bridge(name),
        "isGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "dataDir": str(place.run / name / "ipam"),
            "ranges": [[{"subnet": subnet}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    plugins = [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}]
    document = {"cniVersion": "1.0.0", "name": f"{NETWORK}{name}", "plugins": plugins}
    (directory / "10-bench.conflist").write_text(json.dumps(document, indent=1))
    return directory


@contextlib.contextmanager
def ours(place: Place, registry: str) -> Iterator[Running]:
    """Our daemon, as it is in this tree."""
    run = place.run / OURS
    network = write_network(place, OURS)
    write_trust(run, registry)
    conf = write_crio_conf(run, network, {"crio": {"root": str(place.disk / OURS), "runroot": str(run)}})
    argv = [str(CRIO), "-c", str(conf), "-d", ""]
    with in_cgroup(place, OURS, argv, trusting(run)) as process:
        yield answering(place, OURS, run / "crio.sock", process)


def write_crio_conf(run: Path, network: Path, more: Mapping[str, Mapping[str, object]]) -> Path:
    """What our daemon and CRI-O are told alike, below a run directory, and `more` by its tables; returns the file."""
    alike: dict[str, dict[str, object]] = {
        "crio": {"log_dir": f"{run}/logs"},
        "crio.api": {"listen": f"{run}/crio.sock"},
        "crio.runtime": {
            "cgroup_manager": "cgroupfs",
            "namespaces_dir": str(run),
            "container_exits_dir": f"{run}/exits",
            "container_attach_socket_dir": f"{run}/attach",
        },
        "crio.runtime.runtimes.crun": {"runtime_root": f"{run}/crun"},
        "crio.image": {"signature_policy": f"{run}/policy.json"},
        "crio.network": {"network_dir": str(network), "plugin_dirs": [PLUGINS]},
    }
    lines = []
    for table in {**alike, **more}:
        values = {**alike.get(table, {}), **more.get(table, {})}
        lines += [f"[{table}]", *(f"{name} = {json.dumps(value)}" for name, value in values.items())]
    path = run / "crio.conf"
    path.write_text("\n".join(lines) + "\n")  # a string of JSON is one of TOML
    return path


def write_trust(run: Path, registry: str) -> None:
    """Files below a run directory that let a daemon pull from the registry: plain HTTP, any signature or none."""
    (run / "registries.conf").write_text(f'[[registry]]\nlocation = "{registry}"\ninsecure = true\n')
    (run / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')


def trusting(run: Path) -> dict[str, str]:
    """The environment of a daemon that reads these files and not the machine's."""
    conf = str(run / "registries.conf")
    return {**os.environ, "CONTAINERS_REGISTRIES_CONF": conf, "CONTAINERS_REGISTRIES_CONF_DIR": f"{conf}.d"}


@contextlib.contextmanager
def theirs(place: Place, registry: str) -> Iterator[Running]:
    """Debian's containerd."""
    with containerd(place, registry, THEIRS, argv=["containerd"], environment=dict(os.environ)) as running:
        yield running


@contextlib.contextmanager
def containerd(
    place: Place, registry: str, name: str, *, argv: list[str], environment: dict[str, str], settings: str = ""
) -> Iterator[Running]:
    """A containerd with crun as the program of runc.v2; `settings` are more lines of its configuration."""
    run = place.run / name
    network = write_network(place, name)
    hosts = run / "certs.d" / registry
    hosts.mkdir(parents=True)
    (hosts / "hosts.toml").write_text(
        f'server = "http://{registry}"\n[host."http://{registry}"]\ncapabilities = ["pull", "resolve"]\n'
    )
    kinds = ("snapshotter.v1.btrfs", "snapshotter.v1.zfs", "snapshotter.v1.aufs", "snapshotter.v1.devmapper", "internal.v1.opt")
    disabled = [f"io.containerd.{kind}" for kind in (*kinds, "tracing.processor.v1.otlp", "internal.v1.tracing", "nri.v1.nri")]
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    (run / "config.toml").write_text(
        f"""version = 2
root = "{place.disk / name}"
state = "{run}/state"
oom_score = 0
disabled_plugins = {json.dumps(disabled)}
[grpc]
address = "{run}/containerd.sock"
[ttrpc]
address = "{run}/containerd.sock.ttrpc"
[{cri}]
sandbox_image = "{registry}/pause:gzip"
stream_server_address = "127.0.0.1"
stream_server_port = "0"
disable_tcp_service = true
enable_selinux = false
disable_apparmor = true
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
tolerate_missing_hugetlb_controller = true
disable_hugetlb_controller = true
[{cri}.containerd]
snapshotter = "overlayfs"
default_runtime_name = "crun"
[{cri}.containerd.runtimes.crun]
runtime_type = "io.containerd.runc.v2"
[{cri}.containerd.runtimes.crun.options]
BinaryName = "{shutil.which("crun")}"
SystemdCgroup = false
[{cri}.cni]
bin_dir = "{PLUGINS}"
conf_dir = "{network}"
max_conf_num = 1
[{cri}.registry]
config_path = "{run}/certs.d"
{settings}"""
    )
    with in_cgroup(place, name, [*argv, "--config", str(run / "config.toml")], environment) as process:
        yield answering(place, name, run / "containerd.sock", process)


@contextlib.contextmanager
def in_cgroup(place: Place, name: str, argv: list[str], environment: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """A process in a cgroup of its own, in a session of its own so that Ctrl-C reaches only us."""
    with open(place.logs / f"{name}.log", "wb") as log:
        command = [*place.entering(name), *argv]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )
    try:
        yield process
    finally:
        _end(process)


def answering(place: Place, name: str, path: Path, process: "subprocess.Popen[bytes]") -> Running:
    wait_for(lambda: process.poll() is None and connects(path), f"{name} does not answer; see {place.logs}/{name}.log")
    return Running(name, path, process.pid, place.accounting(name))


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(LIMIT_S / 3)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def registry(place: Place) -> Iterator[str]:
    """Debian's docker-registry on a free loopback port; gives host:port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    configuration = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(place.registry)}},
        "http": {"addr": host, "secret": "bench"},
    }
    path = place.run / "registry.json"
    path.write_text(json.dumps(configuration))  # JSON is YAML
    with open(place.logs / "registry.log", "wb") as log:
        server = subprocess.Popen(
            [*place.entering("registry"), "docker-registry", "serve", str(path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_for(lambda: server.poll() is None and status(f"http://{host}/v2/") == 200, f"no registry; see {place.logs}")
        yield host
    finally:
        _end(server)


def status(url: str, accept: str = "*/*") -> int:
    """What an URL answers to HEAD; 0 for nothing."""
    request = urllib.request.Request(url, method="HEAD", headers={"Accept": accept})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def connects(path: Path) -> bool:
    """Whether somebody listens on a unix socket."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


def wait_for(condition, otherwise: str) -> None:  # type: ignore[no-untyped-def]
    """Wait until a condition is true.

    Raises:
        SystemExit: it has not become true within a minute.
    """
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"bench: {otherwise}")
        time.sleep(0.05)
