"""Both services over real rows, through a server and a client; what needs a node is tested with the node."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest
from cri_random import messages
from hypothesis import HealthCheck, given, settings
from msgspec.structs import replace
from test_cri_write import make_container, make_pod

from criollo import errors
from criollo.containers import status as container_status
from criollo.containers.context import Containers, Places
from criollo.cri.client import IMAGE, RUNTIME, Client, connect_socket
from criollo.cri.facts import HandlerFacts, NodeFacts
from criollo.cri.image import ImageService
from criollo.cri.pb import api_pb2 as pb
from criollo.cri.runtime import RuntimeService
from criollo.cri.server import Server
from criollo.images.context import Images
from criollo.model.container import ContainerState
from criollo.model.ids import ImageId
from criollo.model.image import Image
from criollo.model.session import Session
from criollo.network.cni import Cni
from criollo.pods.context import Pods
from criollo.registry.hosts import Hosts
from criollo.state.images import ImageRows
from criollo.state.records import State

FACTS = NodeFacts(
    version="0.1.0",
    uses_systemd=False,
    handlers=lambda: [HandlerFacts(name="", user_namespaces=True), HandlerFacts(name="crun", user_namespaces=True)],
    config_json=lambda: '{"sandboxImage":"","crio":{}}',
)
IMAGE_ROW = Image(
    id=ImageId("e" * 64),
    names=("docker.io/library/busybox:latest",),
    manifest_digest="sha256:" + "1" * 64,
    manifest=b"{}",
    config=b'{"architecture":"amd64","os":"linux","config":{"User":"1000:1000"},"rootfs":{"type":"layers","diff_ids":[]}}',
    layers=(),
    size_bytes=100,
    pulled_ns=1,
)


class _Registry:
    hosts = Hosts.load(None)


def node(tmp_path: Path) -> Pods:
    """The domain over real rows, without drivers."""
    none = cast(Any, None)
    images = Images(ImageRows(tmp_path / "images.db"), none, roots=none, workers=none, registry=cast(Any, _Registry))
    places = Places(tmp_path / "root", tmp_path / "run", namespaces=tmp_path / "ns")
    state = State(tmp_path / "state.db")
    containers = Containers(state, images, roots=none, handlers=none, workers=none, places=places, collector=none, tasks=none)
    return Pods(containers, network=Cni(tmp_path / "net.d", [], tmp_path / "cache"), hierarchies=none)


def fill(pods: Pods) -> Pods:
    """Three pods, five containers of the first (the first of them has ended), one image."""
    for number in range(3):
        pods.state.pods.insert(replace(make_pod(f"{number}" * 64), name=f"pod-{number}"))
    for number in range(5):
        state = ContainerState.RUNNING if number else ContainerState.EXITED
        container = make_container(f"{number}" * 64, pod_id="0" * 64, state=state)
        pods.state.containers.insert(replace(container, name=f"container-{number}"))
    pods.containers.images.rows.add(IMAGE_ROW)
    return pods


def issue(session: Session) -> str:
    """Where a session would be opened."""
    return f"http://localhost/{type(session).__name__}"


def serve(
    tmp_path: Path, use: Callable[[Client], Awaitable[Any]], *, also: Callable[[Pods], object] = lambda pods: None
) -> Any:
    """Run `use` with a client of both services over the rows of `fill`, and what `also` adds."""

    async def main() -> Any:
        pods = fill(node(tmp_path))
        also(pods)
        server = Server(
            {RUNTIME: RuntimeService(pods, FACTS, issue).calls(), IMAGE: ImageService(pods.containers.images).calls()}
        )
        ours, theirs = socket.socketpair()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(server.serve_on(ours))
                async with connect_socket(theirs) as client:
                    return await use(client)
        finally:
            pods.state.close()
            pods.containers.images.rows.close()

    return asyncio.run(main())


def test_version_names_criollo(tmp_path: Path) -> None:
    reply = serve(tmp_path, lambda client: client.runtime("Version", pb.VersionRequest()))
    assert (reply.version, reply.runtime_name, reply.runtime_version, reply.runtime_api_version) == (
        "0.1.0",
        "criollo",
        "0.1.0",
        "v1",
    )


def test_status_tells_why_the_network_is_not_ready(tmp_path: Path) -> None:
    reply = serve(tmp_path, lambda client: client.runtime("Status", pb.StatusRequest(verbose=True)))
    conditions = {each.type: each for each in reply.status.conditions}
    assert conditions["RuntimeReady"].status
    assert not conditions["NetworkReady"].status
    assert conditions["NetworkReady"].reason == "NetworkPluginNotReady"
    assert [each.name for each in reply.runtime_handlers] == ["", "crun"]
    assert reply.features.supplemental_groups_policy
    assert reply.info["config"].startswith("{")


def test_status_is_short_unless_asked(tmp_path: Path) -> None:
    assert not serve(tmp_path, lambda client: client.runtime("Status", pb.StatusRequest())).info


def test_runtime_config_names_the_cgroup_driver(tmp_path: Path) -> None:
    reply = serve(tmp_path, lambda client: client.runtime("RuntimeConfig", pb.RuntimeConfigRequest()))
    assert reply.linux.cgroup_driver == pb.CGROUPFS


def test_pod_cidr_is_accepted(tmp_path: Path) -> None:
    config = pb.RuntimeConfig(network_config=pb.NetworkConfig(pod_cidr="10.0.0.0/8"))
    assert (
        serve(
            tmp_path, lambda client: client.runtime("UpdateRuntimeConfig", pb.UpdateRuntimeConfigRequest(runtime_config=config))
        )
        is not None
    )


@pytest.mark.parametrize(
    ("service", "unary", "stream", "items", "parts"),
    [
        (RUNTIME, "ListContainers", "StreamContainers", "containers", "containers"),
        (RUNTIME, "ListPodSandbox", "StreamPodSandboxes", "items", "pod_sandboxes"),
        (IMAGE, "ListImages", "StreamImages", "images", "images"),
    ],
)
def test_streams_give_what_lists_give(tmp_path: Path, service: str, unary: str, stream: str, items: str, parts: str) -> None:
    async def use(client: Client) -> tuple[list[Any], list[Any]]:
        call = client.runtime if service == RUNTIME else client.image
        listed = await call(unary, getattr(pb, f"{unary}Request")())
        streamed = [reply async for reply in client.stream(service, stream, getattr(pb, f"{stream}Request")())]
        assert all(len(getattr(reply, parts)) for reply in streamed)
        return list(getattr(listed, items)), [item for reply in streamed for item in getattr(reply, parts)]

    listed, streamed = serve(tmp_path, use)
    assert listed == streamed
    assert listed


def test_status_by_prefix_and_by_nothing(tmp_path: Path) -> None:
    async def use(client: Client) -> None:
        assert (await client.runtime("ContainerStatus", pb.ContainerStatusRequest(container_id="3"))).status.id == "3" * 64
        assert (await client.runtime("PodSandboxStatus", pb.PodSandboxStatusRequest(pod_sandbox_id="2"))).status.id == "2" * 64
        with pytest.raises(errors.Invalid):
            await client.runtime("ContainerStatus", pb.ContainerStatusRequest())
        with pytest.raises(errors.NotFound):
            await client.runtime("ContainerStatus", pb.ContainerStatusRequest(container_id="f" * 64))
        with pytest.raises(errors.NotFound):
            await client.runtime("PodSandboxStatus", pb.PodSandboxStatusRequest(pod_sandbox_id="f" * 64))

    serve(tmp_path, use)


AMBIGUOUS = [
    ("ContainerStatus", "container_id"),
    ("StartContainer", "container_id"),
    ("StopContainer", "container_id"),
    ("RemoveContainer", "container_id"),
    ("ReopenContainerLog", "container_id"),
    ("ContainerStats", "container_id"),
    ("ExecSync", "container_id"),
    ("UpdateContainerResources", "container_id"),
    ("PodSandboxStatus", "pod_sandbox_id"),
    ("StopPodSandbox", "pod_sandbox_id"),
    ("RemovePodSandbox", "pod_sandbox_id"),
    ("PodSandboxStats", "pod_sandbox_id"),
    ("UpdatePodSandboxResources", "pod_sandbox_id"),
    ("CreateContainer", "pod_sandbox_id"),
]


@pytest.mark.parametrize(("method", "field"), AMBIGUOUS)
def test_a_beginning_that_several_ids_have_is_refused_by_every_verb(tmp_path: Path, method: str, field: str) -> None:
    request = getattr(pb, f"{method}Request")(**{field: "ab"})
    if method == "ExecSync":
        request.cmd.append("true")
    elif method.startswith("Update"):
        request.SetInParent()
        (request.linux if method == "UpdateContainerResources" else request.resources).cpu_shares = 2
    elif method == "CreateContainer":
        request.config.metadata.name, request.config.image.image = "c", "busybox"

    async def use(client: Client) -> None:
        with pytest.raises(errors.Invalid, match="more digits"):
            await client.runtime(method, request)

    serve(tmp_path, use, also=two_that_begin_alike)


def two_that_begin_alike(pods: Pods) -> None:
    for digit in "01":
        pods.state.pods.insert(replace(make_pod(f"ab{digit * 62}"), name=f"alike-{digit}"))
        container = make_container(f"ab{digit * 62}", pod_id="0" * 64, state=ContainerState.RUNNING)
        pods.state.containers.insert(replace(container, name=f"alike-{digit}"))


@pytest.mark.parametrize("pod", ["1" * 64, "1"])
def test_no_container_is_made_in_a_pod_that_nobody_has_collected(tmp_path: Path, pod: str) -> None:
    request = pb.CreateContainerRequest(pod_sandbox_id=pod)
    request.config.metadata.name, request.config.image.image = "c", "busybox"

    async def use(client: Client) -> None:
        with pytest.raises(errors.NotFound):
            await client.runtime("CreateContainer", request)

    serve(tmp_path, use, also=lambda pods: pods.state.pods.uncollected.add("1" * 64))


@pytest.mark.parametrize("pod", ["1" * 64, "1"])
def test_a_privileged_container_needs_a_privileged_pod(tmp_path: Path, pod: str) -> None:
    request = pb.CreateContainerRequest(pod_sandbox_id=pod)
    request.config.metadata.name, request.config.image.image = "c", "busybox"
    request.config.linux.security_context.privileged = True

    async def use(client: Client) -> None:
        with pytest.raises(errors.Invalid, match="no privileged container allowed in sandbox"):
            await client.runtime("CreateContainer", request)
        listed = await client.runtime("ListContainers", pb.ListContainersRequest())
        assert len(listed.containers) == 5

    serve(tmp_path, use)


def test_verbose_statuses_tell_what_is_so_when_they_are_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something happens while the spec is read: the status and what is told beside it are of after."""
    known: list[Pods] = []
    read = container_status.spec_of

    async def meanwhile(containers: Containers, object_id: str) -> bytes:
        state = known[0].state
        state.containers.put(replace(state.containers.find("3"), state=ContainerState.EXITED, pid=7))
        return await read(containers, object_id)

    monkeypatch.setattr(container_status, "spec_of", meanwhile)

    async def use(client: Client) -> None:
        told = await client.runtime("ContainerStatus", pb.ContainerStatusRequest(container_id="3", verbose=True))
        assert told.status.state == pb.CONTAINER_EXITED
        assert json.loads(told.info["info"])["pid"] == 7

    serve(tmp_path, use, also=known.append)


