"""Kills by the kernel, told from counters in plain directories: of the container, or of what is around it."""

import os
import shutil
from pathlib import Path

import pytest
from support.scarcity import free_descriptors

from criollo.errors import Exhausted
from criollo.linux.cgroup import Hierarchies
from criollo.monitor.oom import Kills


class Node:
    """A slice of a pod, on version 2."""

    def __init__(self, directory: Path) -> None:
        self.top, self.bundle = directory / "cgroup", directory / "bundle"
        self.slice = self.top / "a.slice"
        self.slice.mkdir(parents=True)
        self.bundle.mkdir()
        self.kills = Kills(Hierarchies({}, self.top))
        self.total(0)

    def total(self, kills: int) -> None:
        (self.slice / "memory.events").write_text(f"low 0\noom_kill {kills}\noom_group_kill 9\n")

    def scope(self, name: str, kills: int = 0) -> str:
        (self.slice / f"{name}.scope").mkdir(exist_ok=True)
        (self.slice / f"{name}.scope/memory.events").write_text(f"oom_kill {kills}\n")
        return f"/a.slice/{name}.scope"

    def starts(self, name: str) -> str:
        self.kills.begin(path := self.scope(name))
        return path

    def vanish(self, name: str) -> None:
        shutil.rmtree(self.slice / f"{name}.scope")

    def killed(self, path: str) -> bool:
        return self.kills.of(self.bundle, path)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_a_cgroup_that_is_there_tells(node: Node) -> None:
    one, two = node.starts("one"), node.starts("two")
    node.scope("one", kills=1)
    node.total(1)
    assert node.killed(one)
    assert not node.killed(two)


def test_a_kill_is_found_though_systemd_took_the_scope_away(node: Node) -> None:
    one, two = node.starts("one"), node.starts("two")
    node.total(1)
    node.vanish("one")
    assert node.killed(one)
    node.vanish("two")
    assert not node.killed(two)


def test_kills_in_a_container_that_goes_on_are_its_own(node: Node) -> None:
    one, two = node.starts("one"), node.starts("two")
    node.scope("two", kills=2)
    node.total(2)
    node.vanish("one")
    assert not node.killed(one)
    node.total(3)
    node.vanish("two")
    assert node.killed(two)


def test_an_answer_stays(node: Node) -> None:
    one = node.starts("one")
    node.scope("one", kills=1)
    node.total(1)
    assert [node.killed(one) for _ in range(2)] == [True, True]
    node.vanish("one")
    assert node.killed(one)
    two = node.starts("two")
    node.vanish("two")
    assert not node.killed(two)


def test_what_was_counted_before_a_daemon_started_is_nobodys(node: Node) -> None:
    node.total(5)
    one = node.starts("one")
    node.vanish("one")
    assert not node.killed(one)


def test_many_ends_in_one_pod_are_told_apart(node: Node) -> None:
    total = 0
    for number in range(200):
        path = node.starts(f"c{number}")
        total += number % 2
        node.total(total)
        node.vanish(f"c{number}")
        assert node.killed(path) == bool(number % 2)


def test_conmons_word_is_enough(node: Node) -> None:
    (node.bundle / "oom").touch()
    assert node.killed(node.starts("one"))
    assert node.killed("")


@pytest.mark.parametrize(
    ("content", "killed"), [("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n", True), ("oom_kill 0\n", False)]
)
def test_version_1_tells_by_the_cgroup_alone(tmp_path: Path, content: str, killed: bool) -> None:
    (tmp_path / "memory/pod/c1").mkdir(parents=True)
    (tmp_path / "memory/pod/c1/memory.oom_control").write_text(content)
    kills = Kills(Hierarchies({"memory": tmp_path / "memory"}, None))
    kills.begin("/pod/c1")
    assert kills.of(tmp_path, "/pod/c1") is killed
    assert not kills.of(tmp_path, "/pod/gone")


@pytest.mark.parametrize("content", [b"", b"oom_kill\n", b"oom_kill x\n", b"oom_kill -1\n", b"\xff\xfe\0" * 5000])
def test_junk_is_no_kill(node: Node, content: bytes) -> None:
    path = node.starts("one")
    (node.slice / "one.scope/memory.events").write_bytes(content)
    (node.slice / "memory.events").write_bytes(content)
    assert not node.killed(path)


def test_who_has_no_descriptor_counts_nothing_and_is_told_later(node: Node) -> None:
    one = node.starts("one")
    node.scope("one", kills=1)
    node.total(1)
    with free_descriptors(os.getpid(), 0), pytest.raises(Exhausted, match=r"a\.slice"):
        node.killed(one)
    assert node.killed(one)


def test_what_a_scope_above_counts_is_told_later_too(node: Node) -> None:
    one, two = node.starts("one"), node.starts("two")
    node.total(1)
    node.vanish("one")
    with free_descriptors(os.getpid(), 0), pytest.raises(Exhausted):
        node.killed(one)
    assert node.killed(one)
    node.vanish("two")
    assert not node.killed(two)


def test_what_was_counted_before_is_nobodys_though_it_could_not_be_read_at_once(node: Node) -> None:
    node.total(5)
    path = node.scope("one")
    with free_descriptors(os.getpid(), 0), pytest.raises(Exhausted):
        node.kills.begin(path)
    node.kills.begin(path)
    node.vanish("one")
    assert not node.killed(path)


def test_version_1_is_told_later_too(tmp_path: Path) -> None:
    (tmp_path / "memory/pod/c1").mkdir(parents=True)
    (tmp_path / "memory/pod/c1/memory.oom_control").write_text("oom_kill 1\n")
    kills = Kills(Hierarchies({"memory": tmp_path / "memory"}, None))
    with free_descriptors(os.getpid(), 0), pytest.raises(Exhausted):
        kills.of(tmp_path, "/pod/c1")
    assert kills.of(tmp_path, "/pod/c1")
