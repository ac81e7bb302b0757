"""The guest's side: takes one request from the host, runs its command, and answers with the status.

    port ctl  ──▶ "ready"  ◀── a line of JSON: command, environment, time, seed  ──▶ [status, size], a tar of /out
    port out  ──▶ the command's output as it comes

The tree is the second disk, shown at /criollo with a layer above it that takes the writes.
"""

import fcntl
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

RNDRESEEDCRNG = 0x5207  # linux/random.h
MODULES = "overlay loop bridge br_netfilter veth dummy nf_tables nft_chain_nat nft_compat xt_comment xfs btrfs quota_v2"
TREE = "/criollo"
LAYERS = "/run/tree"


def main() -> None:
    for module in MODULES.split():
        subprocess.run(["modprobe", "-q", module], check=False)
    control, out = (os.open(_port(name), os.O_RDWR) for name in ("ctl", "out"))
    os.write(control, b"ready\n")
    request = _read_request(control)
    status = _run(request, out)
    archive = b""
    if request["want_out"]:
        archive = subprocess.run(["tar", "-C", "/out", "-c", "."], capture_output=True, check=False).stdout
    answer = json.dumps([status, len(archive)]).encode() + b"\n" + archive
    while answer:
        answer = answer[os.write(control, answer[:32768]) :]
    time.sleep(3600)  # until the host ends us


def _port(name: str) -> str:
    """The device of a virtio port; without udev there is no /dev/virtio-ports."""
    while True:
        for node in Path("/sys/class/virtio-ports").glob("*"):
            if (node / "name").read_text().strip() == name:
                return f"/dev/{node.name}"
        time.sleep(0.05)


def _read_request(control: int) -> Any:
    """The port reads as empty while the host is not connected, as after a restore."""
    line = b""
    while not line.endswith(b"\n"):
        read = os.read(control, 65536)
        line += read
        if not read:
            time.sleep(0.02)
    return json.loads(line)


def _run(request: Any, out: int) -> int:
    environment = {
        "PATH": "/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        **request["environment"],
    }
    try:
        _freshen(request)
        os.makedirs("/out", exist_ok=True)
        _mount_tree()
        done = subprocess.run(
            request["command"], cwd=TREE, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        os.write(out, f"vm: {error}\n".encode())
        return 125
    return done.returncode if done.returncode >= 0 else 128 - done.returncode


def _freshen(request: Any) -> None:
    """A guest restored from memory has an old clock and an old random seed."""
    time.clock_settime(time.CLOCK_REALTIME, request["time"])
    with open("/dev/urandom", "wb", buffering=0) as urandom:
        urandom.write(bytes.fromhex(request["seed"]))
        fcntl.ioctl(urandom, RNDRESEEDCRNG)


def _mount_tree() -> None:
    for name in ("disk", "scratch"):
        os.makedirs(f"{LAYERS}/{name}", exist_ok=True)
    subprocess.run(["blockdev", "--flushbufs", "/dev/vdb"], check=True)
    subprocess.run(["mount", "-t", "ext4", "-o", "ro", "/dev/vdb", f"{LAYERS}/disk"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", f"{LAYERS}/scratch"], check=True)
    for name in ("upper", "work"):
        os.mkdir(f"{LAYERS}/scratch/{name}")
    os.makedirs(TREE, exist_ok=True)
    layers = f"lowerdir={LAYERS}/disk,upperdir={LAYERS}/scratch/upper,workdir={LAYERS}/scratch/work"
    subprocess.run(["mount", "-t", "overlay", "-o", layers, "overlay", TREE], check=True)


if __name__ == "__main__":
    main()