def test_stopping_and_removing_the_unknown_succeeds_but_needs_an_id(tmp_path: Path) -> None:
    async def use(client: Client) -> None:
        for verb in ("Stop", "Remove"):
            await client.runtime(f"{verb}Container", getattr(pb, f"{verb}ContainerRequest")(container_id="f" * 64))
            await client.runtime(f"{verb}PodSandbox", getattr(pb, f"{verb}PodSandboxRequest")(pod_sandbox_id="f" * 64))
            with pytest.raises(errors.Invalid):
                await client.runtime(f"{verb}Container", getattr(pb, f"{verb}ContainerRequest")())
            with pytest.raises(errors.Invalid):
                await client.runtime(f"{verb}PodSandbox", getattr(pb, f"{verb}PodSandboxRequest")())

    serve(tmp_path, use)


def test_image_is_found_by_every_name_and_absence_is_no_error(tmp_path: Path) -> None:
    async def use(client: Client) -> None:
        for name in ("busybox", "docker.io/library/busybox:latest", "e" * 64, "sha256:" + "e" * 64, "eeeeeee"):
            reply = await client.image("ImageStatus", pb.ImageStatusRequest(image=pb.ImageSpec(image=name), verbose=True))
            assert reply.image.id == "e" * 64
            assert reply.image.uid.value == 1000
            assert "imageSpec" in reply.info["info"]
        reply = await client.image("ImageStatus", pb.ImageStatusRequest(image=pb.ImageSpec(image="nothing")))
        assert not reply.HasField("image")
        await client.image("RemoveImage", pb.RemoveImageRequest(image=pb.ImageSpec(image="nothing")))

    serve(tmp_path, use)


