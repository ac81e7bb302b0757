"""A configuration against a host: programs are found in a PATH made for the test."""

from pathlib import Path

import pytest

from criollo.config.host import Host, settle_on_host
from criollo.config.load import load
from criollo.errors import Invalid


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host with crun, runc and conmon."""
    for name in ("crun", "runc", "conmon"):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    return Host(search_path=str(tmp_path / "bin"))


def conf(tmp_path: Path, text: str) -> Path:
    """A file with this text."""
    path = tmp_path / "x.conf"
    path.write_text(text)
    return path


def test_programs_are_found_by_name(host: Host, tmp_path: Path) -> None:
    found = settle_on_host(load(None, None, environ={}, overrides={}, systemd=False), host)
    crun = found.settings.runtime.runtimes["crun"]
    assert (crun.runtime_path, crun.monitor_path) == (str(tmp_path / "bin/crun"), str(tmp_path / "bin/conmon"))
    assert found.warnings == ()


def test_handler_without_root_gets_one_of_its_name(host: Host, tmp_path: Path) -> None:
    path = conf(tmp_path, "[crio.runtime.runtimes.runc]\n")
    found = settle_on_host(load(path, None, environ={}, overrides={}, systemd=False), host)
    assert found.settings.runtime.runtimes["runc"].runtime_root == "/run/runc"


def test_missing_handler_is_left_out_with_a_warning(host: Host, tmp_path: Path) -> None:
    path = conf(tmp_path, "[crio.runtime.runtimes.youki]\nruntime_path = '/not/there'\n")
    found = settle_on_host(load(path, None, environ={}, overrides={}, systemd=False), host)
    assert set(found.settings.runtime.runtimes) == {"crun"}
    assert "youki is left out" in found.warnings[0]
    assert "/not/there" in found.warnings[0]


def test_missing_default_handler_is_an_error(host: Host, tmp_path: Path) -> None:
    path = conf(tmp_path, "[crio.runtime]\ndefault_runtime='youki'\n[crio.runtime.runtimes.youki]\n")
    with pytest.raises(Invalid, match="youki in PATH"):
        settle_on_host(load(path, None, environ={}, overrides={}, systemd=False), host)


def test_built_in_handler_that_is_missing_is_no_loss(host: Host, tmp_path: Path) -> None:
    (tmp_path / "bin/crun").unlink()
    path = conf(tmp_path, "[crio.runtime]\ndefault_runtime='runc'\n[crio.runtime.runtimes.runc]\n")
    found = settle_on_host(load(path, None, environ={}, overrides={}, systemd=False), host)
    assert (set(found.settings.runtime.runtimes), found.warnings) == ({"runc"}, ())


def test_missing_monitor_is_an_error(host: Host, tmp_path: Path) -> None:
    path = conf(tmp_path, "[crio.runtime.runtimes.crun]\nmonitor_path = '/not/there'\n")
    with pytest.raises(Invalid, match="conmon; install it"):
        settle_on_host(load(path, None, environ={}, overrides={}, systemd=False), host)


def test_inheriting_handler_runs_the_default_program(host: Host, tmp_path: Path) -> None:
    path = conf(tmp_path, "[crio.runtime.runtimes.strict]\ninherit_default_runtime = true\nno_sync_log = true\n")
    strict = settle_on_host(load(path, None, environ={}, overrides={}, systemd=False), host).settings.runtime.runtimes["strict"]
    assert (strict.runtime_path, strict.runtime_root, strict.no_sync_log) == (str(tmp_path / "bin/crun"), "/run/crun", True)


def test_systemd_manager_needs_systemd_and_gives_monitors_a_slice(host: Host) -> None:
    loaded = load(None, None, environ={}, overrides={}, systemd=True)
    with pytest.raises(Invalid, match="cgroupfs"):
        settle_on_host(loaded, host)
    found = settle_on_host(loaded, Host(search_path=host.search_path, systemd=True))
    assert found.settings.runtime.runtimes["crun"].monitor_cgroup == "system.slice"


def test_device_of_the_host_is_looked_at(host: Host) -> None:
    settle_on_host(
        load(None, None, environ={}, overrides={"crio.runtime.additional_devices": ["/dev/null"]}, systemd=False), host
    )
    for text in ("/dev/nothing", "/dev/fd"):
        loaded = load(None, None, environ={}, overrides={"crio.runtime.additional_devices": [text]}, systemd=False)
        with pytest.raises(Invalid, match="is not a valid device"):
            settle_on_host(loaded, host)
