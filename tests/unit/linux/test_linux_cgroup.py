"""Cgroup paths, mount tables, and hierarchies in plain directories."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.scarcity import free_descriptors

from criollo.errors import Exhausted, Invalid
from criollo.linux import cgroup
from criollo.linux.cgroup import Driver, Hierarchies, Place, Version

HYBRID = """\
30 1 0:26 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,release_agent=/lib/x,name=systemd
34 30 0:30 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
"""
V2 = "34 30 0:30 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n35 1 8:1 / /a\\040b rw - ext4 /dev/vda rw\n"


@pytest.mark.parametrize(
    ("driver", "parent", "place"),
    [
        (Driver.CGROUPFS, "/kubepods/pod1", Place("/kubepods/pod1/crio-c1", "/kubepods/pod1/crio-c1")),
        (Driver.CGROUPFS, "kubepods//pod1/", Place("/kubepods/pod1/crio-c1", "/kubepods/pod1/crio-c1")),
        (Driver.CGROUPFS, "", Place("/crio/crio-c1", "/crio/crio-c1")),
        (Driver.CGROUPFS, "/", Place("/crio-c1", "/crio-c1")),
        (Driver.SYSTEMD, "a-b.slice", Place("a-b.slice:crio:c1", "/a.slice/a-b.slice/crio-c1.scope")),
        (Driver.SYSTEMD, "/a.slice/a-b.slice", Place("a-b.slice:crio:c1", "/a.slice/a-b.slice/crio-c1.scope")),
        (Driver.SYSTEMD, "-.slice", Place("-.slice:crio:c1", "/crio-c1.scope")),
        (Driver.SYSTEMD, "", Place("crio.slice:crio:c1", "/crio.slice/crio-c1.scope")),
    ],
)
def test_place_of_a_container(driver: Driver, parent: str, place: Place) -> None:
    assert cgroup.container_cgroup(driver, parent, "c1") == place


@pytest.mark.parametrize(
    ("driver", "parent"),
    [
        (Driver.CGROUPFS, "/a/../b"),
        (Driver.CGROUPFS, "/a/./b"),
        (Driver.CGROUPFS, "/kubepods.slice"),
        (Driver.CGROUPFS, "/a\nb"),
        (Driver.CGROUPFS, "/" + "a" * 5000),
        (Driver.SYSTEMD, "/kubepods/pod1"),
        (Driver.SYSTEMD, "a--b.slice"),
        (Driver.SYSTEMD, "-a.slice"),
        (Driver.SYSTEMD, "a-.slice"),
        (Driver.SYSTEMD, "a b.slice"),
        (Driver.SYSTEMD, "a.slice\n"),
        (Driver.SYSTEMD, ".slice"),
    ],
)
def test_bad_parents_are_refused(driver: Driver, parent: str) -> None:
    with pytest.raises(Invalid, match="cgroup_parent"):
        cgroup.container_cgroup(driver, parent, "c1")


@given(st.sampled_from(list(Driver)), st.text(max_size=40))
def test_no_parent_leads_outside(driver: Driver, parent: str) -> None:
    try:
        path = cgroup.container_cgroup(driver, parent, "c1").path
    except Invalid:
        return
    assert path.startswith("/")
    assert not {"..", "."} & set(path.split("/"))


@pytest.mark.parametrize(
    ("parent", "driver"),
    [("/kubepods/pod1", Driver.CGROUPFS), ("/", Driver.CGROUPFS), ("a-b.slice", Driver.SYSTEMD), ("-.slice", Driver.SYSTEMD)],
)
def test_a_settled_parent_says_who_made_it(parent: str, driver: Driver) -> None:
    assert cgroup.driver_of(parent) is driver
    assert cgroup.driver_of(cgroup.pod_cgroup(driver, parent).spec_path, otherwise=Driver.CGROUPFS) is driver


def test_who_makes_parents_for_what_has_none() -> None:
    assert cgroup.driver_of("", Driver.SYSTEMD) is Driver.SYSTEMD


@pytest.mark.parametrize(("name", "above"), [("a-b-c.slice", "a-b.slice"), ("a-b.slice", "a.slice"), ("a.slice", "-.slice")])
def test_slices_lie_in_each_other(name: str, above: str) -> None:
    assert cgroup.parent_slice(name) == above


def test_a_cgroup_is_used_by_processes_and_by_what_is_below(tmp_path: Path) -> None:
    hierarchies = Hierarchies({}, tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a/cgroup.procs").touch()
    assert not hierarchies.is_used("/a")
    (tmp_path / "a/cgroup.procs").write_text("1\n")
    assert hierarchies.is_used("/a")
    (tmp_path / "a/cgroup.procs").write_text("")
    (tmp_path / "a/b").mkdir()
    assert hierarchies.is_used("/a")
    assert not hierarchies.is_used("/absent")


def test_proc_cgroup_of_both_versions() -> None:
    text = "8:cpu,cpuacct:/a\n1:name=systemd:/s\n0::/u (deleted)\njunk\n"
    assert cgroup.parse_proc_cgroup(text) == {"cpu": "/a", "cpuacct": "/a", "name=systemd": "/s", "": "/u"}


def test_mount_tables() -> None:
    hybrid, v2 = Hierarchies.from_mountinfo(HYBRID), Hierarchies.from_mountinfo(V2)
    assert (hybrid.version, v2.version) == (Version.HYBRID, Version.V2)
    assert hybrid.directory("cpuacct", "/a") == Path("/sys/fs/cgroup/cpu,cpuacct/a")
    assert hybrid.directory("pids", "/a") is None
    assert v2.directory("memory", "/a") == Path("/sys/fs/cgroup/a")
    assert len(hybrid.roots()) == 4


@given(st.text(max_size=200))
def test_any_mount_table_is_read(text: str) -> None:
    Hierarchies.from_mountinfo(text)


@pytest.mark.parametrize("path", ["", "/", "//", "/a/../.."])
def test_the_root_is_never_killed_or_removed(path: str) -> None:
    with pytest.raises(Invalid):
        Hierarchies({}, None).kill(path)
    with pytest.raises(Invalid):
        Hierarchies({}, None).remove(path)


def test_before_moves_the_daemon_is_written_to_where_it_is(tmp_path: Path) -> None:
    own = cgroup.of_process(os.getpid())["pids"].lstrip("/")
    (tmp_path / own).mkdir(parents=True, exist_ok=True)
    procs = tmp_path / own / "cgroup.procs"
    procs.write_text("")
    Hierarchies({"pids": tmp_path}, None).expect_moves()
    assert procs.read_text() == str(os.getpid())


def test_a_node_that_refuses_such_a_write_is_left_as_it_is(tmp_path: Path) -> None:
    Hierarchies({"pids": tmp_path / "absent"}, None).expect_moves()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("content", "is_frozen"), [("THAWED\n", False), ("FREEZING\n", True), ("FROZEN\n", True)])
def test_a_frozen_cgroup_of_version_1(tmp_path: Path, content: str, is_frozen: bool) -> None:
    hierarchies = Hierarchies({"freezer": tmp_path}, None)
    (tmp_path / "pod/c").mkdir(parents=True)
    assert not hierarchies.is_frozen("/pod/c")  # the root's has no such file
    (tmp_path / "pod/c/freezer.state").write_text(content)
    assert hierarchies.is_frozen("/pod/c") is is_frozen


def test_a_frozen_cgroup_of_version_2(tmp_path: Path) -> None:
    hierarchies = Hierarchies({}, tmp_path)
    for content, is_frozen in [("0\n", False), ("1\n", True)]:
        (tmp_path / "cgroup.freeze").write_text(content)
        assert hierarchies.is_frozen("/") is is_frozen


def test_a_node_without_a_freezer_freezes_nothing(tmp_path: Path) -> None:
    assert not Hierarchies({"memory": tmp_path}, None).is_frozen("/pod")


def test_without_a_descriptor_no_cgroup_is_taken_for_empty_or_gone(tmp_path: Path) -> None:
    place = tmp_path / "v2/a/b"
    place.mkdir(parents=True)
    (place / "cgroup.procs").write_text("")
    hierarchies = Hierarchies({}, tmp_path / "v2")
    with free_descriptors(os.getpid(), 0):
        for ask in (hierarchies.processes, hierarchies.kill, hierarchies.remove):
            with pytest.raises(Exhausted):
                ask("/a")
        assert hierarchies.is_used("/a")
    assert hierarchies.processes("/a") == []
    assert place.is_dir()


def test_a_cgroup_is_made_though_others_remove_what_is_above_it_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a daemon or a kpod that ends does with the default parent, when nothing is in it."""
    hierarchies = Hierarchies({"cpu": tmp_path}, None)
    (tmp_path / "crio").mkdir()
    mkdir, removed = Path.mkdir, 0

    def others_first(self: Path, mode: int) -> None:
        nonlocal removed
        if self.name == "pod1" and removed < 3:
            removed += 1
            hierarchies.drop_if_empty("/crio")
        mkdir(self, mode)

    monkeypatch.setattr(Path, "mkdir", others_first)
    hierarchies.create("/crio/pod1")
    assert (removed, hierarchies.exists("/crio/pod1")) == (3, True)


def test_a_hierarchy_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Hierarchies({"cpu": tmp_path / "gone"}, None).create("/crio/pod1")
