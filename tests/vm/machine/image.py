"""The guest's disk, kernel and initrd: Debian's packages, the libraries of `requirements/`, and the agent.

Two steps, each made once for what it depends on: the Debian tree as a tar (minutes, from the archive), and the disk.
"""

import hashlib
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
TREE = HERE.parents[2]
REQUIREMENTS = TREE / "requirements/dev.txt"
POLICY = HERE / "confined.cil"
SUITE = "bookworm"
DISK_BYTES = 6 << 30

PACKAGES = """
    linux-image-cloud-amd64 systemd systemd-sysv dbus kmod procps iproute2 iputils-ping
    python3 python3-venv runc crun conmon containernetworking-plugins catatonit busybox-static
    docker-registry skopeo umoci golang-github-containers-common gpg gpg-agent gpgconf apache2-utils
    iptables nftables conntrack e2fsprogs btrfs-progs xfsprogs strace ca-certificates openssl
    apparmor apparmor-utils selinux-policy-default policycoreutils selinux-utils tzdata
""".split()

# What would only cost time at boot. Device nodes come from devtmpfs, modules from the agent.
MASKED = """
    systemd-udevd.service systemd-udev-trigger.service systemd-udev-settle.service systemd-udevd-kernel.socket
    systemd-udevd-control.socket systemd-binfmt.service systemd-repart.service systemd-logind.service
    systemd-timesyncd.service systemd-random-seed.service systemd-update-utmp.service systemd-journal-flush.service
    systemd-hwdb-update.service systemd-firstboot.service systemd-sysusers.service systemd-remount-fs.service
    systemd-pstore.service systemd-initctl.socket systemd-ask-password-wall.path systemd-ask-password-console.path
    selinux-autorelabel-mark.service sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount
    sys-fs-fuse-connections.mount dev-hugepages.mount proc-sys-fs-binfmt_misc.automount docker-registry.service
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer systemd-tmpfiles-clean.timer
    e2scrub_all.timer e2scrub_reap.service
""".split()

AGENT_UNIT = """\
[Unit]
Description=Runs the command given from outside
Requires=basic.target
After=basic.target dbus.socket apparmor.service
AllowIsolate=yes
[Service]
ExecStart=/usr/bin/python3 /usr/local/sbin/agent
Delegate=yes
TasksMax=infinity
LimitNOFILE=1048576
"""

TARGET_UNIT = """\
[Unit]
Description=A guest which runs one command
Requires=basic.target
Wants=agent.service apparmor.service dbus.socket
AllowIsolate=yes
"""

INIT_MODULES = """
    virtio/virtio_ring virtio/virtio virtio/virtio_pci_modern_dev virtio/virtio_pci_legacy_dev virtio/virtio_pci
    block/virtio_blk char/virtio_console
""".split()

INIT = """\
#!/bin/busybox sh
b=/bin/busybox
$b mount -t devtmpfs dev /dev
for module in {modules}; do $b insmod /$module.ko; done
until $b mount -t ext4 -o noatime /dev/vda /root 2>/dev/null; do $b sleep 0.1; done
$b mount -o move /dev /root/dev
exec $b switch_root /root /sbin/init
"""

COMMAND = """\
#!/opt/venv/bin/python
import sys
from criollo.{package}.main import run
sys.exit(run())
"""


class Image(NamedTuple):
    """The files of one guest that has not booted yet; `name` is of what they were made from."""

    name: str
    disk: Path
    kernel: Path
    initrd: Path


def image(cache: Path) -> Image:
    """The image for this tree's requirements, built if it is not there (root, network)."""
    debian_name = _digest(SUITE, *PACKAGES)
    own = [path.read_text() for path in (HERE / "image.py", HERE / "agent.py", POLICY, REQUIREMENTS)]
    name = _digest(debian_name, *own)
    place = cache / f"image-{name}"
    if not place.exists():
        debian = cache / f"debian-{debian_name}.tar"
        if not debian.exists():
            _say("fetching the packages of a Debian system ...")
            _fetch_debian(debian)
        _say("making the disk ...")
        _build(place, debian)
        for old in cache.glob("image-*"):
            if old != place:
                shutil.rmtree(old)
    return Image(name, place / "disk.img", place / "vmlinuz", place / "initrd")


def make_ext4(tree: Path, file: Path, size: int) -> None:
    """A file system of `size` bytes with the content of a directory."""
    with file.open("wb") as out:
        out.truncate(size)
    features = "^has_journal,^resize_inode,^metadata_csum"
    command = ["mke2fs", "-q", "-F", "-t", "ext4", "-O", features, "-m", "0", "-E", "nodiscard"]
    subprocess.run([*command, "-d", str(tree), str(file)], check=True)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def _say(text: str) -> None:
    print(f"vm: {text}", file=sys.stderr, flush=True)


