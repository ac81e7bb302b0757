"""What a volume source is, below a root and without one."""

import os
from pathlib import Path

import pytest

from criollo.errors import CriolloError, Exhausted
from criollo.workers import probe as jobs
from criollo.workers.messages import DevicesJob, Probe, ProbeJob
from criollo.workers.probe import devices, probe


def look(root: Path | str, path: str, *, create: bool = False) -> Probe:
    return probe(ProbeJob(path=path, create=create, root=str(root)))


def test_a_path_below_a_root_is_the_real_one(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to("/a")
    found = look(tmp_path, "/link")
    assert (found.kind, found.path) == ("directory", str(tmp_path / "a"))
    assert look("", str(tmp_path / "a")).path == str(tmp_path / "a")


@pytest.mark.parametrize("target", ["/etc", "../../../../../../etc", "/../etc"])
def test_a_link_does_not_lead_out_of_the_root(tmp_path: Path, target: str) -> None:
    (tmp_path / "leave").symlink_to(target)
    assert look(tmp_path, "/leave/passwd").kind == "missing"
    assert look(tmp_path, "/../../../../../../etc/passwd").kind == "missing"


def test_what_is_made_is_made_below_the_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "outside").mkdir()
    (root / "leave").symlink_to(f"{tmp_path}/outside")
    with pytest.raises(CriolloError):
        look(root, "/leave/new", create=True)  # a link to nowhere, as it is seen from there
    (root / "in").symlink_to("/deep")
    (root / "deep").mkdir()
    assert look(root, "/in/new/er", create=True).path == str(root / "deep/new/er")
    assert (root / "deep/new").stat().st_mode & 0o777 == 0o755
    assert os.listdir(tmp_path / "outside") == []


def test_without_a_root_the_parents_are_made(tmp_path: Path) -> None:
    assert look("", str(tmp_path / "x/y"), create=True).kind == "directory"
    assert look("", str(tmp_path / "none")).kind == "missing"


def test_devices_are_told_or_why_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices(DevicesJob(path="/dev/null")).nodes[0][:4] == ("/dev/null", "c", 1, 3)
    assert devices(DevicesJob(path=str(tmp_path / "none"))).errno == 2
    monkeypatch.setattr(jobs, "MOST_NODES", 2)
    with pytest.raises(Exhausted, match="more than 2"):
        devices(DevicesJob(path="/dev"))
