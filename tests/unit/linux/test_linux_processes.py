"""Zombies, and what a process uses."""

import os
import subprocess
import sys
import time

from criollo.linux.processes import count_defunct, self_usage


def test_child_that_nobody_waited_for_is_a_zombie() -> None:
    child = subprocess.Popen([sys.executable, "-c", "print('ready')"], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.read() == b"ready\n"
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert count_defunct() >= 1
    child.stdout.close()
    child.wait()


def test_own_usage_is_plausible() -> None:
    usage = self_usage(os.getpid())
    assert usage.rss_bytes > 1 << 20
    assert usage.virtual_bytes >= usage.rss_bytes
    assert 3 <= usage.open_fds <= usage.max_fds
    assert 0 < usage.started_s <= time.time() + 1


def test_process_that_is_gone_uses_nothing() -> None:
    assert self_usage(2**22 + 1).rss_bytes == 0
