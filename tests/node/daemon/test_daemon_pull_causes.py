"""Why pulls fail, as metrics tell it; by real registries that refuse, and ones that are not there."""

import re
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from support.cri import pb
from support.daemon import Daemon, running_daemon
from support.images import busybox_layer, make_image, push
from support.registry import Registry

pytestmark = pytest.mark.node

NOBODY = "127.0.0.1:1"
PREFIX = "container_runtime_crio_image_pulls_failure_total"


@pytest.fixture(scope="module")
def daemon(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    place = Path(tmp_path_factory.mktemp("node"))
    settings = {
        "crio.metrics.enable_metrics": True,
        "crio.metrics.metrics_port": 0,
        "crio.image.short_name_mode": "permissive",
    }
    searched = f'unqualified-search-registries = ["{NOBODY}", "{registry.host}"]\n'
    insecure = "".join(f'[[registry]]\nlocation = "{each}"\ninsecure = true\n' for each in (NOBODY, registry.host))
    with running_daemon(place, registries=searched + insecure, settings=settings) as running:
        yield running


def failures(daemon: Daemon) -> dict[str, int]:
    url = re.findall(r'"serving metrics" url=(\S+)', daemon.log())[-1]
    with urllib.request.urlopen(url, timeout=30) as answer:
        text = answer.read().decode()
    return {cause: int(count) for cause, count in re.findall(PREFIX + r'\{error="([A-Z_]+)"\} (\d+)', text)}


def fail(daemon: Daemon, name: str) -> str:
    """The cause that a failing pull adds."""
    before = failures(daemon)
    with pytest.raises(grpc.RpcError):
        daemon.cri.call("PullImage", pb.PullImageRequest(image=pb.ImageSpec(image=name)))
    after = failures(daemon)
    [grown] = [cause for cause, count in after.items() if count != before.get(cause, 0)]
    assert after[grown] == before.get(grown, 0) + 1
    return grown


def test_image_that_is_not_there_is_told_in_the_registrys_own_word(daemon: Daemon, registry: Registry) -> None:
    assert fail(daemon, f"{registry.host}/no-such/image:v1") in ("MANIFEST_UNKNOWN", "NAME_UNKNOWN")


def test_refused_connection_is_told_as_such(daemon: Daemon) -> None:
    with socket.socket() as reserved:  # nobody listens on it, and nobody else can
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        assert fail(daemon, f"127.0.0.1:{port}/app:v1") == "CONNECTION_REFUSED"


def test_port_that_speaks_no_tls_is_told_as_such(daemon: Daemon, registry: Registry) -> None:
    port = registry.host.rpartition(":")[2]
    assert fail(daemon, f"localhost:{port}/app:v1") == "NO_TLS"


def test_meanings_of_a_short_name_are_one_pull(daemon: Daemon, registry: Registry) -> None:
    before = failures(daemon)
    push(registry, "meant", "v1", make_image([busybox_layer()]))
    daemon.pull("meant:v1")
    assert failures(daemon) == before
    assert fail(daemon, "no-such/short-name:v1") in ("MANIFEST_UNKNOWN", "NAME_UNKNOWN")
