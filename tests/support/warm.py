"""Daemons for the tests of a whole module: they have run a container before, and leave nothing when they end."""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from support import leaks
from support.daemon import Daemon, running_daemon, warm_up
from support.registry import Registry
from support.stores import disk


@contextlib.contextmanager
def passable() -> Iterator[Path]:
    """A directory that users of a pod may pass, as they may pass /var/lib: pytest's own are closed to them.

    Its path is short too, as a real node's: sockets below it have names of 64 letters.
    """
    directory = Path(tempfile.mkdtemp(prefix="criollo-", dir="/var/tmp"))
    try:
        yield directory
    finally:
        directory.rmdir()


@contextlib.contextmanager
def disk_daemon(driver: str, kind: str, registry: Registry, settings: Mapping[str, Any]) -> Iterator[tuple[Daemon, Path]]:
    """A daemon with its root on a disk of its own (`stores.disk`), and that root."""
    before = leaks.snapshot()
    with disk(kind) as place, passable() as home:
        root = place / "root"
        own = {"crio.root": str(root), "crio.storage_driver": driver, **settings}
        with running_daemon(home, registries=registry.registries_conf(), settings=own) as daemon:
            yield daemon, root
    assert leaks.leaked(before) == {}


@contextlib.contextmanager
def warm_daemon(directory: Path, registry: Registry, **options: Any) -> Iterator[Daemon]:
    """A daemon that has pulled the registry's busybox and run it; `options` are `running_daemon`'s."""
    before = leaks.snapshot()
    with running_daemon(directory, registries=registry.registries_conf(), **options) as running:
        running.pull(registry.reference("busybox"))
        warm_up(running, registry.reference("busybox"))
        yield running
    assert leaks.leaked(before) == {}
