"""Containers made by hand: a bundle with busybox on a tmpfs, a runtime through conmon."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from criollo.linux.cgroup import Hierarchies
from criollo.model.ids import new_id
from criollo.monitor.conmon import Conmon, Created
from criollo.monitor.exits import Exit, Watched
from criollo.runtimes.base import CreateRequest, ExecRequest
from criollo.runtimes.oci import Handler, OciRuntime

PARENT = f"/criollo-tests-{os.getpid()}"  # two runs at a time do not see each other
APPLETS = "sh sleep cat echo yes true false kill ps head dd stty printf touch".split()


class Node:
    """One test's directories on a tmpfs, and what it made there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._opened: list[OciRuntime] = []
        self.hierarchies = Hierarchies.detect()
        for name in ("exits", "attach", "logs", "state"):
            (root / name).mkdir()
        self.conmon = self.conmon_of("/usr/bin/conmon")
        self.rootfs = root / "rootfs"
        for name in ("bin", "proc", "dev", "sys", "tmp"):
            (self.rootfs / name).mkdir(parents=True)
        shutil.copy("/bin/busybox", self.rootfs / "bin/busybox")
        for applet in APPLETS:
            (self.rootfs / "bin" / applet).symlink_to("busybox")

    def conmon_of(self, path: str, **options: Any) -> Conmon:
        return Conmon(Path(path), exits_dir=self.root / "exits", attach_dir=self.root / "attach", **options)

    def runtime(self, program: str, *, conmon: Conmon | None = None, **options: Any) -> OciRuntime:
        path = shutil.which(program)
        assert path is not None, f"{program} is not installed"
        handler = Handler(name=Path(program).name, path=Path(path), root=self.root / "state", **options)
        self._opened.append(OciRuntime(handler, conmon or self.conmon, self.hierarchies))
        return self._opened[-1]

    def close(self) -> None:
        """Let go of what the runtimes keep between calls."""
        for runtime in self._opened:
            runtime.close()

    def request(self, args: list[str], *, resources: Mapping[str, Any] | None = None, **options: Any) -> CreateRequest:
        container_id = new_id()
        bundle = self.root / container_id[:12]
        bundle.mkdir()
        tty = bool(options.get("tty"))
        (bundle / "config.json").write_text(json.dumps(self._spec(container_id, args, resources or {}, tty)))
        options.setdefault("log_path", str(self.root / "logs" / f"{container_id[:12]}.log"))
        return CreateRequest(container_id=container_id, name="test", bundle=bundle, cgroup_parent=PARENT, **options)

    def _spec(self, container_id: str, args: list[str], resources: Mapping[str, Any], tty: bool) -> dict[str, Any]:
        mounts = [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]},
        ]
        return {
            "ociVersion": "1.0.2",
            "process": {"terminal": tty, "user": {"uid": 0, "gid": 0}, "args": args, "env": ["PATH=/bin"], "cwd": "/"},
            "root": {"path": str(self.rootfs), "readonly": False},
            "mounts": mounts,
            "linux": {
                "cgroupsPath": f"{PARENT}/crio-{container_id}",
                "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network")],
                "resources": resources,
            },
        }

    @staticmethod
    def watched(request: CreateRequest, created: Created) -> Watched:
        return Watched(
            container_id=request.container_id,
            bundle=request.bundle,
            pid=created.pid,
            pid_started=created.pid_started,
            monitor_pid=created.monitor_pid,
            monitor_started=created.monitor_started,
            cgroup=f"{PARENT}/crio-{request.container_id}",
        )

    @staticmethod
    def command(request: CreateRequest, *args: str, timeout_s: float = 0, tty: bool = False, **more: Any) -> ExecRequest:
        process = {"terminal": tty, "user": {"uid": 0, "gid": 0}, "args": args, "env": ["PATH=/bin"], "cwd": "/"}
        return ExecRequest(
            container_id=request.container_id,
            bundle=request.bundle,
            process=json.dumps(process).encode(),
            command=args,
            tty=tty,
            timeout_s=timeout_s,
            **more,
        )

    async def start(self, runtime: OciRuntime, request: CreateRequest) -> Watched:
        await runtime.probe()
        watched = self.watched(request, await runtime.create(request))
        await runtime.start(request.container_id, has_poststart=False)
        return watched

    async def remove(self, runtime: OciRuntime, watched: Watched) -> Exit:
        """Kill, wait for the exit, delete."""
        await runtime.kill_all(watched)
        exit_ = await runtime.wait_exit(watched)
        await runtime.delete(watched.container_id, cgroup_parent=PARENT)
        return exit_

    async def run(self, runtime: OciRuntime, request: CreateRequest) -> Exit:
        """From create to delete, for a container that ends by itself."""
        watched = await self.start(runtime, request)
        exit_ = await runtime.wait_exit(watched)
        await runtime.delete(watched.container_id, cgroup_parent=PARENT)
        return exit_


def in_container(pid: int) -> list[int]:
    """Living processes that share the PID namespace of `pid`."""
    wanted = os.readlink(f"/proc/{pid}/ns/pid")
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{name}/ns/pid") == wanted and "State:\tZ" not in Path(f"/proc/{name}/status").read_text():
                found.append(int(name))
        except OSError:
            continue
    return found
