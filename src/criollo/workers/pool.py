"""The daemon's side of the workers: starts the fork server when first needed, hands it jobs, kills what must go.

    workers = Workers()
    async with workers.unpack(directory_fd, "gzip") as job:
        ...                                   # write the compressed bytes to job.pipe_fd, which blocks
        unpacked = await job.result()         # closes the pipe, waits for the end
    ...
    await workers.close()

A job lives as long as its `async with`: leaving it, by whatever way, kills the process and waits until it is gone. A job
that makes no progress for its limit is killed and fails with TimedOut; a writer then gets EPIPE, so nothing blocks for
ever. If the block fails after the worker did, the worker's error is the one that is raised. The fork server leaves when
it had nothing to do for a minute, and is started again by the next job; should it die, its jobs fail and the next one
starts a new one.
"""

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import Final, Generic, Protocol, Self, TypeVar

import msgspec

from criollo import errors
from criollo.aio import process, threads
from criollo.aio.cleanup import cleanup
from criollo.errors import CriolloError, HostFailed, TimedOut, Unavailable
from criollo.linux.namespaces import Kind
from criollo.telemetry.log import get_logger
from criollo.workers.messages import (
    MAX_FDS,
    MAX_PACKET_BYTES,
    Answer,
    Ended,
    Failed,
    Job,
    Namespaces,
    Packed,
    PackJob,
    Probe,
    ProbeJob,
    Progress,
    Result,
    Unpacked,
    UnpackJob,
    UsernsJob,
)
from criollo.workers.tar import MAX_ENTRIES

log = get_logger(__name__)

LIMIT_BYTES: Final = 256 << 30  # of one layer, unpacked
STALL_S: Final = 120.0
IDLE_S: Final = 60.0
_KILL_LIMIT_S: Final = 10.0
_USERNS_LIMIT_S: Final = 10.0
_PIPE_BYTES: Final = 1 << 20
_START: Final = "import sys; sys.path[:] = sys.argv[2:]; from criollo.workers.main import serve; serve(int(sys.argv[1]))"

R = TypeVar("R", Unpacked, Packed)

_decode: Callable[[bytes], Answer] = msgspec.json.Decoder(Answer).decode
_encode = msgspec.json.Encoder().encode


class Workers:
    """Runs jobs in child processes; see the module. `unpacks` and `others` bound how many run at once."""

    def __init__(self, *, unpacks: int = 3, others: int = 16, idle_s: float = IDLE_S) -> None:
        self._unpacks = asyncio.Semaphore(unpacks)
        self._others = asyncio.Semaphore(others)
        self._server = _ForkServer(idle_s)

    @contextlib.asynccontextmanager
    async def unpack(
        self,
        directory_fd: int,
        compression: str = "auto",
        *,
        limit_bytes: int = LIMIT_BYTES,
        limit_entries: int = MAX_ENTRIES,
        stall_s: float = STALL_S,
    ) -> AsyncIterator["Transfer[Unpacked]"]:
        """Unpack a layer into an empty directory: write its bytes to `job.pipe_fd`, then ask for `job.result()`.

        Raises (from the block's end, or from `result`):
            Damaged: the stream or an entry is malformed.
            Exhausted: the disk is full, or the layer is over a limit.
            TimedOut: no progress for `stall_s` seconds.
            Unavailable: the worker was killed.
        """
        job = UnpackJob(compression=compression, limit_bytes=limit_bytes, limit_entries=limit_entries)
        async with self._unpacks, self._piped(job, directory_fd, Unpacked, what="unpack layer", stall_s=stall_s) as transfer:
            yield transfer

    @contextlib.asynccontextmanager
    async def pack(self, directory_fd: int, *, stall_s: float = STALL_S) -> AsyncIterator["Transfer[Packed]"]:
        """Write a layer directory as a tar: read `job.pipe_fd` to its end, then ask for `job.result()`.

        Raises (from the block's end, or from `result`):
            HostFailed: the directory cannot be read.
            TimedOut: no progress for `stall_s` seconds, also when nobody reads the pipe.
        """
        async with self._others, self._piped(PackJob(), directory_fd, Packed, what="pack layer", stall_s=stall_s) as transfer:
            yield transfer

    async def probe(self, path: str, timeout_s: float, *, create: bool = False) -> Probe:
        """What a volume source is; `create` makes a missing one a directory (mode 0755).

        Raises:
            TimedOut: the file system did not answer within `timeout_s` seconds.
            CriolloError: it cannot be looked at.
        """
        answer = await self._simple(ProbeJob(path=path, create=create), f"look at volume source {path!r}", timeout_s)
        assert isinstance(answer, Probe)
        return answer

    @contextlib.asynccontextmanager
    async def userns(self, wish: "UsernsWish", kinds: Collection[Kind]) -> AsyncIterator[Mapping[Kind, int]]:
        """A new user namespace, and those of `kinds` owned by it, as descriptors that live until the block ends.

        Raises:
            HostFailed: the kernel refused, for example a map.
        """
        maps = [_map_lines(mappings) for mappings in (wish.uids, wish.gids)]
        job = UsernsJob(uid_map=maps[0], gid_map=maps[1], kinds=tuple(str(kind) for kind in kinds))
        async with self._others:
            running = await self._server.start(job, (), "make a user namespace", _USERNS_LIMIT_S)
            async with running.held():
                answer = await running.outcome()
        try:
            if not isinstance(answer, Namespaces) or len(answer.kinds) != len(running.fds):
                raise HostFailed("cannot make a user namespace: the worker's answer is malformed")
            yield {Kind(kind): fd for kind, fd in zip(answer.kinds, running.fds, strict=True)}
        finally:
            for fd in running.fds:
                os.close(fd)

    async def close(self) -> None:
        """End the fork server and with it all jobs."""
        await self._server.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @contextlib.asynccontextmanager
    async def _piped(
        self, job: UnpackJob | PackJob, directory_fd: int, kind: type[R], *, what: str, stall_s: float
    ) -> AsyncIterator["Transfer[R]"]:
        ours, theirs = _pipe(writing=isinstance(job, UnpackJob))
        try:
            running = await self._server.start(job, (directory_fd, theirs), what, stall_s)
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        transfer = Transfer(running, ours, kind)
        try:
            async with running.held():
                yield transfer
        finally:
            transfer.close_pipe()  # last: an early end of the stream must not look like the worker's own failure

    async def _simple(self, job: Job, what: str, timeout_s: float) -> Result:
        async with self._others:
            running = await self._server.start(job, (), what, timeout_s)
            async with running.held():
                return await running.outcome()


