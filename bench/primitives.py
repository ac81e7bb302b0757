"""What one start costs without a daemon: the same kernel calls and programs, called one after the other and timed.

    namespaces     net, ipc and uts made and pinned by a thread, `lo` up, hostname set (criollo.linux.namespaces)
    CNI ADD        the bridge plugin executed, which executes host-local; portmap without ports is not run, as in the daemon
    overlay        the directories and mount(2)
    conmon create  conmon started, which starts `crun create`; until its pipe names the pid
    crun start

No gRPC, no event loop, no state, no generated files: the spec is the one the daemon wrote for a container like these.
Roots, tmpfs, image, bridge and cgroup parent are the daemon's. Starts through the daemon alternate with bare ones; the
difference is what the daemon adds.
"""

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cribench
from daemons import OURS, PLUGINS, Running
from place import Place

from criollo.aio import process
from criollo.linux import mount, namespaces
from criollo.linux.namespaces import NamespaceKind
from criollo.monitor.conmon import Conmon, Launch
from criollo.wire import conmon as protocol

KINDS = (NamespaceKind.NET, NamespaceKind.IPC, NamespaceKind.UTS)


class Bare:
    """Starts and stops containers without the daemon; the spec is that of one of its containers, which must stay."""

    def __init__(self, place: Place, template: str) -> None:
        self.run, self.root, self.disk = place.run / OURS, place.run / "bare", place.disk / "bare"
        self.layers = place.disk / OURS / "layers"
        for path in (self.root, self.root / "exits", self.root / "attach", self.root / "crun", self.disk):
            path.mkdir(exist_ok=True)
        namespaces.prepare_directory(self.root)
        self.spec = json.loads((self.run / "containers" / template / "config.json").read_text())
        self.options = _lower_options(self.spec["root"]["path"])
        self.cgroup = f"{place.cgroup(OURS)}/bare"
        network = json.loads((self.run / "net.d/10-bench.conflist").read_text())
        self.network = {"cniVersion": network["cniVersion"], "name": network["name"], **network["plugins"][0]}
        conmon = Path(subprocess.run(["which", "conmon"], check=True, capture_output=True, text=True).stdout.strip())
        self.conmon = Conmon(conmon, exits_dir=self.root / "exits", attach_dir=self.root / "attach")
        crun = subprocess.run(["which", "crun"], check=True, capture_output=True, text=True).stdout.strip()
        self.crun = [crun, f"--root={self.root}/crun"]

    @contextlib.contextmanager
    def started(self, steps: dict[str, float]) -> Iterator[None]:
        """Start one container, put the seconds of every step into `steps`, and take all away at the end."""
        name = uuid.uuid4().hex * 2
        bundle, place = self.root / name, self.disk / name
        paths = {kind: namespaces.directory_of(self.root, kind) / name for kind in KINDS}
        bundle.mkdir()
        cribench.make_cgroup(f"{self.cgroup}-{name}")  # new for each, as a pod's is
        (bundle / "config.json").write_text(json.dumps(self._spec(name, place, paths)))
        monitor: list[subprocess.Popen[bytes]] = []
        pids: list[int] = []
        try:
            with _timed(steps, "namespaces"):
                _in_thread(lambda: namespaces.pin(KINDS, paths, hostname="bare"))
            with _timed(steps, "CNI ADD"):
                self._plugin("ADD", name, paths[NamespaceKind.NET])
            with _timed(steps, "overlay"):
                self._mount(place)
            with _timed(steps, "conmon and crun create"):
                pids.append(self._create(name, bundle, monitor))
            with _timed(steps, "crun start"):
                subprocess.run([*self.crun, "start", name], check=True)
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            for child in monitor:
                child.wait(30)
            subprocess.run([*self.crun, "delete", "--force", name], check=False, capture_output=True)
            mount.unmount(place / "merged")
            self._plugin("DEL", name, paths[NamespaceKind.NET])
            for path in paths.values():
                namespaces.unpin(path)
            cribench.remove_cgroup(f"{self.cgroup}-{name}")

    def _spec(self, name: str, place: Path, paths: dict[NamespaceKind, Path]) -> dict[str, Any]:
        spec = json.loads(json.dumps(self.spec))
        spec["root"]["path"] = str(place / "merged")
        spec["linux"]["cgroupsPath"] = f"{self.cgroup}-{name}/{name}"
        own = {"network": NamespaceKind.NET, "ipc": NamespaceKind.IPC, "uts": NamespaceKind.UTS}
        for entry in spec["linux"]["namespaces"]:
            if entry["type"] in own:
                entry["path"] = str(paths[own[entry["type"]]])
        return spec  # type: ignore[no-any-return]

    def _plugin(self, command: str, name: str, netns: Path) -> None:
        environment = {
            **process.MINIMAL_ENV,
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": name,
            "CNI_NETNS": str(netns),
            "CNI_IFNAME": "eth0",
            "CNI_PATH": PLUGINS,
        }
        request = json.dumps(self.network).encode()
        subprocess.run([f"{PLUGINS}/bridge"], input=request, env=environment, check=True, stdout=subprocess.PIPE)

    def _mount(self, place: Path) -> None:
        place.mkdir()
        for part in ("diff", "work", "merged"):
            (place / part).mkdir()
        before = os.getcwd()
        os.chdir(self.layers)
        try:
            options = f"{self.options},upperdir={place}/diff,workdir={place}/work,volatile"
            mount.mount("overlay", place / "merged", "overlay", 0, options)
        finally:
            os.chdir(before)

    def _create(self, name: str, bundle: Path, monitor: list["subprocess.Popen[bytes]"]) -> int:
        launch = Launch(container_id=name, name="bare", bundle=bundle, runtime=self.crun, log_path=str(bundle / "log"))
        read, write = os.pipe()
        try:
            environment = {**process.MINIMAL_ENV, "_OCI_SYNCPIPE": str(write)}
            argv = self.conmon.argv(launch)
            null = subprocess.DEVNULL
            monitor.append(
                subprocess.Popen(
                    argv,
                    env=environment,
                    cwd=bundle,
                    pass_fds=[write],
                    stdin=null,
                    stdout=null,
                    stderr=null,
                    start_new_session=True,
                )
            )
            os.close(write)
            pipe = protocol.SyncPipe()
            while data := os.read(read, 1 << 16):
                if (answer := pipe.receive(data)) is not None:
                    return protocol.created_pid(answer)
            raise RuntimeError("conmon ended without a word")
        finally:
            os.close(read)


