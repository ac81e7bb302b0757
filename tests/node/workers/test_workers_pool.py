"""workers.pool with real processes: killed when they must go, confined while they live, none left behind."""

import asyncio
import contextlib
import gc
import gzip
import hashlib
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec
import pytest
from support import leaks
from support.dead_mount import dead_mount, needs_fuse
from support.tars import END, entry, header
from support.waiting import cancelled_within, skip_ahead, until

from criollo.aio import process, threads
from criollo.errors import Damaged, Exhausted, HostFailed, TimedOut, Unavailable
from criollo.linux import mount, proctree
from criollo.linux.namespaces import NamespaceKind
from criollo.workers.messages import DuplicateJob, Namespaces, Unpacked
from criollo.workers.pool import Workers
from criollo.workers.running import Running

pytestmark = pytest.mark.node

T = TypeVar("T")


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def fork_server() -> int:
    """The child of this process that is one; servers of other tests' fixtures are children, too."""
    (pid,) = leaks.fork_servers()
    return pid


@pytest.fixture(autouse=True)
def nothing_left(tmp_path: Path) -> Iterator[None]:
    threads.close()
    descriptors = leaks.descriptors()
    yield
    threads.close()
    assert leaks.new_descriptors(descriptors) == []
    assert mount.below(tmp_path) == []
    assert leaks.fork_servers() == []


