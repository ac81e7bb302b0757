"""A daemon that is killed or failed on purpose; afterwards nothing may be left and everything must work again."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import leaks
from support.daemon import Daemon, running_daemon
from support.hooked import Hooks
from support.images import busybox_image, push
from support.registry import Registry, run_registry


@pytest.fixture(scope="session")
def registry() -> Iterator[Registry]:
    with run_registry() as running:
        push(running, "busybox", "latest", busybox_image())
        yield running


@pytest.fixture(scope="module")
def hooks(tmp_path_factory: pytest.TempPathFactory) -> Hooks:
    return Hooks(tmp_path_factory.mktemp("hooks"))


@pytest.fixture
def image(registry: Registry) -> str:
    return registry.reference("busybox")


@pytest.fixture
def daemon(registry: Registry, tmp_path: Path) -> Iterator[Daemon]:
    """A daemon with the image pulled; everything it and its successors made must be gone at the end."""
    before = leaks.snapshot()
    with running_daemon(tmp_path / "node", registries=registry.registries_conf()) as running:
        running.pull(registry.reference("busybox"))
        yield running
    assert leaks.leaked(before) == {}
