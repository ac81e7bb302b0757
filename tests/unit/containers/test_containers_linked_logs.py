"""Logs of a pod in a volume of its own: what is planned, and names of logs."""

import os
from pathlib import Path

import pytest

from criollo.containers.linked_logs import KEY, bind, link, planned, unbind, unlink
from criollo.errors import Invalid
from criollo.model.pod import PodConfig

ALLOWED = ("link-logs.crio.io",)


def config(
    volume: str, *, uid: str = "1-2", log_directory: str = "/var/log/pods/p", key: str = "link-logs.crio.io"
) -> PodConfig:
    return PodConfig(name="p", uid=uid, namespace="n", annotations={key: volume}, log_directory=log_directory)


@pytest.mark.parametrize("key", ["link-logs.crio.io", "io.kubernetes.cri-o.LinkLogs"])
def test_the_volume_is_the_pods_own_empty_dir(key: str) -> None:
    found = planned(config("logs", key=key), ALLOWED, kubelet=Path("/k"))
    assert found == {KEY: "/k/1-2/volumes/kubernetes.io~empty-dir/logs"}
    assert planned(config("logs", key=key), ()) == {}
    assert planned(config("logs", key="other"), ALLOWED) == {}


@pytest.mark.parametrize("volume", ["", "..", "a/b", "A", "-a", "a" * 64, "a\n", "a."])
def test_a_strange_volume_is_refused(volume: str) -> None:
    with pytest.raises(Invalid, match="link-logs"):
        planned(config(volume), ALLOWED)


@pytest.mark.parametrize("uid", ["..", "a/b", "", "a\n"])
def test_a_strange_uid_is_refused(uid: str) -> None:
    with pytest.raises(Invalid, match="uid"):
        planned(config("logs", uid=uid), ALLOWED)


def test_a_volume_that_is_not_there_or_a_link_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="not there"):
        bind({KEY: str(tmp_path / "none")}, str(tmp_path))
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(Invalid, match="not a link"):
        bind({KEY: str(tmp_path / "link")}, str(tmp_path))


def test_a_log_has_a_name_by_id_while_its_container_is_there(tmp_path: Path) -> None:
    files = {KEY: str(tmp_path / "volume")}
    for _ in range(2):
        link(files, str(tmp_path), "id", str(tmp_path / "main" / "0.log"))
    assert os.readlink(tmp_path / "id.log") == "main/0.log"
    for _ in range(2):
        unlink(files, str(tmp_path), "id")
    assert os.listdir(tmp_path) == []


def test_a_log_that_has_its_name_by_id_is_left_alone(tmp_path: Path) -> None:
    files, log = {KEY: str(tmp_path / "volume")}, tmp_path / "id.log"
    link(files, str(tmp_path), "id", str(log))
    assert not log.is_symlink()
    log.write_text("words")
    unlink(files, str(tmp_path), "id")
    assert log.read_text() == "words"


def test_who_does_not_ask_gets_nothing(tmp_path: Path) -> None:
    link({}, str(tmp_path), "id", str(tmp_path / "0.log"))
    bind({}, str(tmp_path))
    unbind({}, str(tmp_path))
    unbind({KEY: str(tmp_path / "none")}, str(tmp_path))
    assert os.listdir(tmp_path) == []
