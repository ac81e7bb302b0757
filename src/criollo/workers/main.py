"""The fork server: one small, single-threaded process that forks a child per job, kills it on demand and reaps it.

It has all modules loaded, so a child starts in about two milliseconds and imports nothing once it is confined. The
daemon talks to it over a socket pair; each job brings a socket of its own. The end of a job's socket at the daemon's
side means: kill the child. The end of the server's socket means: kill all and leave, so nothing outlives the daemon.
"""

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Final, NoReturn

import msgspec

from criollo import errors
from criollo.linux import libc, sandbox
from criollo.workers import (
    assemble,
    confine,
    copying,
    decrypt,
    duplicate,
    live,
    messages,
    pack,
    probe,
    relabel,
    seal_check,
    unpack,
    userns,
)
from criollo.workers.messages import (
    AssembleJob,
    CollectJob,
    DevicesJob,
    Ended,
    Failed,
    Job,
    Look,
    PackJob,
    PlaceJob,
    ProbeJob,
    Progress,
    RelabelJob,
    Result,
    UnpackJob,
    UnwrapJob,
    UsernsJob,
    VerifyJob,
)

_PROGRESS_EVERY_S: Final = 1.0
_MAX_TEXT: Final = 4000
_KEPT_BYTES: Final = 16 << 20  # a piece of a layer and what becomes of it, several times
_TREE_OVERHEAD: Final = 2  # a sparse file may be larger than what the stream has

_decode = msgspec.json.Decoder(Job).decode
_decode_look = msgspec.json.Decoder(Look).decode
_encode = msgspec.json.Encoder().encode


def serve(control_fd: int) -> None:
    """Serve jobs until the daemon closes its end of the socket."""
    control = socket.socket(fileno=control_fd)
    control.set_inheritable(False)
    os.chdir("/")
    libc.keep_freed_memory(_KEPT_BYTES)
    gc.freeze()  # children share these pages
    _Server(control).run()


class _Server:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._jobs: dict[int, tuple[socket.socket, int, int]] = {}  # pidfd → answers, answers' fd, pid
        self._sockets: dict[int, int] = {}  # fd of answers → pidfd

    def run(self) -> None:
        while True:
            for fd, _ in self._poll.poll():
                if fd == self._control.fileno():
                    if not self._accept():
                        self._kill_all()
                        return
                elif fd in self._jobs:
                    self._reap(fd)
                elif fd in self._sockets:
                    self._poll.unregister(fd)  # the daemon let go of the job
                    signal.pidfd_send_signal(self._sockets[fd], signal.SIGKILL)

    def _accept(self) -> bool:
        """Start the next job; False when the daemon is gone."""
        try:
            packet, fds, _, _ = socket.recv_fds(self._control, messages.MAX_PACKET_BYTES, messages.MAX_FDS)
        except ConnectionResetError:
            return False
        if not packet:
            return False
        answers, rest = socket.socket(fileno=fds[0]), fds[1:]
        try:
            job = _decode(packet)
            parent = os.getpid()
            pid = os.fork()
        except (OSError, msgspec.DecodeError) as error:
            with contextlib.suppress(OSError):
                answers.send(_encode(Failed("Unavailable", f"cannot start a worker: {error}")))
            answers.close()
        else:
            if pid == 0:
                _child(job, answers, rest, parent)
            pidfd = os.pidfd_open(pid)
            self._jobs[pidfd] = (answers, answers.fileno(), pid)
            self._sockets[answers.fileno()] = pidfd
            self._poll.register(pidfd, select.POLLIN)
            self._poll.register(answers, select.POLLRDHUP)
        for fd in rest:
            os.close(fd)
        return True

    def _reap(self, pidfd: int) -> None:
        answers, fd, pid = self._jobs.pop(pidfd)
        del self._sockets[fd]
        self._poll.unregister(pidfd)
        with contextlib.suppress(KeyError):
            self._poll.unregister(fd)
        _, status = os.waitpid(pid, 0)
        os.close(pidfd)
        with contextlib.suppress(OSError):
            answers.send(_encode(Ended(os.waitstatus_to_exitcode(status))), socket.MSG_DONTWAIT)
        answers.close()

    def _kill_all(self) -> None:
        for pidfd, (_, _, pid) in self._jobs.items():
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.waitpid(pid, 0)


