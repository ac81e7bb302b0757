import stat
from pathlib import Path

import pytest

from criollo.config.settings import Settings
from criollo.errors import CriolloError, NotFound
from criollo.kpod import places
from criollo.kpod.launch import prepare_volume
from criollo.kpod.podspec import VolumePlan


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
