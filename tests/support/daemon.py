"""The real daemon in a place of its own: root on disk, run state on a tmpfs, a network, a socket."""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from support import subnets
from support.cri import Cri, pb

CRIO = Path(sys.executable).parent / "crio"
FAULTY = Path(__file__).with_name("faulty_daemon.py")
CNI_BIN = "/usr/lib/cni"
CGROUPS = os.environ.get("CRIOLLO_TEST_CGROUPS") or "cgroupfs"  # the driver, where a test does not choose


class Daemon:
    """A configured daemon that can be started, stopped and killed again and again on the same state."""

    def __init__(
        self,
        place: Path,
        *,
        settings: Mapping[str, Any] | None = None,
        registries: str = "",
        bridge_plugin: str = "bridge",
    ) -> None:
        self.bridge_plugin = bridge_plugin  # or one of the test's own that ends in it
        self.place, self.root, self.runroot = place, place / "root", place / "run"
        self.socket = str(self.runroot / "crio.sock")
        self.bridge = f"crt{uuid.uuid4().hex[:8]}"
        self.net = subnets.free()  # what its pods' addresses begin with
        self.logs = place / "logs"
        self.network_dir = place / "net.d"
        self.log_file = place / "daemon.log"
        self.tuned: Mapping[str, float] = {}  # knobs of support.faulty_daemon, for every start
        self.points: Sequence[str] = ()  # likewise, where support.faults may strike
        self.process: subprocess.Popen[bytes] | None = None
        self.client: Cri | None = None
        for directory in (self.root, self.runroot, self.logs, self.network_dir):
            directory.mkdir()
        self.write_network()
        (place / "registries.conf").write_text(registries)
        (place / "policy.json").write_text('{"default":[{"type":"insecureAcceptAnything"}]}')
        (place / "crio.conf").write_text(self._configuration(settings or {}))

    @property
    def registries(self) -> dict[str, str]:
        """What leads to its files of registries, and to none of the machine."""
        conf = self.place / "registries.conf"
        return {"CONTAINERS_REGISTRIES_CONF": str(conf), "CONTAINERS_REGISTRIES_CONF_DIR": f"{conf}.d"}

    def write_network(self) -> None:
        bridge = {
            "type": self.bridge_plugin,
            "bridge": self.bridge,
            "isGateway": True,
            "ipMasq": True,
            "ipam": {
                "type": "host-local",
                "dataDir": str(self.place / "ipam"),
                "ranges": [[{"subnet": f"{self.net}0/24"}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }
        plugins = [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}]
        document = {"cniVersion": "1.0.0", "name": "test", "plugins": plugins}
        (self.network_dir / "10-test.conflist").write_text(json.dumps(document))

    def _configuration(self, settings: Mapping[str, Any]) -> str:
        keys: dict[str, dict[str, Any]] = {
            "crio": {"root": str(self.root), "runroot": str(self.runroot), "log_dir": str(self.logs)},
            "crio.api": {"listen": self.socket},
            "crio.runtime": {
                "log_level": "debug",
                "cgroup_manager": CGROUPS,
                "namespaces_dir": str(self.runroot),
                "container_exits_dir": str(self.runroot / "exits"),
                "container_attach_socket_dir": str(self.runroot / "attach"),
            },
            "crio.runtime.runtimes.crun": {"runtime_root": str(self.runroot / "crun")},
            "crio.runtime.runtimes.runc": {"runtime_root": str(self.runroot / "runc")},
            "crio.image": {"signature_policy": str(self.place / "policy.json")},
            "crio.network": {"network_dir": str(self.network_dir), "plugin_dirs": [CNI_BIN]},
        }
        for name, value in settings.items():
            table, _, key = name.rpartition(".")
            keys.setdefault(table, {})[key] = value
        lines = []
        for table, values in keys.items():
            lines.append(f"[{table}]")
            lines += [f"{key} = {msgspec.json.encode(value).decode()}" for key, value in values.items()]
        return "\n".join(lines) + "\n"

    def start(self, *, wait: bool = True, fault: str = "") -> "Daemon":
        """Start and wait until it answers; `fault` as in support.faulty_daemon."""
        assert self.process is None
        words = [*([fault] if fault else []), *self.points, *(f"{name}={value}" for name, value in self.tuned.items())]
        program = [sys.executable, str(FAULTY), *words, "--"] if words else [str(CRIO)]
        environment = {**os.environ, **self.registries, "CRIOLLO_TEST_FAULT": str(self.place / "fault")}
        with open(self.log_file, "ab") as out:
            self.process = subprocess.Popen(
                [*program, "-c", str(self.place / "crio.conf"), "-d", ""],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment, start_new_session=True,
            )  # fmt: skip
        if wait:
            self._wait_ready()
        return self

    def _wait_ready(self, limit_s: float = 240) -> None:
        assert self.process is not None
        deadline = time.monotonic() + limit_s
        while not os.path.exists(self.socket):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"daemon did not start:\n{self.log()[-4000:]}")
            time.sleep(0.02)

    @property
    def cri(self) -> Cri:
        if self.client is None:
            self.client = Cri(self.socket)
        return self.client

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End the daemon by a signal; returns its status."""
        if self.client is not None:
            self.client.close()
            self.client = None
        if self.process is None:
            return 0
        self.process.send_signal(number)  # not to another that has the pid of one that was found dead
        status = self.process.wait(120)
        self.process = None
        if number == signal.SIGKILL:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.socket)
        return status

    def wait_death(self, limit_s: float = 60) -> None:
        """Wait until a fault has ended the daemon."""
        assert self.process is not None
        assert self.process.wait(limit_s) == -signal.SIGKILL
        self.process = None
        if self.client is not None:
            self.client.close()
            self.client = None
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.socket)

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def restart(self, number: int = signal.SIGTERM) -> "Daemon":
        self.stop(number)
        return self.start()

    def log(self) -> str:
        return self.log_file.read_text("utf-8", "replace") if self.log_file.exists() else ""

    # What tests do all the time.

    def pull(self, reference: str) -> str:
        request = pb.PullImageRequest(image=pb.ImageSpec(image=reference))
        return str(self.cri.call("PullImage", request, timeout_s=120).image_ref)

    def pod_config(self, name: str = "", **fields: Any) -> Any:
        uid = str(uuid.uuid4())
        name = name or f"pod-{uid[:8]}"
        config = pb.PodSandboxConfig(
            metadata=pb.PodSandboxMetadata(name=name, uid=uid, namespace="test", attempt=0),
            log_directory=str(self.logs / uid),
            labels={"app": name},
        )
        config.linux.security_context.namespace_options.pid = pb.CONTAINER
        for key, value in fields.items():
            if hasattr(value, "DESCRIPTOR"):
                getattr(config, key).MergeFrom(value)
            elif isinstance(value, dict):
                getattr(config, key).update(value)
            elif isinstance(value, (list, tuple)):
                getattr(config, key).extend(value)
            else:
                setattr(config, key, value)
        return config

    def run_pod(self, config: Any = None, *, handler: str = "") -> str:
        config = config if config is not None else self.pod_config()
        return str(
            self.cri.call("RunPodSandbox", pb.RunPodSandboxRequest(config=config, runtime_handler=handler)).pod_sandbox_id
        )

    def container_config(self, image: str, *command: str, name: str = "main") -> Any:
        config = pb.ContainerConfig(
            metadata=pb.ContainerMetadata(name=name, attempt=0),
            image=pb.ImageSpec(image=image),
            command=list(command),
            log_path=f"{name}/0.log",
        )
        config.linux.security_context.namespace_options.pid = pb.CONTAINER
        return config

    def create(self, pod_id: str, config: Any) -> str:
        request = pb.CreateContainerRequest(pod_sandbox_id=pod_id, config=config, sandbox_config=self.pod_config())
        return str(self.cri.call("CreateContainer", request).container_id)

    def start_container(self, container_id: str) -> None:
        self.cri.call("StartContainer", pb.StartContainerRequest(container_id=container_id))

    def run_container(self, pod_id: str, config: Any) -> str:
        container_id = self.create(pod_id, config)
        self.start_container(container_id)
        return container_id

    def status(self, container_id: str, *, verbose: bool = False) -> Any:
        request = pb.ContainerStatusRequest(container_id=container_id, verbose=verbose)
        answer = self.cri.call("ContainerStatus", request)
        return answer if verbose else answer.status

    def info(self, container_id: str) -> Any:
        """The verbose part of a container's status."""
        return json.loads(self.status(container_id, verbose=True).info["info"])

    def wait_state(self, container_id: str, state: int, limit_s: float = 60) -> Any:
        deadline = time.monotonic() + limit_s
        while (status := self.status(container_id)).state != state:
            assert time.monotonic() < deadline, f"container is {status.state}, not {state}\n{self.log()[-3000:]}"
            time.sleep(0.01)
        return status

    def exec(self, container_id: str, *command: str, timeout: int = 30) -> Any:
        return self.cri.call("ExecSync", pb.ExecSyncRequest(container_id=container_id, cmd=list(command), timeout=timeout))

    def output(self, container_id: str, *command: str) -> str:
        """Standard output of a command that must succeed."""
        answer = self.exec(container_id, *command)
        assert answer.exit_code == 0, answer
        return str(answer.stdout.decode())

    def kpod(self, *words: object) -> str:
        """Standard output of a kpod that must succeed, with this daemon's configuration."""
        argv = [CRIO.with_name("kpod"), "-c", self.place / "crio.conf", "-d", "", *words]
        return subprocess.run(list(map(str, argv)), capture_output=True, text=True, check=True, timeout=60).stdout

    def stop_container(self, container_id: str, timeout: int = 0) -> None:
        self.cri.call("StopContainer", pb.StopContainerRequest(container_id=container_id, timeout=timeout))

    def remove_container(self, container_id: str) -> None:
        self.cri.call("RemoveContainer", pb.RemoveContainerRequest(container_id=container_id))

    def stop_pod(self, pod_id: str) -> None:
        self.cri.call("StopPodSandbox", pb.StopPodSandboxRequest(pod_sandbox_id=pod_id))

    def remove_pod(self, pod_id: str) -> None:
        self.stop_pod(pod_id)
        self.cri.call("RemovePodSandbox", pb.RemovePodSandboxRequest(pod_sandbox_id=pod_id))

    def container_log(self, container_id: str) -> str:
        """The payload of a container's log, without stamps."""
        lines = Path(self.status(container_id).log_path).read_text().splitlines()
        return "\n".join(line.split(" ", 3)[3] for line in lines)

    def remove_everything(self) -> None:
        for pod in self.cri.call("ListPodSandbox").items:
            self.remove_pod(pod.id)


def warm_up(running: Daemon, image: str) -> None:
    """The first pod starts threads and opens files that stay: they are no leak of a later test."""
    for _ in range(2):
        pod = running.run_pod()
        container = running.run_container(pod, running.container_config(image, "sleep", "1000"))
        running.exec(container, "true")
        running.remove_pod(pod)


def wait_for(condition: Callable[[], object], limit_s: float = 60) -> None:
    """Return when the condition holds; fail after the limit."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.02)


def monitor_of(container: str) -> int:
    """The pid of a container's conmon."""
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
            if words[0].endswith(b"conmon") and container.encode() in words:
                return int(entry)
    raise AssertionError(f"container {container} has no conmon")


@contextlib.contextmanager
def place(directory: Path) -> Iterator[Path]:
    """A directory that is a tmpfs, as `/run` is on real nodes; unmounted at the end.

    Users of a pod's user namespace may pass it (0711), as they may pass /var/lib and /run.
    """
    subprocess.run(["mkdir", "-p", str(directory)], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=711", "place", str(directory)], check=True)
    try:
        yield directory
    finally:
        _unmount_below(directory)
        subprocess.run(["umount", "-l", str(directory)], check=True)


def _unmount_below(directory: Path) -> None:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    for target in reversed([line.split()[4] for line in lines]):
        if target.startswith(f"{directory}/"):
            subprocess.run(["umount", "-l", target], check=False)


@contextlib.contextmanager
def running_daemon(
    directory: Path, *, tuned: Mapping[str, float] | None = None, points: Sequence[str] = (), **options: Any
) -> Iterator[Daemon]:
    """A started daemon; at the end all its pods are removed, it is stopped, and its bridge is deleted."""
    with place(directory):
        daemon = Daemon(directory, **options)
        daemon.tuned, daemon.points = tuned or {}, points
        try:
            daemon.start()
            yield daemon
            if daemon.process is None:
                daemon.start()
            daemon.remove_everything()
            assert daemon.stop() == 0, daemon.log()[-3000:]
        finally:
            daemon.stop(signal.SIGKILL)
            subprocess.run(["ip", "link", "delete", daemon.bridge], capture_output=True, check=False)
            _remove_rules(daemon.net)


def _remove_rules(prefix: str) -> None:
    """Debian's bridge plugin leaves its masquerade rules when a pod's namespace was gone before DEL: tests do that."""
    saved = subprocess.run(["iptables", "-t", "nat", "-S"], capture_output=True, text=True, check=False).stdout
    for line in saved.splitlines():
        if line.startswith("-A POSTROUTING") and f" -s {prefix}" in line:
            words = shlex.split(line)
            subprocess.run(["iptables", "-t", "nat", "-D", *words[1:]], capture_output=True, check=False)
            chain = words[words.index("-j") + 1]
            for verb in ("-F", "-X"):
                subprocess.run(["iptables", "-t", "nat", verb, chain], capture_output=True, check=False)