def _fetch_debian(tar: Path) -> None:
    no_initrd = "$1/usr/local/sbin/update-initramfs"  # the kernel package's own is not used
    part = tar.with_suffix(".part.tar")
    subprocess.run(
        [
            *("mmdebstrap", "--mode=root", "--variant=apt", "--include=" + ",".join(PACKAGES)),
            '--aptopt=Acquire::Languages "none"',
            *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("man", "locale", "doc")),
            f"--essential-hook=printf '#!/bin/sh\\n' > {no_initrd} && chmod 755 {no_initrd}",
            *("--skip=output/dev", SUITE, str(part)),
        ],
        check=True,
    )
    part.rename(tar)


def _build(place: Path, debian: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="tree-", dir=place.parent) as scratch:
        made, root = Path(scratch, "image"), Path(scratch, "root")
        made.mkdir()
        root.mkdir()
        subprocess.run(["tar", "-C", str(root), "--numeric-owner", "--xattrs-include=*", "-xf", str(debian)], check=True)
        _configure(root)
        _add_libraries(root)
        _add_policy(root)
        (kernel,) = (root / "boot").glob("vmlinuz-*")
        shutil.copyfile(kernel, made / "vmlinuz")
        _make_initrd(root, root / "usr/lib/modules" / kernel.name.removeprefix("vmlinuz-"), made / "initrd")
        shutil.rmtree(root / "boot")
        (root / "boot").mkdir()
        _label(root)
        make_ext4(root, made / "disk.img", DISK_BYTES)
        made.rename(place)


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def _configure(root: Path) -> None:
    units = root / "etc/systemd/system"
    _write(root / "usr/local/sbin/agent", (HERE / "agent.py").read_text())
    _write(units / "agent.service", AGENT_UNIT)
    _write(units / "guest.target", TARGET_UNIT)
    _write(root / "etc/machine-id", secrets.token_hex(16) + "\n")
    _write(root / "etc/hostname", "guest\n")
    _write(root / "etc/hosts", "127.0.0.1 localhost guest\n::1 localhost\n")
    _write(root / "etc/fstab", "")
    for name, target in (("default.target", "guest.target"), *((unit, "/dev/null") for unit in MASKED)):
        (units / name).unlink(missing_ok=True)
        (units / name).symlink_to(target)
    for wants in ("timers.target.wants", "multi-user.target.wants", "getty.target.wants"):
        shutil.rmtree(units / wants, ignore_errors=True)


def _add_libraries(root: Path) -> None:
    """A venv with the pinned libraries, and our commands out of the tree that the guest is shown."""
    wheels = root / "var/tmp/wheels"
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "-qq", "-d", str(wheels), "-r", str(REQUIREMENTS), "--require-hashes"),
            *("--only-binary=:all:", "--python-version=3.11", "--platform=manylinux2014_x86_64"),
        ],
        check=True,
    )
    shutil.copy(REQUIREMENTS, wheels / "requirements.txt")
    install = "/opt/venv/bin/pip install -qq --no-index --find-links /var/tmp/wheels -r /var/tmp/wheels/requirements.txt"
    for command in ("python3 -m venv /opt/venv", install):
        subprocess.run(["chroot", str(root), *command.split()], check=True)
    shutil.rmtree(wheels)
    (site,) = (root / "opt/venv/lib").glob("python3*/site-packages")
    _write(site / "criollo.pth", "/criollo/src\n")
    for name, package in (("crio", "cli"), ("kpod", "kpod")):
        _write(root / "opt/venv/bin" / name, COMMAND.format(package=package), 0o755)


def _add_policy(root: Path) -> None:
    """A module of SELinux's policy; linked here, where it takes seconds."""
    shutil.copy(POLICY, root / "var/tmp")
    subprocess.run(["chroot", str(root), "semodule", "-N", "-i", f"/var/tmp/{POLICY.name}"], check=True)


def _make_initrd(root: Path, modules: Path, initrd: Path) -> None:
    tree = root / "var/tmp/initrd"
    for name in ("bin", "dev", "root"):
        (tree / name).mkdir(parents=True)
    shutil.copy(root / "bin/busybox", tree / "bin")
    for module in INIT_MODULES:
        shutil.copy(modules / f"kernel/drivers/{module}.ko", tree)
    _write(tree / "init", INIT.format(modules=" ".join(module.rsplit("/", 1)[1] for module in INIT_MODULES)), 0o755)
    with initrd.open("wb") as out:
        script = "cd /var/tmp/initrd && find . | cpio -o -H newc --quiet"
        subprocess.run(["chroot", str(root), "sh", "-c", script], stdout=out, check=True)
    shutil.rmtree(tree)


def _label(root: Path) -> None:
    """SELinux's labels: written here, where it takes a second, not by the guest."""
    contexts = "/etc/selinux/default/contexts/files/file_contexts"
    script = f"mount -t proc proc {root}/proc && chroot {root} setfiles -F -e /proc {contexts} /"
    subprocess.run(["unshare", "-m", "sh", "-c", script], check=True)
