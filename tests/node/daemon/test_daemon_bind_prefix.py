"""`bind_mount_prefix`: sources of mounts lie below it, whatever links are there."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import Daemon
from support.registry import Registry
from support.warm import warm_daemon

pytestmark = pytest.mark.node


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(tmp_path_factory.mktemp("prefix"))


@pytest.fixture(scope="module")
def daemon(registry: Registry, prefix: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    directory = Path(tmp_path_factory.mktemp("node"))
    settings = {"crio.runtime.bind_mount_prefix": f"{prefix}/"}
    with warm_daemon(directory, registry, settings=settings) as running:
        yield running


def inside(daemon: Daemon, image: str, source: str, *command: str) -> str:
    config = daemon.container_config(image, "sleep", "1000")
    config.mounts.add(container_path="/v", host_path=source)
    return daemon.output(daemon.run_container(daemon.run_pod(), config), *command)


def test_a_source_is_looked_for_below_the_prefix(daemon: Daemon, image: str, prefix: Path) -> None:
    (prefix / "kept").mkdir()
    (prefix / "kept/file").write_text("below\n")
    (prefix / "link").symlink_to("/kept")
    assert inside(daemon, image, "/kept", "cat", "/v/file") == "below\n"
    assert inside(daemon, image, "/link", "cat", "/v/file") == "below\n"


def test_a_missing_source_is_made_below_the_prefix(daemon: Daemon, image: str, prefix: Path) -> None:
    inside(daemon, image, "/made/deep", "touch", "/v/here")
    assert (prefix / "made/deep/here").exists()
    assert not Path("/made").exists()


@pytest.mark.parametrize("target", ["/", "../../../../../../../.."])
def test_a_link_that_tries_to_leave_ends_at_the_prefix(daemon: Daemon, image: str, prefix: Path, target: str) -> None:
    link = prefix / f"leave{len(target)}"
    link.symlink_to(target)
    (prefix / "mark").touch()
    assert "mark" in inside(daemon, image, f"/{link.name}", "ls", "/v")
    inside(daemon, image, f"/{link.name}/tmp/criollo-left", "touch", "/v/here")
    assert (prefix / "tmp/criollo-left/here").exists()
    assert not Path("/tmp/criollo-left").exists()
