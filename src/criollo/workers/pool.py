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
import select
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Final, Generic, Protocol, Self, TypeVar

from criollo.errors import HostFailed
from criollo.linux.namespaces import NamespaceKind
from criollo.telemetry.trail import waiting
from criollo.workers.fork_server import ForkServer
from criollo.workers.messages import (
    MAX_ENTRIES,
    Assembled,
    AssembleJob,
    Cipher,
    CollectJob,
    Copied,
    Devices,
    DevicesJob,
    Duplicated,
    DuplicateJob,
    Namespaces,
    Packed,
    PackJob,
    PlaceJob,
    Probe,
    ProbeJob,
    RelabelJob,
    Relabelled,
    Unpacked,
    UnpackJob,
    UnwrapJob,
    Unwrapped,
    UsernsJob,
    Verified,
    VerifyJob,
)
from criollo.workers.prober import Prober
from criollo.workers.running import Running
from criollo.workers.spare import Spare

LIMIT_BYTES: Final = 256 << 30  # of one layer, unpacked
STALL_S: Final = 120.0
IDLE_S: Final = 60.0
_USERNS_LIMIT_S: Final = 10.0
_UNWRAP_LIMIT_S: Final = 60.0
_PIPE_BYTES: Final = 1 << 20

COPY_STALL_S: Final = 3600.0  # a person may be at the other end, reading page by page

R = TypeVar("R", Unpacked, Packed, Copied)


