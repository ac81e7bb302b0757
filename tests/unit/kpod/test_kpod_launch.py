import asyncio
import os
import stat
from pathlib import Path

import pytest
from kpod_fake import FakeNode
from support.waiting import until

from criollo.config.settings import Settings
from criollo.cri.client import connect
from criollo.errors import CriolloError, NotFound
from criollo.kpod import places, play
from criollo.kpod.launch import prepare_volume
from criollo.kpod.manifest import read_pod
from criollo.kpod.podspec import VolumePlan, pod_uid
from criollo.kpod.session import Session


def test_an_empty_volume_is_open_to_every_user_of_the_pod(tmp_path: Path) -> None:
    for _ in range(2):
        prepare_volume(VolumePlan(str(tmp_path / "volumes/u/v"), "emptyDir"))
    assert stat.S_IMODE((tmp_path / "volumes/u/v").stat().st_mode) == 0o777
    assert stat.S_IMODE((tmp_path / "volumes/u").stat().st_mode) == 0o700


def test_what_is_to_be_made_is_made_once(tmp_path: Path) -> None:
    for _ in range(2):
        prepare_volume(VolumePlan(str(tmp_path / "a/b"), "DirectoryOrCreate"))
        prepare_volume(VolumePlan(str(tmp_path / "c/d"), "FileOrCreate"))
    assert (tmp_path / "a/b").is_dir()
    assert (tmp_path / "c/d").is_file()


@pytest.mark.parametrize("kind", ["Directory", "File", "Socket", "CharDevice", "BlockDevice"])
def test_what_must_be_there_must_be_what_it_says(tmp_path: Path, kind: str) -> None:
    with pytest.raises(NotFound, match=f"hostPath.type {kind} wants it"):
        prepare_volume(VolumePlan(str(tmp_path / "none"), kind))
    wrong = tmp_path / "wrong"
    wrong.touch() if kind == "Directory" else wrong.mkdir()
    with pytest.raises(CriolloError, match=f"it is no {kind}"):
        prepare_volume(VolumePlan(str(wrong), kind))


def test_a_path_of_no_type_is_left_to_the_runtime(tmp_path: Path) -> None:
    prepare_volume(VolumePlan(str(tmp_path / "none"), ""))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["..", "a/../../x", "", ".hidden", "a\0"])
def test_names_that_are_no_parts_of_paths_remove_nothing(tmp_path: Path, name: str) -> None:
    settings = Settings(root=str(tmp_path / "root"), log_dir=str(tmp_path / "logs"))
    canary = tmp_path / "x"
    canary.mkdir()
    places.forget(settings, namespace="default", name=name, uid="u")
    places.forget(settings, namespace="default", name="n", uid=name)
    assert canary.is_dir()


def test_an_empty_volume_has_nothing_of_an_earlier_pod(tmp_path: Path) -> None:
    volume = VolumePlan(str(tmp_path / "volumes/u/v"), "emptyDir")
    prepare_volume(volume)
    (tmp_path / "volumes/u/v/left").mkdir()
    (tmp_path / "volumes/u/v/left/file").touch()
    prepare_volume(volume)
    assert list((tmp_path / "volumes/u/v").iterdir()) == []


DUO = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "duo"},
    "spec": {"containers": [{"name": "app", "image": "a:1"}], "volumes": [{"name": "scratch", "emptyDir": {}}]},
}


def test_a_pod_that_is_played_while_it_is_taken_down_keeps_its_volume(
    node: FakeNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, waiting = list[bool](), list[bool]()
    locked = places._locked

    def told(fd: int) -> bool:
        is_ours = locked(fd)
        waiting.extend([True] * (not is_ours))
        return is_ours

    async def other_goes_on() -> None:
        """Pods were listed, none was there: the play gets as far as it can before the answer."""
        begun.append(True)
        await until(lambda: waiting or node.named("CreateContainer"))

    async def main() -> None:
        settings = Settings(root=str(tmp_path / "root"), log_dir=str(tmp_path / "logs"))
        pod = read_pod(DUO, "duo")
        async with connect(tmp_path / "crio.sock") as client, asyncio.TaskGroup() as group:
            session = Session(client, tmp_path / "crio.sock", settings, in_process=False)
            node.before["ListContainers"] = other_goes_on
            group.create_task(play.take_down(session, pod))
            await until(lambda: begun)
            group.create_task(play.bring_up(session, pod))

    monkeypatch.setattr(places, "_locked", told)
    (tmp_path / "root").mkdir()
    asyncio.run(main())
    assert len(node.named("CreateContainer")) == 1
    assert os.listdir(tmp_path / "root/kpod/volumes" / pod_uid("default", "duo")) == ["scratch"]