@pytest.mark.parametrize(
    ("service", "method"),
    [
        (service.full_name, method.name)
        for service in pb.DESCRIPTOR.services_by_name.values()
        for method in service.methods
        if not method.name.endswith(("Stats", "SandboxMetrics")) and method.name != "ImageFsInfo"  # they need the drivers
    ],
)
def test_empty_request_is_answered_refused_or_not_implemented(tmp_path: Path, service: str, method: str) -> None:
    described = pb.DESCRIPTOR.services_by_name[service.rpartition(".")[2]].methods_by_name[method]
    request = getattr(pb, described.input_type.name)()

    async def use(client: Client) -> None:
        try:
            async for _ in client.stream(service, method, request):
                pass
        except errors.Unsupported as error:
            told = f"{method} is not implemented yet by criollo", "GetContainerEvents is switched off on this node"
            assert str(error).startswith(told)  # noqa: PT017
        except errors.Invalid:
            pass

    serve(tmp_path, use)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(messages(pb.ListContainersRequest), messages(pb.ListPodSandboxRequest))
def test_random_filters_are_answered_or_invalid(tmp_path_factory: Any, containers: Any, pods: Any) -> None:
    async def use(client: Client) -> None:
        for method, request in (("ListContainers", containers), ("ListPodSandbox", pods)):
            try:
                await client.runtime(method, request)
            except errors.Invalid:
                continue

    serve(tmp_path_factory.mktemp("node"), use)


def test_image_with_an_unreadable_config_takes_no_other_off_the_list(tmp_path: Path) -> None:
    broken = replace(IMAGE_ROW, id=ImageId("f" * 64), names=("docker.io/library/broken:latest",), config=b"{]")

    async def use(client: Client) -> Any:
        return await client.image("ListImages", pb.ListImagesRequest())

    reply = serve(tmp_path, use, also=lambda pods: pods.containers.images.rows.add(broken))
    assert sorted(each.id[0] for each in reply.images) == ["e", "f"]
