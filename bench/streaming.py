#!/usr/bin/env python3
"""What comes through exec and port-forward, beside another daemon: megabytes per second, and milliseconds per command.

usage: streaming.py --socket SOCKET --stubs DIR --image IMAGE [--vs SOCKET2] [options]      or: make bench, test `streaming`

  exec output    `dd` of zeros in a container, by its SPDY stream, until the status has come
  exec stdin     zeros into `cat` of a container, in frames of 32 KiB as Go's clients send them
  port-forward   the same two ways through a connection into the pod
  exec true      Exec, connect, upgrade, streams, status: one command as kubectl runs it, without kubectl
  ExecSync       of the same command; by our daemon also `crun exec` alone, which all of these contain

The client is the same for both: a plain socket that reads frame heads and throws payload away, the way kubectl speaks (no
window updates, no settings). It shares the processors with the daemon: `client limit` is what it takes from a server that
only writes, so a figure near it says more of the client than of the daemon. Rounds alternate as cribench's do.
"""

import argparse
import asyncio
import contextlib
import json
import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import cribench

from criollo.wire.spdy_frames import FIN, FrameKind, payload_head, syn_stream
from criollo.wire.spdy_headers import Deflater

MIB = 1 << 20
SENT = 32 << 10  # a frame of Go's io.Copy
LIMIT_S = 60
HEAD = struct.Struct(">II")
OUT, IN = 7002, 7003  # ports of the pod
SINK = "cat > /dev/null; true"  # the shell stays: containerd ends an exec whose output is closed
SOURCE = "dd if=/dev/zero bs=1M count=%d"
TAKER = (
    "dd of=/dev/null bs=1M count=%d iflag=fullblock; echo end"  # answers before our half is closed: containerd would not after
)
COMMAND = f"nc -ll -p {OUT} -e {SOURCE} & nc -ll -p {IN} -e sh -c '{TAKER}' & exec sleep 100000"


