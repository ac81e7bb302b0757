"""Faults in a daemon that was started with their points (`support.faulty_daemon`): struck while it runs, without a restart."""

import contextlib
import subprocess
from collections.abc import Callable, Iterator

import grpc
import pytest
from support.daemon import Daemon


@contextlib.contextmanager
def struck(daemon: Daemon, point: str, action: str) -> Iterator[None]:
    """The next call at the point does as told: "kill" or "fail". It must come within the block."""
    file = daemon.place / "fault"
    staged = file.with_name("fault.new")
    staged.write_text(f"{point}:{action}")
    staged.rename(file)
    try:
        yield
        assert not file.exists(), f"nobody came past {point}"
    finally:
        file.unlink(missing_ok=True)


def killed(daemon: Daemon, point: str, act: Callable[[], object]) -> None:
    """Act until the daemon dies at the point; start a sound one."""
    with struck(daemon, point, "kill"):
        with pytest.raises((grpc.RpcError, subprocess.CalledProcessError)):
            act()
        daemon.wait_death()
    daemon.start()


def failed(daemon: Daemon, point: str, act: Callable[[], object]) -> str:
    """Act with a failure at the point, and return what the caller was told."""
    with struck(daemon, point, "fail"), pytest.raises(grpc.RpcError) as told:
        act()
    return str(told.value.details())
