"""Processes are kept to CPUs."""

import os
import subprocess
import sys

import pytest

from criollo.linux.affinity import pin


def test_all_threads_of_a_process_are_kept_to_its_cpus() -> None:
    code = "import sys, threading; threading.Thread(target=sys.stdin.read).start(); print(1, flush=True)"
    one = min(os.sched_getaffinity(0))
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        child.stdout.readline()
        pin(child.pid, [one])
        found = [os.sched_getaffinity(int(each)) for each in os.listdir(f"/proc/{child.pid}/task")]
        child.stdin.close()
    assert found == [{one}, {one}]


def test_a_process_that_is_gone_is_success() -> None:
    with subprocess.Popen(["true"]) as child:
        child.wait()
    pin(child.pid, [0])


def test_cpus_that_are_not_there_are_refused() -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        pin(os.getpid(), [1000])
