"""Run this tree's tests, or a command, in a virtual machine that is thrown away afterwards.

    python tests/vm/machine test [options] [PYTEST ARGUMENT...]   default: tests/vm and the list NODE_TESTS below
    python tests/vm/machine run [options] -- COMMAND [ARGUMENT...]
    python tests/vm/machine build                                 only make the image (root, network: some minutes)

The guest is Debian 12 with its stock kernel: systemd, cgroup v2 (or the hybrid), AppArmor (or SELinux), no network card. The
tree is at /criollo, as a copy: what is written there goes with the guest. COMMAND is run by root in a service of systemd.

Where there is no hardware virtualisation the guest is emulated, ten to twenty times slower than the node; its memory is saved
after the first boot, and later runs go on from there.

Settings: VM_CACHE (default ~/.cache/criollo-vm), VM_CPUS (default: all, at most 4), VM_MEMORY (MiB, default 2048), VM_ACCEL
(kvm or tcg), VM_CGROUPS (unified, or hybrid: version 1 beside a version 2 without controllers; then the default is HYBRID_TESTS
with the systemd driver).
Exit status: the command's own; 124 when it took too long; 125 when the machine did not work.
"""

import argparse
import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import subprocess
import sys
import tarfile  # noqa: TID251 - of what our own command wrote
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from guest import LSMS, Disks, Guest, GuestFailed, Hardware
from image import TREE, Image, image, make_ext4

CACHE = Path(os.environ.get("VM_CACHE") or Path.home() / ".cache/criollo-vm")
TREE_DISK_BYTES = 2 << 30  # part of the saved memory's hardware: it never varies
LEFT_OUT = (".git", ".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", "node_modules")
TOOLS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "mke2fs": "e2fsprogs",
    "mmdebstrap": "mmdebstrap",
}

# What of the node's tests says something new under systemd and cgroup v2.
NODE_TESTS = """
    tests/node/linux/test_linux_cgroup_node.py tests/node/runtimes/test_runtimes_lifecycle.py
    tests/node/daemon/test_daemon_containers.py tests/node/daemon/test_daemon_pods.py tests/node/daemon/test_daemon_stats.py
    tests/node/storage/test_storage_quotas.py
""".split()
# What says something new where systemd holds version 1.
HYBRID_TESTS = """
    tests/vm/test_vm_systemd.py tests/vm/test_vm_stats.py tests/node/daemon/test_daemon_resources.py
    tests/node/daemon/test_daemon_pods.py tests/node/daemon/test_daemon_stats.py
""".split()

ENFORCING = ["sh", "-c", 'setenforce 1 && exec "$@"', "sh"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="machine", usage=__doc__)
    modes = parser.add_subparsers(dest="mode", required=True)
    modes.add_parser("build")
    for mode in ("test", "run"):
        each = modes.add_parser(mode)
        each.add_argument("--lsm", choices=LSMS, default="apparmor", help="the kernel's confinement of choice")
        each.add_argument("--enforce", action="store_true", help="with SELinux: what its policy does not allow is refused")
        each.add_argument("--cgroups", choices=("cgroupfs", "systemd"), default="", help="the driver that daemons of tests use")
        each.add_argument("--env", action="append", default=[], metavar="K=V")
        each.add_argument("--out", metavar="DIRECTORY", help="receives what is written to /out")
        each.add_argument("--timeout", type=float, default=7200.0, metavar="S")
        each.add_argument("--cold", action="store_true", help="boot, though there is a saved memory")
        each.add_argument("--console", action="store_true", help="the kernel's words on stderr")
        each.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    try:
        _require_tools()
        if args.mode == "build":
            with _alone():
                image(CACHE)
            return 0
        if args.enforce:
            args.lsm = "selinux"
        hardware = Hardware.from_environment(args.lsm)
        if hardware.cgroups == "hybrid":
            args.cgroups = args.cgroups or "systemd"
        return _run(args, hardware, [*(ENFORCING if args.enforce else ()), *_command(args, hardware)])
    except (GuestFailed, subprocess.CalledProcessError) as error:
        print(f"vm: {error}", file=sys.stderr)
        return 125


