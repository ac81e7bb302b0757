"""Device nodes of the host."""

from pathlib import Path

import pytest

from criollo.linux.devices import host_nodes, look, look_near


def test_node_is_described() -> None:
    (null,) = look("/dev/null")
    assert (null.path, null.type, null.major, null.minor) == ("/dev/null", "c", 1, 3)


def test_link_keeps_its_name(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/zero")
    (zero,) = look(str(tmp_path / "link"))
    assert (zero.path, zero.minor) == (str(tmp_path / "link"), 5)


def test_directory_gives_its_nodes_and_files_give_none(tmp_path: Path) -> None:
    (tmp_path / "dev").symlink_to("/dev")
    assert f"{tmp_path}/dev/null" in {node.path for node in look(f"{tmp_path}/dev/")}
    (tmp_path / "file").touch()
    assert look(str(tmp_path / "file")) == []


def test_absent_path_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        look(str(tmp_path / "none"))


def test_host_nodes_leave_out_terminals_and_shared_memory() -> None:
    names = {node.path for node in host_nodes()}
    assert "/dev/null" in names
    assert not any(name.startswith(("/dev/pts/", "/dev/shm/")) for name in names)


def test_a_look_that_stays_on_dev_sees_the_same() -> None:
    assert look_near("/dev/null") == look("/dev/null")
    assert {node.path for node in look_near("/dev/") or ()} >= {node.path for node in host_nodes()}
    with pytest.raises(FileNotFoundError):
        look_near("/dev/no/such/device")


@pytest.mark.parametrize("path", ["/etc/passwd", "/dev/pts/ptmx", "/dev/../proc/1", "relative"])
def test_what_leads_off_dev_is_left_to_others(path: str) -> None:
    assert look_near(path) is None