def _lower_options(merged: str) -> str:
    """The options of a mounted root filesystem that do not name its writable layer."""
    for entry in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = entry.partition(" - ")
        if before.split()[4] == merged:
            options = after.split(" ", 2)[2].split(",")
            return ",".join(each for each in options if each.startswith(("lowerdir=", "index=", "metacopy=")))
    raise RuntimeError(f"{merged} is not mounted")


@contextlib.contextmanager
def _timed(steps: dict[str, float], name: str) -> Iterator[None]:
    begin = time.perf_counter()
    yield
    steps[name] = time.perf_counter() - begin
    steps["start"] = steps.get("start", 0.0) + steps[name]


def _in_thread(function: Callable[[], None]) -> None:
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


async def compare(place: Place, running: Running, words: list[str], rounds: int) -> dict[str, Any]:
    """Alternate starts through the daemon and bare ones; returns rows as cribench's, and the overhead in ms.

    `words` are arguments of cribench that name image, stubs and logs.
    """
    options = cribench.arguments(["--socket", str(running.socket), "--pid", str(running.pid), *words])
    stubs = cribench.load_stubs(options.stubs)
    daemon = cribench.Daemon(OURS, (options.socket, running.pid, str(running.cgroup)), options, stubs)
    through: list[float] = []
    calls: dict[str, list[float]] = {}
    bare: dict[str, list[float]] = {}
    load = os.getloadavg()[0]
    try:
        if not await daemon.find_image(options.image):
            await daemon.pull(options.image)
            await daemon.find_image(options.image)
        _, containers, _ = await daemon.start_pod()
        maker = Bare(place, containers[0])
        for number in range(rounds + 1):
            for kind in ("daemon", "bare") if number % 2 else ("bare", "daemon"):
                steps: dict[str, float] = {}
                if kind == "daemon":
                    pod, _, _ = await daemon.start_pod(steps)
                    await daemon.stop_pod(pod)
                    if number:  # the first is the warm-up
                        through.append(steps["start"] * 1e3)
                        for call in ("RunPodSandbox", "CreateContainer", "StartContainer"):
                            calls.setdefault(call, []).append(steps[call] * 1e3)
                else:
                    with maker.started(steps):
                        pass
                    for step, seconds in steps.items() if number else ():
                        bare.setdefault(step, []).append(seconds * 1e3)
    finally:
        await daemon.clean()
        await daemon.channel.close()
    differences = [one - other for one, other in zip(through, bare["start"], strict=True)]
    return {
        "load": load,
        "daemon": cribench.summary(through),
        "calls": {call: cribench.summary(values) for call, values in calls.items()},
        "bare": {step: cribench.summary(values) for step, values in bare.items()},
        "overhead": {
            "of_medians": cribench.summary(through)["p50"] - cribench.summary(bare["start"])["p50"],
            "of_minima": min(through) - min(bare["start"]),
            "p10": cribench.quantile(differences, 0.1),
            "p50": cribench.quantile(differences, 0.5),
            "p90": cribench.quantile(differences, 0.9),
        },
    }