@pytest.fixture
def layer(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "layer").mkdir()
    fd = os.open(tmp_path / "layer", os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def run(body: Callable[[Workers], Coroutine[object, object, T]], **options: float) -> T:
    async def inside() -> T:
        async with Workers(**options) as workers:  # type: ignore[arg-type]
            return await body(workers)

    return asyncio.run(inside())


async def unpack(workers: Workers, layer: int, archive: bytes) -> Unpacked:
    async with workers.unpack(layer) as job:
        await threads.transfers(feed, job.pipe_fd, archive)
        return await job.result()


def feed(fd: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


def endless(fd: int) -> None:
    """A file that never ends, until nobody reads it."""
    feed(fd, header(b"f", size=b"%011o\0" % (7 << 30)))
    while True:
        feed(fd, bytes(1 << 16))


def test_worker_is_confined(layer: int, tmp_path: Path) -> None:
    async def body(workers: Workers) -> None:
        async with workers.unpack(layer, "none") as job:
            feed(job.pipe_fd, entry(b"here") + header(b"f", size=b"%011o\0" % 100))
            await until((tmp_path / "layer/f").exists)
            (pid,) = children(fork_server())
            status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            capabilities = sum(1 << number for number in (0, 1, 3, 4, 21, 27, 31))
            own = int(Path("/proc/self/status").read_text().split("CapBnd:\t")[1][:16], 16)
            assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == int(status["CapBnd"], 16) == capabilities & own
            assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
            assert status["NoNewPrivs"] == "1"
            assert status["Threads"] == "1"
            assert status["Umask"] == "0000"
            assert sorted(os.listdir(f"/proc/{pid}/root")) == ["f", "here"]
            assert len(Path(f"/proc/{pid}/mountinfo").read_text().splitlines()) == 1
            assert Path(f"/proc/{pid}/net/dev").read_text().count(":") == 1  # only lo
            kinds = sorted(os.readlink(f"/proc/{pid}/fd/{fd}").partition(":")[0] for fd in os.listdir(f"/proc/{pid}/fd"))
            assert kinds[:3] == ["/dev/null"] * 3
            assert sorted(kinds[3:]) == ["/f", "anon_inode", "pipe", "socket"]  # an eventfd: processors to spare
            limits = Path(f"/proc/{pid}/limits").read_text()
            assert "Max address space         1073741824" in limits
            assert "Max open files            64" in limits

    run(body, processors=1)


def test_leaving_the_block_kills_the_worker(layer: int) -> None:
    async def body(workers: Workers) -> None:
        with contextlib.suppress(KeyError):
            async with workers.unpack(layer) as job:
                feed(job.pipe_fd, entry(b"f") * 3)
                server = fork_server()
                await until(lambda: len(children(server)) == 1)
                raise KeyError
        assert children(server) == []

    run(body)


def test_cancelling_kills_the_worker_and_the_writer_ends(layer: int) -> None:
    async def body(workers: Workers) -> None:
        started = asyncio.Event()

        async def pull() -> None:
            async with workers.unpack(layer, "none", stall_s=1) as job:
                (pid,) = await until(lambda: children(fork_server()))
                os.kill(pid, signal.SIGSTOP)  # a worker that hangs: the writer blocks on a full pipe
                started.set()
                await threads.transfers(endless, job.pipe_fd)

        task = asyncio.get_running_loop().create_task(pull())
        await started.wait()
        task.cancel()
        with pytest.raises((asyncio.CancelledError, TimedOut)):
            await task
        assert children(fork_server()) == []

    run(body)


def test_worker_without_progress_is_killed(layer: int) -> None:
    async def body(workers: Workers) -> None:
        with pytest.raises(TimedOut, match=r"no progress for 0\.3 s"):  # noqa: PT012
            async with workers.unpack(layer, stall_s=0.3) as job:
                feed(job.pipe_fd, entry(b"f"))
                pipe, job.pipe_fd = job.pipe_fd, -1  # a writer that never closes
                try:
                    await job.result()
                finally:
                    os.close(pipe)
        assert children(fork_server()) == []

    run(body)


def test_workers_error_wins_over_the_broken_pipe(layer: int) -> None:
    async def body(workers: Workers) -> None:
        with pytest.raises(Damaged, match="gzip") as raised:
            async with workers.unpack(layer) as job:
                await threads.transfers(feed, job.pipe_fd, b"\x1f\x8b\x08" + os.urandom(4 << 20))
        assert isinstance(raised.value.__cause__, BrokenPipeError)

    run(body)


def test_writers_own_error_stays(layer: int) -> None:
    async def body(workers: Workers) -> None:
        with pytest.raises(Damaged, match="blob is broken"):  # noqa: PT012
            async with workers.unpack(layer) as job:
                feed(job.pipe_fd, gzip.compress(entry(b"f") + END)[:10])
                raise Damaged("blob is broken")

    run(body)


def test_killed_worker_is_told_and_the_next_job_works(layer: int) -> None:
    async def body(workers: Workers) -> None:
        with pytest.raises(Unavailable, match="signal 9"):  # noqa: PT012
            async with workers.unpack(layer) as job:
                (pid,) = await until(lambda: children(fork_server()))
                os.kill(pid, signal.SIGKILL)
                await job.result()
        assert (await unpack(workers, layer, entry(b"f") + END)).inodes == 1

    run(body)


def test_killed_worker_wins_over_the_broken_pipe(layer: int) -> None:
    async def body(workers: Workers) -> None:
        with pytest.raises(Unavailable, match="signal 9") as raised:  # noqa: PT012
            async with workers.unpack(layer) as job:
                (pid,) = await until(lambda: children(fork_server()))
                await until(lambda: not holds_pipe(fork_server()))  # it has passed the pipe on
                os.kill(fork_server(), signal.SIGSTOP)  # it learns of the end later than we do
                os.kill(pid, signal.SIGKILL)
                await until(lambda: not alive(pid))
                asyncio.get_running_loop().call_soon(os.kill, fork_server(), signal.SIGCONT)
                feed(job.pipe_fd, b"more")
        assert isinstance(raised.value.__cause__, BrokenPipeError)

    run(body)


def holds_pipe(pid: int) -> bool:
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return any(target.startswith("pipe:") for target in found)


def test_dead_fork_server_is_told_and_started_again(layer: int) -> None:
    async def body(workers: Workers) -> None:
        with pytest.raises(Unavailable, match="fork server"):  # noqa: PT012
            async with workers.unpack(layer) as job:
                (pid,) = await until(lambda: children(fork_server()))
                os.kill(fork_server(), signal.SIGKILL)
                await until(lambda: not alive(pid))
                await job.result()
        assert (await unpack(workers, layer, entry(b"f") + END)).inodes == 1

    run(body)


def test_fork_server_dies_with_its_daemon(tmp_path: Path) -> None:
    program = (
        "import asyncio, os\n"
        "from criollo.workers.pool import Workers\n"
        "async def main():\n"
        "    workers = Workers()\n"
        f"    async with workers.unpack(os.open({str(tmp_path)!r}, os.O_RDONLY)) as job:\n"
        "        print('running', flush=True)\n"
        "        await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as daemon:
        try:
            assert daemon.stdout is not None
            assert daemon.stdout.readline() == b"running\n"
            family = asyncio.run(until(lambda: descendants(daemon.pid)))
        finally:
            daemon.kill()
    asyncio.run(until(lambda: not [pid for pid in family if alive(pid)]))


def descendants(pid: int) -> list[int]:
    """The fork server of a process and its worker; nothing until both are there."""
    servers = [int(word) for task in Path(f"/proc/{pid}/task").iterdir() for word in (task / "children").read_text().split()]
    found = servers + [child for server in servers for child in children(server)]
    return found if len(found) == 2 else []


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_who_leaves_while_the_fork_server_starts_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {*proctree.children(os.getpid())}  # fixtures of other tests have some, which may end meanwhile

    async def body(workers: Workers) -> None:
        await cancelled_within(monkeypatch, process, "spawn", workers.probe("/", 60))
        await workers.probe("/", 60)

    run(body)
    gc.collect()  # a process that nobody follows warns
    asyncio.run(until(lambda: not {*proctree.children(os.getpid())} - before))


def test_stuck_fork_server_is_killed_also_by_who_is_being_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As by an interrupt. Python before 3.11.3 has no `asyncio.timeout` that works in such a task."""
    for module in ("fork_server", "running"):
        monkeypatch.setattr(f"criollo.workers.{module}.KILL_LIMIT_S", 0.01)

    async def body(workers: Workers) -> None:
        await workers.probe("/", 60)
        os.kill(fork_server(), signal.SIGSTOP)
        begun = asyncio.Event()

        async def leaving() -> None:
            try:
                begun.set()
                await asyncio.Event().wait()
            finally:
                await workers.close()

        task = asyncio.get_running_loop().create_task(leaving())
        await begun.wait()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert leaks.fork_servers() == []

    run(body)


def test_idle_fork_server_leaves(layer: int) -> None:
    async def body(workers: Workers) -> None:
        await unpack(workers, layer, entry(b"f") + END)
        server = fork_server()
        skip_ahead(600)
        await until(lambda: not Path(f"/proc/{server}").exists())
        assert (await workers.probe("/", 60)).kind == "directory"

    run(body, idle_s=600)


def test_jobs_are_limited(tmp_path: Path) -> None:
    async def body(workers: Workers) -> None:
        running = most = 0

        async def one(number: int) -> None:
            nonlocal running, most
            place = tmp_path / str(number)
            place.mkdir()
            fd = os.open(place, os.O_RDONLY)
            async with workers.unpack(fd, "none") as job:
                running += 1
                most = max(most, running)
                await threads.transfers(feed, job.pipe_fd, entry(b"f", content=bytes(100_000)) * 20 + END)
                assert (await job.result()).inodes == 20
                running -= 1
            os.close(fd)

        async with asyncio.TaskGroup() as group:
            for number in range(8):
                group.create_task(one(number))
        assert most == 2

    run(body, unpacks=2)


def test_full_disk_is_exhausted(tmp_path: Path) -> None:
    image, place = tmp_path / "disk", tmp_path / "mnt"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(8 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-N", "200", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    try:
        for name, archive in (
            ("bytes", entry(b"f", content=os.urandom(16 << 20)) + END),
            ("inodes", b"".join(entry(b"%d" % number) for number in range(1000)) + END),
        ):
            (place / name).mkdir()
            fd = os.open(place / name, os.O_RDONLY)
            with pytest.raises(Exhausted, match="disk of the layer store is full"):
                run(lambda workers, fd=fd, archive=archive: unpack(workers, fd, archive))
            os.close(fd)
            subprocess.run(["rm", "-rf", place / name], check=True)
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize(
    ("name", "kind"), [("d", "directory"), ("f", "file"), ("p", "fifo"), ("s", "socket"), ("b", "block"), ("l", "file")]
)
def test_probe_tells_the_kind(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "f").touch()
    (tmp_path / "l").symlink_to("f")
    os.mkfifo(tmp_path / "p")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
    os.mknod(tmp_path / "b", stat.S_IFBLK | 0o600, os.makedev(7, 99))
    found = run(lambda workers: workers.probe(str(tmp_path / name), 60))
    assert found.kind == kind
    assert found.path == str(tmp_path / ("f" if name == "l" else name))
    assert (found.major, found.minor) == ((7, 99) if name == "b" else (0, 0))


def test_probe_tells_the_mount(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    mount.mount("tmpfs", tmp_path / "m", "tmpfs", mount.MS_RDONLY)
    try:
        mount.make_private(tmp_path / "m")
        private = run(lambda workers: workers.probe(str(tmp_path / "m"), 60))
        mount.make_shared(tmp_path / "m")
        shared = run(lambda workers: workers.probe(str(tmp_path / "m"), 60))
    finally:
        mount.unmount(tmp_path / "m")
    assert (private.mount_point, private.fstype, private.propagation, private.readonly) == (
        str(tmp_path / "m"),
        "tmpfs",
        "private",
        True,
    )
    assert shared.propagation == "shared"


def test_probe_makes_a_directory_only_when_told(tmp_path: Path) -> None:
    place = tmp_path / "a/b"
    assert run(lambda workers: workers.probe(str(place), 60)).kind == "missing"
    assert run(lambda workers: workers.probe(str(place), 10, create=True)).kind == "directory"
    assert place.stat().st_mode == stat.S_IFDIR | 0o755


def test_probe_of_a_bad_path_names_it(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(HostFailed, match="f/below"):
        run(lambda workers: workers.probe(str(tmp_path / "f/below"), 60))


def test_probes_share_a_process_also_after_errors(tmp_path: Path) -> None:
    (tmp_path / "f").touch()

    async def body(workers: Workers) -> None:
        await workers.probe("/", 60)
        before = children(fork_server())
        for _ in range(3):
            assert (await workers.probe(str(tmp_path / "f"), 60)).kind == "file"
            with pytest.raises(HostFailed):
                await workers.probe(str(tmp_path / "f/below"), 60)
        assert children(fork_server()) == before
        os.kill(before[0], signal.SIGKILL)
        assert (await workers.probe("/", 60)).kind == "directory"

    run(body)


def test_probing_processes_leave_when_idle() -> None:
    async def body(workers: Workers) -> None:
        await asyncio.gather(*(workers.probe("/", 60) for _ in range(8)))  # noqa: TID251
        server = fork_server()
        assert 1 <= len(children(server)) <= 4
        skip_ahead(300)
        await until(lambda: not children(server))
        assert fork_server() == server

    run(body, idle_s=600)


@needs_fuse
def test_hanging_source_is_given_up(tmp_path: Path) -> None:
    place = tmp_path / "hangs"
    with dead_mount(place):
        run(lambda workers: gives_up(workers, place))


async def gives_up(workers: Workers, place: Path) -> None:
    await workers.probe("/", 60)
    with pytest.raises(TimedOut, match="hangs"):
        await workers.probe(str(place / "x"), 0.3)
    assert (await workers.probe("/", 60)).kind == "directory"
    with pytest.raises(TimedOut, match="hangs"):
        await workers.devices(str(place), 0.3)
    job = DuplicateJob(path=str(place), target=str(place.parent / "copies/0"), owner=(0, 0), limit_bytes=100, limit_entries=9)
    with pytest.raises(TimedOut, match=r"copy.*hangs"):
        await workers.duplicate(job, 0.3)
    (place.parent / "file").write_text("12")
    copied = await workers.duplicate(msgspec.structs.replace(job, path=str(place.parent / "file")), 60)
    assert (copied.left_bytes, (place.parent / "copies/0").read_text()) == (98, "12")
    labelled = msgspec.structs.replace(
        job, path=str(place.parent / "file"), target=str(place.parent / "copies/1"), label="u:r:t"
    )
    await workers.duplicate(labelled, 60)
    assert os.getxattr(place.parent / "copies/1", "security.selinux") == b"u:r:t\0"
    assert (await workers.devices("/dev/null", 60)).nodes[0][0] == "/dev/null"


class Range(NamedTuple):
    host_id: int
    container_id: int
    length: int


class Wish(NamedTuple):
    uids: tuple[Range, ...]
    gids: tuple[Range, ...]


def test_user_namespace_with_what_it_owns() -> None:
    wish = Wish((Range(100_000, 0, 65536),), (Range(200_000, 0, 65536),))

    async def body(workers: Workers) -> None:
        async with workers.userns(wish, {NamespaceKind.USER, NamespaceKind.NET, NamespaceKind.IPC, NamespaceKind.UTS}) as made:
            assert set(made) == {NamespaceKind.USER, NamespaceKind.NET, NamespaceKind.IPC, NamespaceKind.UTS}
            assert children(fork_server()) == []
            told = await threads.fresh(inside, made)
        assert told == ["0 100000 65536", "0 200000 65536"]

    run(body)


def inside(made: dict[NamespaceKind, int]) -> list[str]:
    """The maps as a process in the namespaces sees them; each other namespace is owned by the user namespace."""
    joined = [f"--{kind}=/proc/{os.getpid()}/fd/{fd}" for kind, fd in made.items()]
    command = ["nsenter", *joined, "sh", "-c", "cat /proc/self/uid_map /proc/self/gid_map; hostname inside; ip link set lo up"]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    return [" ".join(line.split()) for line in finished.stdout.splitlines()]


def test_who_leaves_while_a_user_namespace_comes_leaves_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(workers: Workers) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        started = asyncio.Event()

        async def start(*_: object) -> Running:
            started.set()
            return Running(ours, "make a user namespace", 60, lambda: None)

        async def make() -> None:
            async with workers.userns(Wish((), ()), {NamespaceKind.NET}):
                pass

        monkeypatch.setattr(workers._server, "start", start)
        with theirs:
            task = asyncio.get_running_loop().create_task(make())
            await started.wait()
            socket.send_fds(theirs, [msgspec.json.encode(Namespaces(kinds=("net",)))], [theirs.fileno()])
            task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    run(body)


def test_bad_map_is_told() -> None:
    wish = Wish((Range(0, 0, 10), Range(5, 5, 10)), ())

    async def body(workers: Workers) -> None:
        with pytest.raises(HostFailed, match="uid_map"):
            async with workers.userns(wish, {NamespaceKind.USER}):
                pass

    run(body)


def threads_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/status").read_text().split("Threads:\t")[1].split()[0])


def test_a_layer_alone_gets_a_second_thread_until_another_comes(layer: int, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    archive = b"".join(entry(b"f%d" % number) for number in range(2000)) + END
    at = 0

    async def body(workers: Workers) -> None:
        nonlocal at
        other = os.open(tmp_path / "other", os.O_RDONLY | os.O_DIRECTORY)
        try:
            async with workers.unpack(layer, "none") as job:
                feed(job.pipe_fd, archive[:512])
                (pid,) = await until(lambda: children(fork_server()))

                def one_more() -> int:
                    nonlocal at
                    at += 512
                    feed(job.pipe_fd, archive[at : at + 512])
                    return threads_of(pid)

                await until(lambda: one_more() == 2)
                async with workers.unpack(other, "none"):
                    await until(lambda: one_more() == 1)
                feed(job.pipe_fd, archive[at + 512 :])
                unpacked = await job.result()
                assert unpacked.inodes == 2000
                assert unpacked.diff_id == f"sha256:{hashlib.sha256(archive).hexdigest()}"
        finally:
            os.close(other)

    run(body, processors=2)
    assert len(os.listdir(tmp_path / "layer")) == 2000
