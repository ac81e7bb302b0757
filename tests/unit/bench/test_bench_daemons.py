"""The configuration that our daemon and CRI-O have alike in `make bench`."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from criollo.config.load import load


@pytest.fixture
def daemons(program: Callable[[str], ModuleType]) -> ModuleType:
    return program("daemons")


def test_what_a_daemon_is_told_of_its_own_stands_beside_what_both_are_told(daemons: ModuleType, tmp_path: Path) -> None:
    more = {"crio.runtime": {"default_runtime": "crun"}, "crio.nri": {"enable_nri": False}}
    told = tomllib.loads(daemons.write_crio_conf(tmp_path, tmp_path / "net.d", more).read_text())["crio"]
    assert told["runtime"]["cgroup_manager"] == "cgroupfs"
    assert told["runtime"]["default_runtime"] == "crun"
    assert told["runtime"]["runtimes"]["crun"]["runtime_root"] == f"{tmp_path}/crun"
    assert told["nri"] == {"enable_nri": False}


def test_our_daemon_knows_all_that_it_is_told(daemons: ModuleType, tmp_path: Path) -> None:
    path = daemons.write_crio_conf(tmp_path, tmp_path / "net.d", {"crio": {"root": f"{tmp_path}/root"}})
    loaded = load(path, None, environ={}, overrides={})
    assert loaded.warnings == ()
    assert loaded.settings.api.listen == f"{tmp_path}/crio.sock"
