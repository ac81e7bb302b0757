"""Conmon's command line."""

from pathlib import Path
from typing import Any

import pytest

from criollo.errors import Invalid
from criollo.monitor.conmon import Conmon, Launch


def _argv(conmon: Conmon | None = None, **options: Any) -> list[str]:
    options.setdefault("log_path", "/var/log/pods/p/c/0.log")
    launch = Launch(
        container_id="c1", name="n", bundle=Path("/run/b"), runtime=["/usr/bin/crun", "--root=/run/crun"], **options
    )
    return (conmon or _conmon()).argv(launch)


def _conmon(attach_dir: str = "/run/crio", **options: Any) -> Conmon:
    return Conmon(Path("/usr/bin/conmon"), exits_dir=Path("/run/exits"), attach_dir=Path(attach_dir), **options)


def test_plain_container() -> None:
    assert _argv() == (
        "/usr/bin/conmon --sync --cid c1 --cuuid c1 --name n --bundle /run/b --container-pidfile /run/b/pidfile"
        " --exit-dir /run/exits --socket-dir-path /run/crio --log-path k8s-file:/var/log/pods/p/c/0.log"
        " --runtime /usr/bin/crun --runtime-arg=--root=/run/crun"
    ).split(" ")


@pytest.mark.parametrize(
    ("options", "added"),
    [
        ({"tty": True}, {"--terminal"}),
        ({"stdin": True}, {"--stdin", "--leave-stdin-open"}),
        ({"stdin": True, "stdin_once": True}, {"--stdin"}),
        ({"stdin_once": True}, set()),
        ({"systemd_cgroup": True}, {"--systemd-cgroup"}),
        ({"no_pivot": True}, {"--no-pivot"}),
    ],
)
def test_options_of_a_container(options: dict[str, bool], added: set[str]) -> None:
    assert set(_argv(**options)) - set(_argv()) == added


def test_options_of_the_node() -> None:
    conmon = _conmon(log_size_max=8192, no_sync_log=True)
    assert set(_argv(conmon)) - set(_argv()) == {"--log-size-max", "8192", "--no-sync-log"}


def test_no_log() -> None:
    argv = _argv(_conmon(log_size_max=8192), log_path="")
    assert argv[argv.index("--log-path") + 1] == "off"
    assert "--log-size-max" not in argv


def test_colon_in_the_log_path_is_refused() -> None:
    with pytest.raises(Invalid, match="log_path"):
        _argv(log_path="/var/log/a:b")


def test_link_that_conmon_would_rename_is_not_made() -> None:
    assert "--full-attach" in _argv(_conmon("/".ljust(104, "x")))
    assert "--full-attach" not in _argv(_conmon("/".ljust(105, "x")))