def _require_tools() -> None:
    missing = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
    if missing:
        raise GuestFailed(f"missing here: apt-get install --no-install-recommends {' '.join(missing)}")


def _command(args: argparse.Namespace, hardware: Hardware) -> list[str]:
    words = args.command[1:] if args.command[:1] == ["--"] else args.command
    if args.mode == "run":
        return words or ["true"]
    named = any(word.startswith("tests/") for word in words)
    every = HYBRID_TESTS if hardware.cgroups == "hybrid" else ["tests/vm", *NODE_TESTS]
    wanted = words if named else [*words, *every]
    # Slow, where it is emulated: a test's own limits are for a node.
    return ["python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "timeout=1800", *wanted]


def _run(args: argparse.Namespace, hardware: Hardware, command: list[str]) -> int:
    environment = {"CRIOLLO_VM": "1", "CRIOLLO_TEST_CGROUPS": args.cgroups, "PYTHONDONTWRITEBYTECODE": "1"}
    request = {
        "command": command,
        "environment": {**environment, **dict(each.split("=", 1) for each in args.env)},
        "want_out": bool(args.out),
        "seed": secrets.token_hex(64),
    }
    with tempfile.TemporaryDirectory(prefix="vm-run-", dir="/var/tmp") as scratch:
        guest = _guest(args, hardware, Path(scratch))
        try:
            status, out = guest.run({**request, "time": time.time()}, time.monotonic() + args.timeout)
        except TimeoutError:
            print(f"vm: no end after {args.timeout:g} s", file=sys.stderr)
            return 124
        finally:
            guest.end()
        if args.out:
            Path(scratch, "out.tar").write_bytes(out)
            with tarfile.open(Path(scratch, "out.tar")) as tar:
                tar.extractall(args.out, filter="data")
    return status


def _guest(args: argparse.Namespace, hardware: Hardware, scratch: Path) -> Guest:
    tree = scratch / "tree.img"
    _pack(tree)
    with _alone():
        made = image(CACHE)
        saved = None if args.cold or hardware.accelerator == "kvm" else _saved(made, hardware)
        console = "/dev/stderr" if args.console else ""
        if saved is None:
            return Guest(made, hardware, Disks(made.disk, tree), console=console)
        disk, memory = saved
        return Guest(made, hardware, Disks(disk, tree), console=console, memory=memory)


def _pack(disk: Path) -> None:
    """The tree as it is now, on a disk. Compiled files come along: to compile takes long where it is emulated."""
    with tempfile.TemporaryDirectory(prefix="vm-tree-", dir="/var/tmp") as copy:
        shutil.copytree(TREE, copy, symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT), dirs_exist_ok=True)
        os.chmod(copy, 0o755)  # containers' users pass it
        make_ext4(Path(copy), disk, TREE_DISK_BYTES)


def _saved(made: Image, hardware: Hardware) -> tuple[Path, Path]:
    """Disk and memory of a guest that has booted, made on first use."""
    version = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, check=True, text=True).stdout
    code = Path(__file__).with_name("guest.py").read_text()
    key = hashlib.sha256("\0".join([made.name, *hardware, version, code]).encode()).hexdigest()[:12]
    disk, memory = (CACHE / f"saved-{made.name}-{key}.{end}" for end in ("qcow2", "memory"))
    if memory.exists():
        return disk, memory
    for old in CACHE.glob("saved-*"):
        if not old.name.startswith(f"saved-{made.name}-"):
            old.unlink()
    print("vm: first boot with these settings ...", file=sys.stderr, flush=True)
    disk.unlink(missing_ok=True)
    based = ["-b", str(made.disk), "-F", "raw", str(disk)]
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *based], check=True)
    blank = CACHE / "blank.img"
    with blank.open("wb") as out:
        out.truncate(TREE_DISK_BYTES)
    guest = Guest(made, hardware, Disks(disk, blank, keep=True), console=str(CACHE / "console.log"))
    try:
        guest.save(memory.with_suffix(".part"))
    finally:
        guest.end()
    memory.with_suffix(".part").rename(memory)
    return disk, memory


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Nobody else builds or boots meanwhile; guests that run are not concerned."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    sys.exit(main())