class Peer:
    """A client's end of one SPDY connection."""

    def __init__(self, url: str, protocol: str) -> None:
        split = urlsplit(url)
        self._sock = socket.create_connection((split.hostname or "", split.port or 80), timeout=LIMIT_S)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._deflater, self._next = Deflater(), 1
        self._buffer = bytearray(MIB)
        self._unread = memoryview(b"")
        head = f"POST {split.path}?{split.query} HTTP/1.1\r\nHost: {split.netloc}\r\nConnection: Upgrade\r\n"
        self._sock.sendall(f"{head}Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: {protocol}\r\n\r\n".encode())
        seen = b""
        while b"\r\n\r\n" not in seen:
            if not (more := self._sock.recv(1)):
                raise ConnectionError(f"not upgraded: {seen!r}")
            seen += more
        if b" 101 " not in seen.partition(b"\r\n")[0]:
            raise ConnectionError(f"not upgraded: {seen!r}")

    def open(self, *streams: dict[str, str]) -> list[int]:
        """Open streams, all in one write; returns their ids when all are taken."""
        ids = [self._next + 2 * number for number in range(len(streams))]
        self._next += 2 * len(streams)
        pairs = zip(ids, streams, strict=True)
        self._sock.sendall(b"".join(syn_stream(stream_id, self._deflater.block(each)) for stream_id, each in pairs))
        for _ in ids:  # Go's clients send nothing before
            first, second = HEAD.unpack(self._take(8) or bytes(8))
            if first & 0xFFFF != FrameKind.SYN_REPLY:
                raise ConnectionError(f"no SYN_REPLY but {first:#010x} {second:#010x}; zeros: the connection has ended")
            self._take(second & 0xFFFFFF)
        return ids

    def drain(self, counted: int, last: int) -> tuple[int, bytes]:
        """Read until stream `last` or all ends; returns the size of what came on `counted`, and the content of `last`."""
        count, content = 0, b""
        while True:
            first, second = HEAD.unpack(self._take(8) or bytes(8))
            length, flags = second & 0xFFFFFF, second >> 24
            if not first:  # the connection has ended: a server may leave it at that
                return count, content
            if first == last:
                content += self._take(length)
                if flags & FIN:
                    return count, content
            else:
                self._skip(length)
                if first == counted:
                    count += length

    def count(self, counted: int) -> int:
        """The size of what comes on a stream until it or all ends."""
        count = 0
        while True:
            first, second = HEAD.unpack(self._take(8) or bytes(8))
            self._skip(second & 0xFFFFFF)
            if first == counted:
                count += second & 0xFFFFFF
            if not first or (first == counted and second >> 24 & FIN):
                return count

    def send(self, stream_id: int, size: int, *, ends: bool = True) -> None:
        """Send zeros, and that there are no more."""
        some = (payload_head(stream_id, SENT) + bytes(SENT)) * 8
        for _ in range(size // (8 * SENT)):
            self._sock.sendall(some)
        if ends:
            self.finish(stream_id)

    def finish(self, *stream_ids: int) -> None:
        """End our half of streams."""
        self._sock.sendall(b"".join(payload_head(stream_id, 0, FIN) for stream_id in stream_ids))

    def close(self) -> None:
        self._sock.close()

    def _fill(self) -> int:
        count = self._sock.recv_into(self._buffer)
        self._unread = memoryview(self._buffer)[:count]
        return count

    def _take(self, count: int) -> bytes:
        """So many bytes; none at the end."""
        taken = bytes(self._unread[:count])
        self._unread = self._unread[count:]
        while len(taken) < count:
            if not self._fill():
                return b""
            missing = count - len(taken)
            taken += self._unread[:missing]
            self._unread = self._unread[missing:]
        return taken

    def _skip(self, count: int) -> None:
        while count > len(self._unread):
            count -= len(self._unread)
            if not self._fill():
                raise ConnectionError("the connection has ended within a frame")
        self._unread = self._unread[count:]


class Target(NamedTuple):
    """A daemon with a pod whose container runs."""

    daemon: cribench.Daemon
    pod: str
    container: str


def output(url: str, size: int) -> float:
    """Seconds from the upgrade until the status of a command that writes `size` bytes."""
    return _command(url, size=size)


def true(url: str) -> float:
    """Seconds of connecting and running a silent command."""
    return _command(url, size=0)


def _command(url: str, *, size: int) -> float:
    begin = time.perf_counter()
    with contextlib.closing(Peer(url, "v4.channel.k8s.io")) as peer:
        error, stdout = peer.open({"streamType": "error"}, {"streamType": "stdout"})
        count, status = peer.drain(stdout, error)
    taken = time.perf_counter() - begin
    if count != size or not _succeeded(status):
        raise RuntimeError(f"{count} of {size} bytes came, and {status!r}")
    return taken


def stdin(url: str, size: int) -> float:
    """Seconds until the status of a command that reads `size` bytes."""
    begin = time.perf_counter()
    with contextlib.closing(Peer(url, "v4.channel.k8s.io")) as peer:
        error, stdin_id, _ = peer.open({"streamType": "error"}, {"streamType": "stdin"}, {"streamType": "stdout"})
        peer.send(stdin_id, size)
        _, status = peer.drain(0, error)
    taken = time.perf_counter() - begin
    if not _succeeded(status):
        raise RuntimeError(f"cat has failed: {status!r}")
    return taken


def forward(url: str, size: int, *, out: bool) -> float:
    """Seconds for `size` bytes out of a port of the pod, or into one that answers at their end."""
    begin = time.perf_counter()
    with contextlib.closing(Peer(url, "portforward.k8s.io")) as peer:
        words = {"port": str(OUT if out else IN), "requestID": "0"}
        error, stream = peer.open({**words, "streamType": "error"}, {**words, "streamType": "data"})
        peer.finish(error)
        if not out:
            peer.send(stream, size, ends=False)
        count = peer.count(stream)
    taken = time.perf_counter() - begin
    if count != (size if out else len(b"end\n")):
        raise RuntimeError(f"{count} bytes came")
    return taken


def _succeeded(status: bytes) -> bool:
    return not status or json.loads(status).get("status") == "Success"


def client_limit(size: int) -> float:
    """Seconds in which the client takes `size` bytes from a thread that only writes frames."""
    ours, theirs = socket.socketpair()
    some = (payload_head(3, SENT) + bytes(SENT)) * 8

    def write() -> None:
        for _ in range(size // (8 * SENT)):
            theirs.sendall(some)
        theirs.sendall(payload_head(1, 0, FIN))

    peer = Peer.__new__(Peer)
    peer._sock, peer._buffer, peer._unread = ours, bytearray(MIB), memoryview(b"")
    thread = threading.Thread(target=write)
    begin = time.perf_counter()
    thread.start()
    peer.drain(3, 1)
    taken = time.perf_counter() - begin
    thread.join()
    ours.close()
    theirs.close()
    return taken


async def measure(daemons: list[cribench.Daemon], options: argparse.Namespace, crun: list[str]) -> cribench.Results:
    """All of the above, in rounds that alternate; `crun` are the words before `exec` for a container of the first daemon."""
    results = cribench.Results([daemon.name for daemon in daemons])
    size = options.megabytes * MIB
    for daemon in daemons:
        daemon.options.command = "unused"
    targets = [await _prepare(daemon, options, size) for daemon in daemons]
    before = {each.daemon.name: _resident(each.daemon) for each in targets}
    for number in range(options.rounds + 1):
        values = {each.daemon.name: await _rates(each, size) for each in cribench.turns(targets, number)}
        if number:  # the first is the warm-up
            values[daemons[0].name]["client limit"] = size / client_limit(size)
            results.pair("streaming", values, unit="MB/s", scale=1e-6)
    for number in range(options.commands + 3):
        values = {each.daemon.name: await _times(each) for each in cribench.turns(targets, number)}
        if number > 2:
            values[daemons[0].name]["crun exec"] = _bare([*crun, "exec", targets[0].container, "/bin/true"])
            results.pair("streaming", values)
    if all(before.values()):
        results.pair("streaming", {name: {"RSS before": value} for name, value in before.items()}, unit="MiB", scale=1)
        after = {each.daemon.name: {"RSS after": _resident(each.daemon)} for each in targets}
        results.pair("streaming", after, unit="MiB", scale=1)
    return results


async def _prepare(daemon: cribench.Daemon, options: argparse.Namespace, size: int) -> Target:
    if not await daemon.find_image(options.image):
        await daemon.pull(options.image)
        await daemon.find_image(options.image)
    with _command_of(daemon, ["sh", "-c", COMMAND % (size // MIB, size // MIB)]):
        pod, containers, _ = await daemon.start_pod()
    target = Target(daemon, pod, containers[0])
    for port in (OUT, IN):
        await _wait_listening(target, port)
    return target


@contextlib.contextmanager
def _command_of(daemon: cribench.Daemon, words: list[str]) -> Iterator[None]:
    """The container that is made meanwhile runs this."""
    made = daemon.container_config

    def config(name: str = "main") -> Any:
        found = made(name)
        del found.command[:]
        found.command.extend(words)
        return found

    daemon.container_config = config
    try:
        yield
    finally:
        daemon.container_config = made


async def _wait_listening(target: Target, port: int) -> None:
    request = target.daemon.pb.ExecSyncRequest(
        container_id=target.container,
        cmd=["sh", "-c", f"until grep -q :{port:04X} /proc/net/tcp*; do sleep 0.05; done"],
        timeout=30,
    )
    await target.daemon.call(target.daemon.runtime.ExecSync, request)


async def _exec(target: Target, *words: str, stdin: bool = False) -> str:
    pb, daemon = target.daemon.pb, target.daemon
    request = pb.ExecRequest(container_id=target.container, cmd=words, stdin=stdin, stdout=True, stderr=False)
    return str((await daemon.call(daemon.runtime.Exec, request)).url)


async def _forwarding(target: Target, port: int) -> str:
    pb, daemon = target.daemon.pb, target.daemon
    request = pb.PortForwardRequest(pod_sandbox_id=target.pod, port=[port])
    return str((await daemon.call(daemon.runtime.PortForward, request)).url)


async def _rates(target: Target, size: int) -> dict[str, float]:
    """Bytes per second."""
    return {
        "exec output": size / output(await _exec(target, "dd", "if=/dev/zero", "bs=1M", f"count={size // MIB}"), size),
        "exec stdin": size / stdin(await _exec(target, "sh", "-c", SINK, stdin=True), size),
        "port-forward out": size / forward(await _forwarding(target, OUT), size, out=True),
        "port-forward in": size / forward(await _forwarding(target, IN), size, out=False),
    }


async def _times(target: Target) -> dict[str, float]:
    """Seconds."""
    daemon = target.daemon
    begin = time.perf_counter()
    true(await _exec(target, "/bin/true"))
    streamed = time.perf_counter() - begin
    begin = time.perf_counter()
    request = daemon.pb.ExecSyncRequest(container_id=target.container, cmd=["/bin/true"], timeout=30)
    await daemon.call(daemon.runtime.ExecSync, request)
    return {"exec true, streamed": streamed, "ExecSync true": time.perf_counter() - begin}


def _bare(argv: list[str]) -> float:
    begin = time.perf_counter()
    null = subprocess.DEVNULL
    subprocess.run(argv, check=True, stdin=null, stdout=null, stderr=null)
    return time.perf_counter() - begin


def _resident(daemon: cribench.Daemon) -> float:
    memory = daemon.process.memory()
    return memory["VmRSS"] if memory else 0.0


async def compare(
    places: list[tuple[str, str, int | None]], words: list[str], crun: list[str], counts: dict[str, int]
) -> cribench.Results:
    """Measure daemons given as (name, socket, pid); `words` are cribench's arguments for image and stubs."""
    options = cribench.arguments(["--socket", places[0][1], *words])
    vars(options).update(counts)
    stubs = cribench.load_stubs(options.stubs)
    daemons = [cribench.Daemon(name, (path, pid, None), options, stubs) for name, path, pid in places]
    try:
        return await measure(daemons, options, crun)
    finally:
        for daemon in daemons:
            await daemon.clean()
            await daemon.channel.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--socket", required=True, help="of the first daemon; --crun-root is its runtime's")
    add("--pid", type=int)
    add("--vs", help="socket of a second daemon")
    add("--vs-pid", type=int)
    add("--names", default="ours,containerd")
    add("--stubs", required=True, type=Path, help="directory of generated stubs; they are made when it is empty")
    add("--image", required=True, help="with busybox in it")
    add("--logs", default="/tmp/cribench-logs")
    add("--crun-root", required=True)
    add("--rounds", type=int, default=5)
    add("--commands", type=int, default=30)
    add("--megabytes", type=int, default=512)
    given = parser.parse_args()
    if not (given.stubs / "api_pb2.py").exists():
        import stubs

        stubs.generate(given.stubs)
    names = given.names.split(",")
    places = [(names[0], given.socket, given.pid), *([(names[1], given.vs, given.vs_pid)] if given.vs else [])]
    words = ["--stubs", str(given.stubs), "--image", given.image, "--logs", given.logs]
    counts = {"rounds": given.rounds, "commands": given.commands, "megabytes": given.megabytes}
    load = os.getloadavg()[0]
    asyncio.run(compare(places, words, ["crun", f"--root={given.crun_root}"], counts)).show()
    print(f"load average at the beginning: {load:.1f}")


if __name__ == "__main__":
    main()