class Running:
    """A job's process: its answers arrive on a socket, read on the loop; letting go of the socket kills it."""

    def __init__(self, answers: socket.socket, what: str, stall_s: float, on_end: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_end = on_end
        self._answers, self._what, self._stall_s = answers, what, stall_s
        self._outcome: asyncio.Future[Result] = self._loop.create_future()
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self._status: int | None = None
        self.fds: list[int] = []  # came with the answer; whoever takes the answer closes them
        self._limit = self._loop.call_later(stall_s, self._stalled)
        self._loop.add_reader(answers.fileno(), self._readable)

    async def outcome(self) -> Result:
        """The job's result, or its error."""
        return await asyncio.shield(self._outcome)

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Keep the job for a block; afterwards its process is gone."""
        try:
            yield
        except Exception as error:
            while not self._gone.done() and self._readable():
                pass
            failure = self._outcome.exception() if self._outcome.done() else None
            if failure is None or failure is error:
                raise
            raise failure from error  # the worker failed first; the block merely noticed
        finally:
            self.kill()
            await cleanup(self._wait_gone(), limit_s=2 * _KILL_LIMIT_S, what=self._what)
            if self._outcome.done():
                self._outcome.exception()  # seen, also when nobody asked

    def kill(self) -> None:
        """SIGKILL the process, by the fork server; nothing happens if it has ended."""
        self._limit.cancel()
        with contextlib.suppress(OSError):
            self._answers.shutdown(socket.SHUT_WR)

    async def _wait_gone(self) -> None:
        try:
            async with asyncio.timeout(_KILL_LIMIT_S):
                await asyncio.shield(self._gone)
        except TimeoutError:
            log.warning("worker does not end after SIGKILL: it is blocked in the kernel", what=self._what)
            self._end()

    def _readable(self) -> bool:
        """Take one packet; False when there is none."""
        try:
            packet, fds, _, _ = socket.recv_fds(
                self._answers, MAX_PACKET_BYTES, MAX_FDS, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return False
        except OSError:
            packet, fds = b"", []
        self.fds += fds
        if not packet:
            self._end()
            return False
        try:
            self._take(_decode(packet))
        except msgspec.DecodeError as error:
            self._fail(HostFailed(f"cannot {self._what}: the worker's answer is malformed: {error}"))
            self.kill()
        return True

    def _take(self, answer: Answer) -> None:
        if isinstance(answer, Progress):
            self._limit.cancel()
            self._limit = self._loop.call_later(self._stall_s, self._stalled)
        elif isinstance(answer, Failed):
            kind = _ERRORS.get(answer.error, HostFailed)
            self._fail(kind(answer.text))
        elif isinstance(answer, Ended):
            self._status = answer.status
        elif not self._outcome.done():
            self._limit.cancel()
            self._outcome.set_result(answer)

    def _stalled(self) -> None:
        self._fail(TimedOut(f"cannot {self._what}: no progress for {self._stall_s:g} s"))
        self.kill()

    def _end(self) -> None:
        """The socket is closed from the other side: the process is gone."""
        if self._gone.done():
            return
        self._limit.cancel()
        self._loop.remove_reader(self._answers.fileno())
        self._answers.close()
        how = "its fork server ended" if self._status is None else _how_ended(self._status)
        self._fail(Unavailable(f"cannot {self._what}: the worker was killed ({how}); try again"))
        self._gone.set_result(None)
        self._on_end()

    def _fail(self, error: CriolloError) -> None:
        self._limit.cancel()
        if not self._outcome.done():
            self._outcome.set_exception(error)


class _Mapping(Protocol):
    @property
    def host_id(self) -> int: ...
    @property
    def container_id(self) -> int: ...
    @property
    def length(self) -> int: ...


class UsernsWish(Protocol):
    """The mappings of a user namespace (`model.pod.UserNamespace`, which is a floor above)."""

    @property
    def uids(self) -> Sequence[_Mapping]: ...
    @property
    def gids(self) -> Sequence[_Mapping]: ...


def _map_lines(mappings: Sequence[_Mapping]) -> str:
    return "".join(f"{each.container_id} {each.host_id} {each.length}\n" for each in mappings)


class Transfer(Generic[R]):
    """A running job with a pipe: `pipe_fd` is a blocking descriptor, for a thread."""

    def __init__(self, running: Running, pipe_fd: int, kind: type[R]) -> None:
        self._running = running
        self._kind: type[R] = kind
        self.pipe_fd = pipe_fd

    async def result(self) -> R:
        """Close the pipe, which tells the worker that all was written, and wait for the job's end."""
        self.close_pipe()
        answer = await self._running.outcome()
        if not isinstance(answer, self._kind):
            raise HostFailed(f"the worker answered {type(answer).__name__}")
        return answer

    def close_pipe(self) -> None:
        if self.pipe_fd >= 0:
            os.close(self.pipe_fd)
            self.pipe_fd = -1


class _ForkServer:
    """The process behind `workers.main`, as long as there are jobs and a while longer."""

    def __init__(self, idle_s: float) -> None:
        self._idle_s = idle_s
        self._lock = asyncio.Lock()
        self._control: socket.socket | None = None
        self._living: dict[int, asyncio.Future[None]] = {}  # pidfds of servers, also of those that are leaving
        self._jobs = 0
        self._timer: asyncio.TimerHandle | None = None

    async def start(self, job: Job, fds: Sequence[int], what: str, stall_s: float) -> Running:
        """Start a job. Descriptors are copied; the caller keeps its own.

        Raises:
            Unavailable: no process can be started.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                await self._send(_encode(job), [theirs.fileno(), *fds])
        except BaseException:
            ours.close()
            raise
        ours.setblocking(False)
        self._jobs += 1
        return Running(ours, what, stall_s, self._job_ended)

    async def _send(self, packet: bytes, fds: list[int]) -> None:
        async with self._lock:
            for _ in range(2):
                if self._control is None:
                    await self._launch()
                assert self._control is not None
                try:
                    socket.send_fds(self._control, [packet], fds, socket.MSG_DONTWAIT)
                except (BrokenPipeError, ConnectionResetError):
                    log.warning("the fork server of the workers ended; starting it again")
                    self._drop()
                except OSError as error:
                    raise Unavailable(f"cannot hand a job to the workers: {error.strerror}; try again") from error
                else:
                    return
        raise Unavailable("cannot start a worker: its fork server ends at once; see the log for its complaint")

    async def _launch(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        paths = [path for path in sys.path if os.path.isabs(path)]
        with theirs:
            argv = [sys.executable, "-I", "-S", "-B", "-c", _START, str(theirs.fileno()), *paths]
            try:
                child = await threads.spawning(process.spawn, argv, pass_fds=(theirs.fileno(),))
            except BaseException:
                ours.close()
                raise
        self._control = ours
        loop, pidfd = asyncio.get_running_loop(), os.pidfd_open(process.disown(child))
        self._living[pidfd] = loop.create_future()
        loop.add_reader(pidfd, self._reap, pidfd)

    def _job_ended(self) -> None:
        self._jobs -= 1
        if self._timer is not None:
            self._timer.cancel()
        if not self._jobs:
            self._timer = asyncio.get_running_loop().call_later(self._idle_s, self._leave_if_idle)

    def _leave_if_idle(self) -> None:
        if not self._jobs and not self._lock.locked():
            self._drop()

    def _drop(self) -> None:
        """Close our end: the server kills its children and leaves."""
        if self._control is not None:
            self._control.close()
            self._control = None

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._drop()
        for pidfd, ended in list(self._living.items()):
            try:
                async with asyncio.timeout(_KILL_LIMIT_S):
                    await asyncio.shield(ended)
            except TimeoutError:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                await asyncio.shield(ended)

    def _reap(self, pidfd: int) -> None:
        asyncio.get_running_loop().remove_reader(pidfd)
        process.reap(pidfd)
        os.close(pidfd)
        self._living.pop(pidfd).set_result(None)


def _pipe(*, writing: bool) -> tuple[int, int]:
    """A wide pipe: our end, the worker's end."""
    read_end, write_end = os.pipe()
    with contextlib.suppress(OSError):
        fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)  # refused beyond a user's share: then it stays narrow
    return (write_end, read_end) if writing else (read_end, write_end)


def _how_ended(status: int) -> str:
    return f"exit status {status}" if status >= 0 else f"signal {-status}"


_ERRORS: Final[dict[str, type[CriolloError]]] = {
    kind.__name__: kind
    for kind in (errors.Damaged, errors.Exhausted, errors.HostFailed, errors.Unsupported, errors.TimedOut, errors.Unavailable)
}
