"""One qemu process with the guest in it: its monitor (qmp) and the two ports of the agent."""

import contextlib
import json
import os
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from image import Image

BOOT_LIMIT_S = 300
LSMS = {"apparmor": "", "selinux": " security=selinux", "none": " apparmor=0"}
CGROUPS = {"unified": "", "hybrid": " systemd.unified_cgroup_hierarchy=0"}


class GuestFailed(Exception):
    """The machine itself did not work: nothing is said about the command."""


class Hardware(NamedTuple):
    """What a saved memory depends on."""

    accelerator: str
    cpus: str
    memory_mib: str
    lsm: str
    cgroups: str

    @classmethod
    def from_environment(cls, lsm: str) -> Self:
        """Raises GuestFailed: VM_CGROUPS is neither."""
        cpus = os.environ.get("VM_CPUS") or str(min(os.cpu_count() or 1, 4))
        cgroups = os.environ.get("VM_CGROUPS") or "unified"
        if cgroups not in CGROUPS:
            raise GuestFailed(f"VM_CGROUPS: got {cgroups!r}, expected {' or '.join(CGROUPS)}")
        memory_mib = os.environ.get("VM_MEMORY") or "2048"
        return cls(os.environ.get("VM_ACCEL") or _accelerator(), cpus, memory_mib, lsm, cgroups)


class Disks(NamedTuple):
    """The system, raw or qcow2 by its name (changes stay in it if `keep`), and the tree."""

    system: Path
    tree: Path
    keep: bool = False


def _accelerator() -> str:
    # A kvm_pvm host emulates every stock kernel, slower than TCG does: it does not count.
    hardware = any(Path("/sys/module", name).exists() for name in ("kvm_intel", "kvm_amd"))
    return "kvm" if hardware and os.access("/dev/kvm", os.W_OK) else "tcg"


class Guest:
    """A guest that boots, or goes on from the saved memory of one that had booted."""

    def __init__(
        self, image: Image, hardware: Hardware, disks: Disks, *, console: str = "", memory: Path | None = None
    ) -> None:
        self._place = Path(tempfile.mkdtemp(prefix="vm-"))
        command = _command(image, hardware, disks, self._place)
        command += ["-serial", f"file:{console or self._place / 'console'}"]
        if memory is not None:
            command += ["-incoming", f"exec:cat {memory}"]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        try:
            self._qmp = self._connect("qmp").makefile("rwb", buffering=0)
            self._qmp.readline()
            self._tell("qmp_capabilities")
            self._control, self._out = self._connect("ctl"), self._connect("out")
            if memory is None:
                self._wait_ready()
            else:
                while self._tell("query-status")["status"] == "inmigrate":
                    time.sleep(0.1)
                self._tell("cont")
        except BaseException:
            self.end()
            raise

    def save(self, memory: Path) -> None:
        """Stop the guest and write its memory to a file."""
        self._tell("stop")
        self._tell("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
        self._tell("migrate", uri=f"exec:cat > {memory}")
        while (status := self._tell("query-migrate").get("status")) in ("setup", "active", "device"):
            time.sleep(0.2)
        if status != "completed":
            raise GuestFailed(f"saving the guest's memory: {status}")

    def run(self, request: dict[str, Any], deadline: float) -> tuple[int, bytes]:
        """Run a command, its output on our stdout; gives its status and a tar of what it left in /out.

        Raises:
            TimeoutError: no end by `deadline` (monotonic).
        """
        self._control.setblocking(True)
        self._control.sendall(json.dumps(request).encode() + b"\n")
        reply, size, status = b"", 0, None
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            selector.register(self._out, selectors.EVENT_READ)
            while status is None or len(reply) < size:
                events = selector.select(max(0.0, deadline - time.monotonic()))
                if not events:
                    raise TimeoutError
                for key, _ in events:
                    received = key.fileobj.recv(1 << 16)  # type: ignore[union-attr]
                    if not received:
                        raise GuestFailed("the guest ended before the command did")
                    if key.fileobj is self._out:
                        _show(received)
                        continue
                    reply += received
                    if status is None and b"\n" in reply:
                        head, reply = reply.split(b"\n", 1)
                        status, size = json.loads(head)
        self._show_rest()
        return int(status), reply

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._place, ignore_errors=True)

    def _connect(self, name: str) -> socket.socket:
        for _ in range(300):
            port = socket.socket(socket.AF_UNIX)
            try:
                port.connect(str(self._place / name))
            except OSError:
                port.close()
                if self._process.poll() is not None:
                    break
                time.sleep(0.1)
            else:
                return port
        raise GuestFailed("qemu did not start")

    def _tell(self, command: str, **arguments: Any) -> Any:
        self._qmp.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        while line := self._qmp.readline():
            reply = json.loads(line)
            if "error" in reply:
                raise GuestFailed(f"{command}: {reply['error']['desc']}")
            if "return" in reply:
                return reply["return"]
        raise GuestFailed("qemu ended")

    def _wait_ready(self) -> None:
        self._control.settimeout(BOOT_LIMIT_S)
        try:
            said = self._control.recv(64)
        except TimeoutError:
            raise GuestFailed(f"the guest was not up after {BOOT_LIMIT_S} s: see --console") from None
        if not said.startswith(b"ready"):
            raise GuestFailed("the guest ended while it started: see --console")

    def _show_rest(self) -> None:
        self._out.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while received := self._out.recv(1 << 16):
                _show(received)


def _command(image: Image, hardware: Hardware, disks: Disks, place: Path) -> list[str]:
    kind = "qcow2" if disks.system.suffix == ".qcow2" else "raw"
    is_kvm = hardware.accelerator == "kvm"
    words: Sequence[str] = (
        *("qemu-system-x86_64", "-machine", "pc,hpet=off,vmport=off", "-smp", hardware.cpus, "-m", hardware.memory_mib),
        *("-accel", "kvm" if is_kvm else "tcg,thread=multi", "-cpu", "host" if is_kvm else "max"),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append"),
        "console=ttyS0 root=/dev/vda mitigations=off panic=-1 quiet tsc=reliable psi=1"
        + LSMS[hardware.lsm]
        + CGROUPS[hardware.cgroups],
        *("-device", "virtio-serial-pci", "-device", "virtio-rng-pci"),
        *("-drive", f"id=d0,if=none,file={disks.system},format={kind},snapshot={'off' if disks.keep else 'on'}"),
        *("-device", "virtio-blk-pci,drive=d0"),
        *("-drive", f"id=d1,if=none,file={disks.tree},format=raw,read-only=on", "-device", "virtio-blk-pci,drive=d1"),
        *("-qmp", f"unix:{place / 'qmp'},server=on,wait=off"),
    )
    ports: list[str] = []
    for name in ("ctl", "out"):
        ports += ["-chardev", f"socket,id={name},path={place / name},server=on,wait=off"]
        ports += ["-device", f"virtserialport,chardev={name},name={name}"]
    return [*words, *ports]


def _show(received: bytes) -> None:
    sys.stdout.buffer.write(received)
    sys.stdout.buffer.flush()
