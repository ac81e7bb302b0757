"""Cgroups of the real kernel: made, filled, killed, removed."""

import os
import signal
import subprocess

import pytest

from criollo.linux import cgroup
from criollo.linux.cgroup import Hierarchies
from criollo.stats.collect import Collector

pytestmark = pytest.mark.node
TOP = f"/criollo-cgroup-test-{os.getpid()}"


def test_life_of_a_pod_cgroup() -> None:
    hierarchies = Hierarchies.detect()
    place = f"{TOP}/pod/inner"
    hierarchies.create(place)
    hierarchies.create(place)
    child = subprocess.Popen(["sleep", "1000"])
    try:
        hierarchies.attach(place, child.pid)
        assert hierarchies.processes(TOP) == [child.pid]
        assert place in cgroup.of_process(child.pid).values()
        sample = Collector(hierarchies).collect({"x": place})["x"]
        assert sample.pids == 1
        assert sample.cpu_ns is not None
        assert not hierarchies.remove(TOP, limit_s=0.05)
        assert hierarchies.kill(TOP)
        assert child.wait() == -signal.SIGKILL
    finally:
        child.kill()
        child.wait()
        assert hierarchies.remove(TOP)
    assert not hierarchies.exists(TOP)
    assert hierarchies.remove(TOP)
    assert hierarchies.kill(TOP)
    assert Collector(hierarchies).collect({"x": place}) == {}


def test_only_an_empty_cgroup_is_dropped() -> None:
    hierarchies = Hierarchies.detect()
    hierarchies.create(f"{TOP}/pod")
    try:
        hierarchies.drop_if_empty(TOP)
        assert hierarchies.exists(f"{TOP}/pod")
        hierarchies.drop_if_empty(f"{TOP}/pod")
        hierarchies.drop_if_empty(TOP)
        assert not hierarchies.exists(TOP)
        hierarchies.drop_if_empty(TOP)
    finally:
        hierarchies.remove(TOP)
