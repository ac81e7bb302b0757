"""User namespaces that an annotation asks for, with ranges of the node."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.cri import pb
from support.daemon import Daemon
from support.registry import Registry
from support.warm import passable, warm_daemon

pytestmark = pytest.mark.node

FIRST, SIZE = 700_000, 65_536  # the daemon's ranges hold three pods
KEY = "userns-mode.crio.io"
handlers = pytest.mark.parametrize("handler", ["crun", "runc"])


@pytest.fixture(scope="module")
def daemon(registry: Registry) -> Iterator[Daemon]:
    settings = {f"crio.runtime.runtimes.{name}.allowed_annotations": [KEY] for name in ("crun", "runc")}
    with passable() as place, warm_daemon(place, registry, settings=settings, tuned={"first_subid": FIRST}) as running:
        yield running


def run_pod(daemon: Daemon, mode: str, *, handler: str = "", user: int | None = None, key: str = KEY) -> str:
    config = daemon.pod_config(annotations={key: mode})
    if user is not None:
        config.linux.security_context.run_as_user.value = user
        config.linux.security_context.run_as_group.value = user
    return daemon.run_pod(config, handler=handler)


def run(daemon: Daemon, image: str, pod: str, *, user: int | None = None) -> str:
    config: Any = daemon.container_config(image, "sleep", "1000")
    if user is not None:
        config.linux.security_context.run_as_user.value = user
    return daemon.run_container(pod, config)


def maps(daemon: Daemon, container: str) -> tuple[list[int], list[int]]:
    return tuple(  # type: ignore[return-value]  # of two
        [int(word) for word in daemon.output(container, "cat", f"/proc/self/{kind}_map").split()] for kind in ("uid", "gid")
    )


@handlers
@pytest.mark.parametrize("key", [KEY, "io.kubernetes.cri-o.userns-mode"])
def test_auto_maps_a_free_piece(daemon: Daemon, image: str, handler: str, key: str) -> None:
    container = run(daemon, image, run_pod(daemon, "auto", handler=handler, key=key), user=1234)
    assert maps(daemon, container) == ([0, FIRST, SIZE], [0, FIRST, SIZE])
    assert daemon.output(container, "id", "-u") == "1234\n"
    assert f"Uid:\t{FIRST + 1234}\t" in Path(f"/proc/{daemon.info(container)['pid']}/status").read_text()


@handlers
def test_keep_id_and_map_to_root_and_given_mappings(daemon: Daemon, image: str, handler: str) -> None:
    keeps = run(daemon, image, run_pod(daemon, "auto:keep-id=true;size=2000", handler=handler, user=1234), user=1234)
    assert maps(daemon, keeps)[0] == [0, FIRST, 1234, 1234, 1234, 1, 1235, FIRST + 1234, 765]
    assert "Uid:\t1234\t" in Path(f"/proc/{daemon.info(keeps)['pid']}/status").read_text()
    roots = run(daemon, image, run_pod(daemon, "auto:map-to-root=true;size=10", handler=handler, user=1234))
    assert maps(daemon, roots)[0] == [0, 1234, 1, 1, FIRST + 1999, 9]
    assert daemon.output(roots, "id", "-u") == "0\n"
    assert "Uid:\t1234\t" in Path(f"/proc/{daemon.info(roots)['pid']}/status").read_text()
    private = run(daemon, image, run_pod(daemon, "private:uidmapping=0:5000:100", handler=handler, user=0))
    assert maps(daemon, private) == ([0, 5000, 100], [0, 5000, 100])
    for container in (keeps, roots, private):  # the image's files belong to the root inside, also through pieces
        assert daemon.output(container, "stat", "-c", "%u:%g", "/bin/busybox") == "0:0\n"


@handlers
@pytest.mark.parametrize("mode", ["auto", "auto:keep-id=true", "auto:map-to-root=true;size=10"])
def test_pod_that_shares_its_processes_runs_too(daemon: Daemon, image: str, handler: str, mode: str) -> None:
    config = daemon.pod_config(annotations={KEY: mode})
    config.linux.security_context.namespace_options.pid = pb.POD
    config.linux.security_context.run_as_user.value = 1234
    config.linux.security_context.run_as_group.value = 1234
    wanted = daemon.container_config(image, "sleep", "1000")
    wanted.linux.security_context.namespace_options.pid = pb.POD
    container = daemon.run_container(daemon.run_pod(config, handler=handler), wanted)
    assert "sleep" in daemon.output(container, "ps")


def test_no_two_pods_share_ids_and_a_restart_forgets_none(daemon: Daemon, image: str) -> None:
    pods = [run_pod(daemon, "auto"), run_pod(daemon, "auto")]
    daemon.restart(signal.SIGKILL)
    pods.append(run_pod(daemon, "auto"))
    firsts = [maps(daemon, run(daemon, image, pod))[0][1] for pod in pods]
    assert sorted(firsts) == [FIRST, FIRST + SIZE, FIRST + 2 * SIZE]
    with pytest.raises(grpc.RpcError) as error:
        run_pod(daemon, "auto")
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    daemon.remove_pod(pods[1])
    assert maps(daemon, run(daemon, image, run_pod(daemon, "auto")))[0][1] == firsts[1]


@pytest.mark.parametrize("mode", ["auto:keep-id=true;map-to-root=true", "auto:size=x", "host", "private:uidmapping=0:0:10"])
def test_what_cannot_be_is_refused_and_leaves_nothing(daemon: Daemon, mode: str) -> None:
    with pytest.raises(grpc.RpcError) as error:
        run_pod(daemon, mode, user=0)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert KEY in str(error.value.details())


def test_configured_mappings_are_those_of_every_pod(registry: Registry) -> None:
    settings = {
        "crio.runtime.uid_mappings": "0:5000:1000",
        "crio.runtime.gid_mappings": "0:6000:1000",
        "crio.runtime.minimum_mappable_uid": 4000,
    }
    with passable() as place, warm_daemon(place, registry, settings=settings) as daemon:
        image = registry.reference("busybox")
        container = run(daemon, image, daemon.run_pod())
        assert maps(daemon, container) == ([0, 5000, 1000], [0, 6000, 1000])
        own = daemon.pod_config()
        own.linux.security_context.run_as_user.value = 7
        options = own.linux.security_context.namespace_options.userns_options
        options.mode = pb.POD
        for ids in (options.uids, options.gids):
            ids.add(host_id=3000, container_id=0, length=1000)
        with pytest.raises(grpc.RpcError) as error:
            daemon.run_pod(own)
        assert "minimum_mappable_uid" in str(error.value.details())