class Workers:
    """Runs jobs in child processes; see the module. `unpacks`, `copies` and `others` bound how many run at once."""

    def __init__(
        self, *, unpacks: int = 12, others: int = 16, copies: int = 8, idle_s: float = IDLE_S, processors: int = 0
    ) -> None:
        """`processors`: how many layers may share, 0 for those that this process may use."""
        self._unpacks = asyncio.Semaphore(unpacks)
        self._copies = asyncio.Semaphore(copies)
        self._others = asyncio.Semaphore(others)
        self._spare = Spare(processors)
        self._server = ForkServer(idle_s)
        self._prober = Prober(self._server, idle_s=idle_s / 2)

    @contextlib.asynccontextmanager
    async def unpack(
        self,
        directory_fd: int,
        compression: str = "auto",
        *,
        limit_bytes: int = LIMIT_BYTES,
        limit_entries: int = MAX_ENTRIES,
        cipher: Cipher | None = None,
        seal_fd: int | None = None,
        stall_s: float = STALL_S,
    ) -> AsyncIterator["Transfer[Unpacked]"]:
        """Unpack a layer into an empty directory: write its bytes to `job.pipe_fd`, then ask for `job.result()`.

        With `cipher` they are decrypted first. `seal_fd` is an empty file, for the layer's seal (`workers.seal`).

        Raises (from the block's end, or from `result`):
            Damaged: the stream or an entry is malformed.
            Exhausted: the disk is full, or the layer is over a limit.
            TimedOut: no progress for `stall_s` seconds.
            Unavailable: the worker was killed.
        """
        job = UnpackJob(
            compression=compression,
            limit_bytes=limit_bytes,
            limit_entries=limit_entries,
            cipher=cipher,
            sealed=seal_fd is not None,
        )
        async with self._unpacks:
            with self._spare.counted() as spare_fd:
                fds = (directory_fd, spare_fd) if seal_fd is None else (directory_fd, spare_fd, seal_fd)
                async with self._piped(job, fds, Unpacked, what="unpack layer", stall_s=stall_s) as transfer:
                    yield transfer

    @contextlib.asynccontextmanager
    async def pack(
        self, directory_fd: int, compression: str = "none", *, stall_s: float = STALL_S
    ) -> AsyncIterator["Transfer[Packed]"]:
        """Write a layer directory as a tar, by gzip, zstd or plain: read `job.pipe_fd` to its end, then ask for `job.result()`.

        Raises (from the block's end, or from `result`):
            HostFailed: the directory cannot be read.
            TimedOut: no progress for `stall_s` seconds, also when nobody reads the pipe.
        """
        job = PackJob(compression=compression)
        async with self._others, self._piped(job, (directory_fd,), Packed, what="pack layer", stall_s=stall_s) as transfer:
            yield transfer

    @contextlib.asynccontextmanager
    async def copy(
        self, root_fd: int, job: CollectJob | PlaceJob, *, stall_s: float = COPY_STALL_S
    ) -> AsyncIterator["Transfer[Copied]"]:
        """Read a path of a container's root as a tar from `job.pipe_fd`, or write one to it; then ask for `job.result()`.

        Raises (from the block's end, or from `result`):
            CriolloError: the path is not there, or what is there does not let it be done; the text says why.
            TimedOut: no progress for `stall_s` seconds.
        """
        async with self._copies, self._piped(job, (root_fd,), Copied, what=f"copy {job.path!r}", stall_s=stall_s) as transfer:
            yield transfer

    async def verify(self, directory_fd: int, seal_fd: int, job: VerifyJob, *, stall_s: float = STALL_S) -> Verified:
        """Hold a layer's directory against its seal.

        Raises:
            Damaged: the seal is broken.
            TimedOut: no progress for `stall_s` seconds.
            HostFailed: something cannot be read.
        """
        async with self._others:
            running = await self._server.start(job, (directory_fd, seal_fd), "check layer", stall_s)
            async with running.held():
                answer = await running.outcome()
        if not isinstance(answer, Verified):
            raise HostFailed(f"cannot check a layer: the worker answered {type(answer).__name__}")
        return answer

    async def assemble(self, layers_fd: int, target_fd: int, job: AssembleJob, *, stall_s: float = STALL_S) -> Assembled:
        """Make one tree, in the empty directory `target_fd`, of layers that stand in the directory `layers_fd`.

        Cancelled, it leaves a half-made tree; so do the errors.

        Raises:
            Exhausted: the disk is full.
            HostFailed: the kernel refused.
            TimedOut: no progress for `stall_s` seconds.
        """
        async with self._others:
            running = await self._server.start(job, (layers_fd, target_fd), "put together layers", stall_s)
            async with running.held():
                answer = await running.outcome()
        if not isinstance(answer, Assembled):
            raise HostFailed(f"cannot put together layers: the worker answered {type(answer).__name__}")
        return answer

    async def unwrap(self, job: UnwrapJob) -> bytes:
        """What is inside a JWE, by the private keys of this node.

        Raises:
            Unsupported: no key opens it, or it is of a kind that is not read.
        """
        async with self._others:
            running = await self._server.start(job, (), f"unwrap the key of {job.what}", _UNWRAP_LIMIT_S)
            async with running.held():
                answer = await running.outcome()
        if not isinstance(answer, Unwrapped):
            raise HostFailed(f"cannot unwrap a key: the worker answered {type(answer).__name__}")
        return answer.content

    async def probe(self, path: str, timeout_s: float, *, create: bool = False, root: str = "") -> Probe:
        """What a volume source is; `create` makes a missing one a directory (mode 0755). `root`: it lies below this directory,
        and no link leads it out.

        Raises:
            TimedOut: the file system did not answer within `timeout_s` seconds.
            CriolloError: it cannot be looked at.
        """
        async with self._others:
            with waiting(f"look at volume source {path}"):
                job = ProbeJob(path=path, create=create, root=root)
                return await self._prober.ask(job, Probe, f"look at volume source {root + path!r}", timeout_s=timeout_s)

    async def devices(self, path: str, timeout_s: float) -> Devices:
        """The device node at a path, or all below a directory. Raises TimedOut, CriolloError."""
        async with self._others:
            with waiting(f"look at device {path}"):
                return await self._prober.ask(DevicesJob(path=path), Devices, f"look at device {path!r}", timeout_s=timeout_s)

    async def duplicate(self, job: DuplicateJob, timeout_s: float) -> Duplicated:
        """Copy what a path of this node has.

        Raises:
            TimedOut: the file system did not answer, or the copy took longer than `timeout_s` seconds.
            Exhausted: it is more than the limits.
            CriolloError: it cannot be copied.
        """
        async with self._others:
            with waiting(f"copy {job.path}"):
                return await self._prober.ask(job, Duplicated, f"copy {job.path!r}", timeout_s=timeout_s)

    async def relabel(self, path: str, label: str, *, skip_if_right: bool = False, stall_s: float = STALL_S) -> Relabelled:
        """Give a volume and all below it an SELinux label; with `skip_if_right` only if its top has another one.

        Raises:
            Denied: the node itself lives by the label of that place.
            TimedOut: no progress for `stall_s` seconds.
            CriolloError: the kernel refused.
        """
        job = RelabelJob(path=path, label=label, skip_if_right=skip_if_right)
        async with self._others:
            with waiting(f"relabel volume {path}"):
                running = await self._server.start(job, (), f"relabel volume {path!r}", stall_s)
                async with running.held():
                    answer = await running.outcome()
        if not isinstance(answer, Relabelled):
            raise HostFailed(f"cannot relabel volume {path!r}: the worker answered {type(answer).__name__}")
        return answer

    @contextlib.asynccontextmanager
    async def userns(
        self, wish: "UsernsWish", kinds: Collection[NamespaceKind], sysctls: Mapping[str, str] | None = None
    ) -> AsyncIterator[Mapping[NamespaceKind, int]]:
        """A new user namespace, and those of `kinds` owned by it, as descriptors that live until the block ends.

        Sysctls (checked names, as in `linux.namespaces`) are written inside.

        Raises:
            HostFailed: the kernel refused, for example a map.
            OSError: it refused a sysctl; `filename` names its file.
        """
        maps = [_map_lines(mappings) for mappings in (wish.uids, wish.gids)]
        names = tuple(str(kind) for kind in kinds)
        job = UsernsJob(uid_map=maps[0], gid_map=maps[1], kinds=names, sysctls=dict(sysctls or {}))
        fds: list[int] = []
        try:
            async with self._others:
                running = await self._server.start(job, (), "make a user namespace", _USERNS_LIMIT_S)
                async with running.held():
                    answer = await running.outcome()
                    fds = running.take_fds()
            if isinstance(answer, Namespaces) and answer.refused:
                raise OSError(answer.errno, os.strerror(answer.errno), answer.refused)
            if not isinstance(answer, Namespaces) or len(answer.kinds) != len(fds):
                raise HostFailed("cannot make a user namespace: the worker's answer is malformed")
            yield {NamespaceKind(kind): fd for kind, fd in zip(answer.kinds, fds, strict=True)}
        finally:
            for fd in fds:
                os.close(fd)

    async def close(self) -> None:
        """End the fork server and with it all jobs."""
        await self._prober.close()
        await self._server.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @contextlib.asynccontextmanager
    async def _piped(
        self, job: UnpackJob | PackJob | CollectJob | PlaceJob, fds: Sequence[int], kind: type[R], *, what: str, stall_s: float
    ) -> AsyncIterator["Transfer[R]"]:
        """A job whose descriptors are `fds` with its end of a pipe in the second place."""
        ours, theirs = _pipe(writing=isinstance(job, UnpackJob | PlaceJob))
        try:
            running = await self._server.start(job, (fds[0], theirs, *fds[1:]), what, stall_s)
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        transfer = Transfer(running, ours, kind)
        try:
            async with running.held(transfer.has_no_reader):
                yield transfer
        finally:
            transfer.close_pipe()  # last: an early end of the stream must not look like the worker's own failure


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

    def has_no_reader(self) -> bool:
        """Whether the worker has let go of a pipe that we write to, which it does by ending."""
        if self.pipe_fd < 0:
            return False
        poll = select.poll()
        poll.register(self.pipe_fd, 0)
        return any(events & select.POLLERR for _, events in poll.poll(0))

    def close_pipe(self) -> None:
        if self.pipe_fd >= 0:
            os.close(self.pipe_fd)
            self.pipe_fd = -1


def _pipe(*, writing: bool) -> tuple[int, int]:
    """A wide pipe: our end, the worker's end."""
    read_end, write_end = os.pipe()
    with contextlib.suppress(OSError):
        fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)  # refused beyond a user's share: then it stays narrow
    return (write_end, read_end) if writing else (read_end, write_end)
