"""Facts about processes and the kernel."""

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from support import leaks
from support.scarcity import free_descriptors

from criollo.errors import Exhausted
from criollo.linux import procfs
from criollo.linux.procfs import kernel_version

# A process of a session of its own that leaves another behind, which says by its end of the pipe when it is gone.
LEAVES_ONE = "import os, sys\nif os.fork(): os._exit(0)\nsys.stdin.read()"


@pytest.mark.parametrize(
    ("release", "expected"),
    [("6.12.3-1-amd64", (6, 12)), ("5.4", (5, 4)), ("4.18.0-513.el8\n", (4, 18)), ("x", (0, 0)), ("", (0, 0)), ("6", (0, 0))],
)
def test_kernel_version_is_read_from_the_release(release: str, expected: tuple[int, int]) -> None:
    assert kernel_version(release) == expected


def test_kernel_version_is_that_of_this_kernel() -> None:
    assert ".".join(map(str, kernel_version())) == ".".join(os.uname().release.split(".")[:2])


@pytest.fixture
def session_without_leader() -> Iterator[int]:
    """The pid of a process that is gone, whose number its session and group still have."""
    read_end, write_end = os.pipe()
    leader = subprocess.Popen([sys.executable, "-c", LEAVES_ONE], stdin=read_end, start_new_session=True)
    os.close(read_end)
    leader.wait()
    yield leader.pid
    os.close(write_end)


def test_number_that_only_a_session_has_is_no_process(session_without_leader: int) -> None:
    assert procfs.start_time(session_without_leader) is None
    assert procfs.open_pidfd(session_without_leader, 1) is None


def test_number_of_a_thread_is_no_process() -> None:
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    assert thread.native_id is not None
    assert procfs.open_pidfd(thread.native_id, procfs.start_time(thread.native_id) or 0) is None
    over.set()
    thread.join()


@pytest.mark.parametrize("number", [errno.ESRCH, errno.EINVAL, errno.ENOENT])
def test_kernels_say_in_several_words_that_there_is_no_process(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(pid: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pidfd_open", refused)
    assert procfs.open_pidfd(4711, 1) is None


def test_any_other_refusal_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(pid: int) -> int:
        raise OSError(errno.EMFILE, "too many")

    monkeypatch.setattr(os, "pidfd_open", refused)
    with pytest.raises(Exhausted, match="too many"):
        procfs.open_pidfd(4711, 1)


def test_nobody_is_dead_because_no_descriptor_is_left() -> None:
    started, descriptors = procfs.start_time(os.getpid()) or 0, leaks.descriptors()
    with free_descriptors(os.getpid(), 0):
        with pytest.raises(Exhausted):
            procfs.start_time(os.getpid())
        with pytest.raises(Exhausted):
            procfs.is_alive(os.getpid(), started)
    with free_descriptors(os.getpid(), 1), pytest.raises(Exhausted):  # that takes two
        procfs.open_pidfd(os.getpid(), started)
    assert leaks.new_descriptors(descriptors) == []


def test_this_process_is_found_by_its_start_time_alone() -> None:
    started = procfs.start_time(os.getpid())
    assert started is not None
    assert procfs.open_pidfd(os.getpid(), started + 1) is None
    fd = procfs.open_pidfd(os.getpid(), started)
    assert fd is not None
    os.close(fd)