def _child(job: Job, answers: socket.socket, fds: list[int], parent: int) -> NoReturn:
    """The forked process: does the job, answers once, ends."""
    status = 1
    answer: Result | Failed
    try:
        sandbox.die_with_parent(parent)
        gc.disable()  # short-lived, and nothing here makes cycles
        made: list[int] = []
        try:
            if isinstance(job, UsernsJob):
                sandbox.keep_only((answers.fileno(),))
                answer, made = userns.make(job)
            elif isinstance(job, Look):
                _look_until_last(job, answers)
            elif isinstance(job, RelabelJob):
                sandbox.keep_only((answers.fileno(),))
                answer = relabel.relabel(job, _Reporter(answers).report)
            elif isinstance(job, UnwrapJob):
                answer = decrypt.unwrap(job, answers.fileno())
            else:
                answer = _do(job, answers, fds)
            status = 0
        except errors.CriolloError as error:
            answer = _failed(error)
        except MemoryError:
            answer = Failed("Damaged", f"the job wants more than {confine.MEMORY_BYTES >> 20} MiB of memory")
        except Exception as error:  # the border of the process: a bug of ours must reach the log of the daemon
            answer = Failed("HostFailed", f"worker failed: {type(error).__name__}: {error}"[:_MAX_TEXT])
        socket.send_fds(answers, [_encode(answer)], made)
    finally:
        os._exit(status)


def _do(
    job: AssembleJob | UnpackJob | VerifyJob | PackJob | CollectJob | PlaceJob, answers: socket.socket, fds: list[int]
) -> Result:
    progress = _Reporter(answers).report
    if isinstance(job, CollectJob | PlaceJob):
        return _copy(job, answers, fds)
    if isinstance(job, AssembleJob):
        return _assemble(job, answers, fds)
    if isinstance(job, UnpackJob):
        directory, pipe, spare, *seal = fds
        opened = None if job.cipher is None else decrypt.opener(job.cipher)
        confine.confine(directory, (answers.fileno(), pipe, spare, *seal), file_bytes=job.limit_bytes * _TREE_OVERHEAD)
        supply = unpack.Supply(pipe, opened, _can_be_read(spare))
        return unpack.unpack(job, supply, progress, seal_fd=seal[0] if job.sealed else -1)
    directory, pipe = fds
    if isinstance(job, VerifyJob) and job.idle:
        confine.be_idle()
    confine.confine(directory, (answers.fileno(), pipe), file_bytes=0)
    if isinstance(job, VerifyJob):
        return seal_check.verify(job, pipe, progress)
    return pack.pack(job, pipe, progress)


def _can_be_read(fd: int) -> Callable[[], bool]:
    looking = select.poll()
    looking.register(fd, select.POLLIN)
    return lambda: bool(looking.poll(0))


def _assemble(job: AssembleJob, answers: socket.socket, fds: list[int]) -> Result:
    directory, target = fds
    layers = assemble.open_layers(directory, job)
    kept = (answers.fileno(), target, *(layer.fd for layer in layers))
    confine.confine(target, kept, file_bytes=confine.FILE_BYTES, files=max(kept) + confine.OPEN_FILES)
    return assemble.assemble(layers, target, _Reporter(answers).report, sync=job.sync)


def _copy(job: CollectJob | PlaceJob, answers: socket.socket, fds: list[int]) -> Result:
    root, pipe = fds
    own, writing = live.own_descriptors(), isinstance(job, PlaceJob)
    confine.confine_to_container(root, (answers.fileno(), pipe, own), writing=writing, owner=job.ids.root)
    progress = _Reporter(answers).report
    if isinstance(job, PlaceJob):
        return copying.place(job, pipe, own, progress)
    return copying.collect(job, pipe, own, progress)


def _look_until_last(job: Look, answers: socket.socket) -> NoReturn:
    """Answer one look after the other, until nobody asks any more."""
    sandbox.keep_only((answers.fileno(),))
    os.umask(0o022)
    while True:
        try:
            answers.send(_encode(_look(job)))
        except errors.CriolloError as error:
            answers.send(_encode(_failed(error)))
        packet = answers.recv(messages.MAX_PACKET_BYTES)
        if not packet:
            os._exit(0)
        job = _decode_look(packet)


def _look(job: Look) -> Result:
    if isinstance(job, ProbeJob):
        return probe.probe(job)
    return probe.devices(job) if isinstance(job, DevicesJob) else duplicate.duplicate(job)


def _failed(error: errors.CriolloError) -> Failed:
    return Failed(type(error).__name__, str(error)[:_MAX_TEXT])


class _Reporter:
    """Tells the daemon that the job goes on, at most once a second."""

    def __init__(self, answers: socket.socket) -> None:
        self._answers = answers
        self._next = 0.0

    def report(self, done_bytes: int) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _PROGRESS_EVERY_S
        with contextlib.suppress(BlockingIOError):
            self._answers.send(_encode(Progress(done_bytes)), socket.MSG_DONTWAIT)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
