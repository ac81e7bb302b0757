"""The peers of `make bench` are named by what their programs say."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def peers(program: Callable[[str], ModuleType]) -> ModuleType:
    return program("peers")


def saying(path: Path, says: str) -> Path:
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("says", "name"),
    [
        ("containerd github.com/containerd/containerd/v2 v2.3.4 0123abc", "containerd-2.3.4"),
        ("containerd github.com/containerd/containerd/v2 v2.4.0-beta.0", "containerd-2.4.0-beta.0"),
        ("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3", "containerd-1.6.20"),
    ],
)
def test_containerd_is_named_by_its_version(peers: ModuleType, tmp_path: Path, says: str, name: str) -> None:
    (found,) = peers.given(saying(tmp_path / "containerd", says), tuned=False, crio=None)
    assert (found.name, found.kind) == (name, "containerd")


def test_tuned_one_is_of_another_kind(peers: ModuleType, tmp_path: Path) -> None:
    (found,) = peers.given(saying(tmp_path / "containerd", "v2.3.4"), tuned=True, crio=None)
    assert (found.name, found.kind) == ("containerd-2.3.4-tuned", "tuned containerd")


def test_crio_is_a_peer(peers: ModuleType, tmp_path: Path) -> None:
    (found,) = peers.given(None, tuned=False, crio=saying(tmp_path / "crio", "crio version 1.37.0"))
    assert (found.name, found.kind) == ("cri-o-1.37.0", "cri-o")


def test_tuned_without_a_program_is_refused(peers: ModuleType) -> None:
    with pytest.raises(SystemExit, match="give its path"):
        peers.given(None, tuned=True, crio=None)


def test_program_that_does_not_exist_is_refused(peers: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"cannot run .*No such file"):
        peers.given(tmp_path / "none", tuned=False, crio=None)


def test_program_without_a_version_is_refused(peers: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="does not tell its version"):
        peers.given(saying(tmp_path / "containerd", "hello"), tuned=False, crio=None)
