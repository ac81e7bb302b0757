"""Limit files are read before a change and written again after one that failed."""

from pathlib import Path

import pytest

from criollo.linux import limits
from criollo.linux.cgroup import Hierarchies


def v1(root: Path) -> Hierarchies:
    for controller, files in {
        "cpu": {"cpu.shares": "512\n", "cpu.cfs_quota_us": "-1\n"},
        "memory": {"memory.limit_in_bytes": "100\n", "memory.memsw.limit_in_bytes": "200\n"},
        "hugetlb": {"hugetlb.2MB.limit_in_bytes": "0\n", "hugetlb.2MB.failcnt": "7\n"},
    }.items():
        (root / controller / "pod").mkdir(parents=True)
        for name, content in files.items():
            (root / controller / "pod" / name).write_text(content)
    return Hierarchies({name: root / name for name in ("cpu", "memory", "hugetlb", "cpuset")}, None)


def v2(root: Path, **files: str) -> Hierarchies:
    (root / "pod").mkdir()
    for name, content in files.items():
        (root / "pod" / name.replace("_", ".")).write_text(content)
    return Hierarchies({}, root)


def test_version_1_has_files_by_controller_and_absent_ones_are_left_out(tmp_path: Path) -> None:
    held = limits.read(v1(tmp_path), "/pod")
    assert {file.name: content for file, content in held.items()} == {
        "cpu.shares": "512",
        "cpu.cfs_quota_us": "-1",
        "memory.limit_in_bytes": "100",
        "memory.memsw.limit_in_bytes": "200",
        "hugetlb.2MB.limit_in_bytes": "0",
    }


def test_version_2_reads_what_an_update_names_as_well(tmp_path: Path) -> None:
    hierarchies = v2(tmp_path, memory_max="max\n", memory_high="5\n", memory_low="1\n")
    held = limits.read(hierarchies, "/pod", ["memory.high", "memory.absent"])
    assert {file.name: content for file, content in held.items()} == {"memory.max": "max", "memory.high": "5"}


def test_only_what_differs_is_written(tmp_path: Path) -> None:
    hierarchies = v1(tmp_path)
    held = limits.read(hierarchies, "/pod")
    shares, memory = tmp_path / "cpu/pod/cpu.shares", tmp_path / "memory/pod/memory.limit_in_bytes"
    shares.write_text("7")
    memory.chmod(0o400)
    limits.write(held)
    assert shares.read_text() == "512"
    assert memory.read_text() == "100\n"


def noted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is written to files from now on, instead of writing it: each call is one write(2), as the kernel wants it."""
    written: list[str] = []
    monkeypatch.setattr(Path, "write_text", lambda path, data, *rest: written.append(data))
    return written


def test_a_device_that_had_no_limit_has_none_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "io.max"
    file.write_text("8:0 rbps=1 wbps=max riops=max wiops=max\n8:16 rbps=9 wbps=max riops=max wiops=max\n")
    written = noted(monkeypatch)
    limits.put_back({file: "8:16 rbps=2 wbps=max riops=max wiops=max"})
    assert written == ["8:16 rbps=2 wbps=max riops=max wiops=max", "8:0 rbps=max wbps=max riops=max wiops=max"]


def test_lines_of_devices_are_written_one_by_one_and_others_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "io.max"
    file.write_text("8:0 rbps=1\n")
    written = noted(monkeypatch)
    limits.write({file: "8:16 rbps=2\n8:32 rbps=3"})
    assert written == ["8:16 rbps=2", "8:32 rbps=3"]


def test_a_cgroup_that_is_gone_has_no_limits_and_takes_none(tmp_path: Path) -> None:
    hierarchies = v2(tmp_path)
    assert limits.read(hierarchies, "/other") == {}
    with pytest.raises(OSError, match="No such file"):
        limits.write({tmp_path / "other" / "memory.max": "5"})
