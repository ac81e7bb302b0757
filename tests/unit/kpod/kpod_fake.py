"""A runtime that kpod can talk to: a real CRI server and HTTP server on a real socket, with pods that are only records."""

import asyncio
import contextlib
import datetime
import secrets
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from criollo.aio.http_server import HttpServer, Reply, Request
from criollo.aio.parcels import ParcelLine, streams_on
from criollo.cri.pb import api_pb2 as pb
from criollo.cri.server import Server
from criollo.daemon.front_door import FrontDoor
from criollo.errors import NotFound
from criollo.model.ids import ContainerId
from criollo.model.session import ExecSession
from criollo.model.transfer import Event
from criollo.streaming.collect import collect
from criollo.streaming.negotiate import spdy_head
from criollo.streaming.session import Status
from criollo.streaming.spdy import SpdyConnection
from criollo.wire.parcels import ParcelKind

IMAGE_ID = "ab" * 32


class Said(NamedTuple):
    """What a call of kpod left: exit status, standard output, standard error."""

    status: int
    out: str
    err: str


Kpod = Callable[..., Said]


def log_line(text: str, stream: str = "stdout", tag: str = "F") -> bytes:
    stamp = datetime.datetime(2026, 11, 21, 10, 0, tzinfo=datetime.UTC).isoformat().replace("+00:00", ".000000001+00:00")
    return f"{stamp} {stream} {tag} {text}\n".encode()


class FakeNode:
    """Pods, containers and images in memory. `calls` has every request; `program` decides what a started container does."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.network_trouble = ""
        self.pods: dict[str, Any] = {}
        self.containers: dict[str, Any] = {}
        self.configs: dict[str, Any] = {}
        self.log_paths: dict[str, Path] = {}
        self.exits: dict[str, tuple[int, str]] = {}
        self.images: dict[str, Any] = {}
        self.failures: dict[str, Exception] = {}
        self.before: dict[str, Callable[[], object]] = {}  # by method: what happens once, before the next call is answered
        self.pulls: list[Any] = []
        self.pull_steps: list[Any] = []
        self.has_told = False  # all steps, to whoever follows the pull
        self.http_requests: list[Request] = []
        self.http_answers: dict[str, bytes] = {}  # by path: what the routes of images answer
        self.archive = b""  # what a save on a pipe gives
        self.archive_error = ""
        self.archive_is_cut = False
        self.usage_ns = 0
        self.program: Callable[[FakeNode, str], None] = lambda node, id_: node.end(id_, b"", 0)

    def add_image(self, name: str, *, uid: int | None = 0, username: str = "", image_id: str = IMAGE_ID) -> None:
        image = pb.Image(
            id=image_id, repo_tags=[name], repo_digests=[f"{name.rpartition(':')[0]}@sha256:{'c' * 64}"], size=2048
        )
        image.username = username
        if uid is not None:
            image.uid.value = uid
        self.images[name] = image

    def add_pod(self, name: str, *, namespace: str = "default", ready: bool = True, **labels: str) -> str:
        config = pb.PodSandboxConfig(
            metadata=pb.PodSandboxMetadata(name=name, namespace=namespace, uid=f"uid-{name}"), labels=labels
        )
        return self._add_pod(config, ready=ready)

    def _add_pod(self, config: Any, *, ready: bool = True) -> str:
        pod_id = secrets.token_hex(32)
        self.pods[pod_id] = pb.PodSandbox(
            id=pod_id,
            metadata=config.metadata,
            labels=config.labels,
            annotations=config.annotations,
            created_at=time.time_ns(),
            state=pb.SANDBOX_READY if ready else pb.SANDBOX_NOTREADY,
        )
        self.configs[pod_id] = config
        return pod_id

    def add_container(self, pod_id: str, name: str, *, state: int = pb.CONTAINER_RUNNING, log: Path | None = None) -> str:
        config = pb.ContainerConfig(metadata=pb.ContainerMetadata(name=name), image=pb.ImageSpec(image="busybox"))
        return self._add_container(pod_id, config, state=state, log=log)

    def _add_container(self, pod_id: str, config: Any, *, state: int, log: Path | None) -> str:
        container_id = secrets.token_hex(32)
        self.containers[container_id] = pb.Container(
            id=container_id,
            pod_sandbox_id=pod_id,
            metadata=config.metadata,
            image=config.image,
            image_id=IMAGE_ID,
            labels=config.labels,
            created_at=time.time_ns(),
            state=state,
        )
        self.configs[container_id] = config
        if log is not None:
            self.log_paths[container_id] = log
        return container_id

    def end(self, container_id: str, output: bytes, code: int, reason: str = "Completed") -> None:
        """The container writes its log and ends."""
        self.write(container_id, output)
        self.exits[container_id] = (code, reason)
        self.containers[container_id].state = pb.CONTAINER_EXITED

    def write(self, container_id: str, output: bytes) -> None:
        with open(self.log_paths[container_id], "ab") as file:
            file.write(output)

    def named(self, method: str) -> list[Any]:
        return [request for name, request in self.calls if name == method]

    # The services.

    def services(self) -> dict[str, dict[str, Any]]:
        runtime = {
            name: self._noting(name, getattr(self, f"_{name}"))
            for name in (
                *("Status", "RunPodSandbox", "StopPodSandbox", "RemovePodSandbox", "PodSandboxStatus", "ListPodSandbox"),
                *("CreateContainer", "StartContainer", "StopContainer", "RemoveContainer", "ContainerStatus", "ListContainers"),
                *("Exec", "ListContainerStats"),
            )
        }
        image = {
            name: self._noting(name, getattr(self, f"_{name}"))
            for name in ("ListImages", "ImageStatus", "PullImage", "RemoveImage")
        }
        return {"runtime.v1.RuntimeService": runtime, "runtime.v1.ImageService": image}

    def _noting(self, name: str, work: Callable[[Any], Any]) -> Callable[[Any], Any]:
        async def handler(request: Any) -> Any:
            self.calls.append((name, request))
            if name in self.failures:
                raise self.failures[name]
            told = self.before.pop(name, lambda: None)()
            if asyncio.iscoroutine(told):
                await told
            reply = work(request)
            return await reply if asyncio.iscoroutine(reply) else reply

        return handler

    def _Status(self, request: Any) -> Any:
        network = pb.RuntimeCondition(type="NetworkReady", status=not self.network_trouble, message=self.network_trouble)
        return pb.StatusResponse(status=pb.RuntimeStatus(conditions=[network]))

    def _RunPodSandbox(self, request: Any) -> Any:
        same = next((pod.id for pod in self.pods.values() if pod.metadata == request.config.metadata), "")
        return pb.RunPodSandboxResponse(pod_sandbox_id=same or self._add_pod(request.config))

    def _StopPodSandbox(self, request: Any) -> Any:
        if request.pod_sandbox_id in self.pods:
            self.pods[request.pod_sandbox_id].state = pb.SANDBOX_NOTREADY
        return pb.StopPodSandboxResponse()

    def _RemovePodSandbox(self, request: Any) -> Any:
        self.pods.pop(request.pod_sandbox_id, None)
        for each in [c.id for c in self.containers.values() if c.pod_sandbox_id == request.pod_sandbox_id]:
            del self.containers[each]
        return pb.RemovePodSandboxResponse()

    def _PodSandboxStatus(self, request: Any) -> Any:
        pod = self.pods[request.pod_sandbox_id]
        status = pb.PodSandboxStatus(
            id=pod.id, metadata=pod.metadata, state=pod.state, labels=pod.labels, annotations=pod.annotations
        )
        status.network.ip = "10.1.2.3"
        return pb.PodSandboxStatusResponse(status=status, info={"info": '{"pid": 7}'} if request.verbose else {})

    def _ListPodSandbox(self, request: Any) -> Any:
        return pb.ListPodSandboxResponse(items=self.pods.values())

    def _CreateContainer(self, request: Any) -> Any:
        directory = Path(request.sandbox_config.log_directory)
        log = directory / request.config.log_path
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
        made = self._add_container(request.pod_sandbox_id, request.config, state=pb.CONTAINER_CREATED, log=log)
        return pb.CreateContainerResponse(container_id=made)

    def _StartContainer(self, request: Any) -> Any:
        self.containers[request.container_id].state = pb.CONTAINER_RUNNING
        self.program(self, request.container_id)
        return pb.StartContainerResponse()

    def _StopContainer(self, request: Any) -> Any:
        if self.containers[request.container_id].state == pb.CONTAINER_RUNNING:
            self.exits[request.container_id] = (137, "Error")
            self.containers[request.container_id].state = pb.CONTAINER_EXITED
        return pb.StopContainerResponse()

    def _RemoveContainer(self, request: Any) -> Any:
        self.containers.pop(request.container_id, None)
        return pb.RemoveContainerResponse()

    def _ContainerStatus(self, request: Any) -> Any:
        container = self.containers.get(request.container_id)
        if container is None:
            raise NotFound("container", request.container_id)
        code, reason = self.exits.get(container.id, (0, ""))
        status = pb.ContainerStatus(
            id=container.id, metadata=container.metadata, state=container.state, exit_code=code, reason=reason
        )
        status.log_path = str(self.log_paths.get(container.id, ""))
        return pb.ContainerStatusResponse(status=status, info={"info": '{"pid": 7}', "x": "y"} if request.verbose else {})

    def _ListContainers(self, request: Any) -> Any:
        return pb.ListContainersResponse(containers=self.containers.values())

    def _Exec(self, request: Any) -> Any:
        return pb.ExecResponse(url="https://elsewhere:1/exec/token")

    def _ListContainerStats(self, request: Any) -> Any:
        self.usage_ns += 1_000_000_000
        found = []
        for each in self.containers.values():
            if each.state == pb.CONTAINER_RUNNING:
                stats = pb.ContainerStats(attributes=pb.ContainerAttributes(id=each.id, metadata=each.metadata))
                stats.cpu.timestamp = self.usage_ns * 2
                stats.cpu.usage_core_nano_seconds.value = self.usage_ns
                stats.memory.working_set_bytes.value = 3 << 20
                stats.memory.available_bytes.value = 61 << 20
                stats.writable_layer.used_bytes.value = 4096
                found.append(stats)
        return pb.ListContainerStatsResponse(stats=found)

    def _ListImages(self, request: Any) -> Any:
        return pb.ListImagesResponse(images=self.images.values())

    def _ImageStatus(self, request: Any) -> Any:
        name = request.image.image
        found = next((each for key, each in self.images.items() if name in (key, each.id)), None)
        return pb.ImageStatusResponse(image=found, info={"info": '{"imageSpec": {}}'} if request.verbose and found else {})

    async def _PullImage(self, request: Any) -> Any:
        if self.pull_steps:
            self.pulls = [self.pull_steps[0]]
            while not self.has_told:
                await asyncio.sleep(0.005)
        self.pulls = []
        self.add_image(request.image.image)
        return pb.PullImageResponse(image_ref=IMAGE_ID)

    async def _events(self) -> AsyncGenerator[bytes, None]:
        for step in self.pull_steps:
            news = [Event(type="layer", place=place, layer=layer) for place, layer in enumerate(step.layers)]
            yield b"".join(msgspec.json.encode(each) + b"\n" for each in news)
        self.has_told = True

    def _RemoveImage(self, request: Any) -> Any:
        self.images.pop(request.image.image, None)
        return pb.RemoveImageResponse()

    # HTTP.

    def upgrades(self) -> dict[str, Any]:
        async def exec_(request: Request, transport: asyncio.Transport) -> None:
            connection = SpdyConnection()
            transport.write(spdy_head("v4.channel.k8s.io"))
            connection.start(transport)
            offered = await collect(
                connection, ExecSession(container_id=ContainerId("c"), argv=("x",), stdout=True, stderr=True), 4
            )
            assert offered.streams.stdout is not None
            assert offered.streams.stderr is not None
            await offered.streams.stdout.write(b"out\n")
            await offered.streams.stderr.write(b"err\n")
            await offered.finish(Status(exit_code=5))
            await connection.close()

        async def saved(request: Request, transport: asyncio.Transport) -> None:
            self.http_requests.append(request)
            transport.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: criollo-files\r\n\r\n")
            line = ParcelLine(*streams_on(transport))
            await line.send(ParcelKind.DATA, self.archive)
            if not self.archive_is_cut:
                await line.send(ParcelKind.FAILED if self.archive_error else ParcelKind.END, self.archive_error.encode())
                await line.gone()
            line.close()

        return {"/exec/": exec_, "/saved": saved}

    def routes(self) -> dict[tuple[str, str], Any]:
        async def pulls(request: Request) -> Reply:
            self.http_requests.append(request)
            return Reply(body=msgspec.json.encode(self.pulls))

        async def events(request: Request) -> Reply:
            self.http_requests.append(request)
            return Reply(parts=self._events(), content_type="application/x-ndjson")

        async def listed(request: Request) -> Reply:
            self.http_requests.append(request)
            if request.path in self.failures:
                raise self.failures[request.path]
            return Reply(body=msgspec.json.encode({"images": [{"id": IMAGE_ID, "names": ["x.y/z:1"]}]}))

        async def answered(request: Request) -> Reply:
            self.http_requests.append(request)
            if request.path in self.failures:
                raise self.failures[request.path]
            return Reply(body=self.http_answers.get(request.path, b"{}"))

        posts = ("tag", "untag", "prune", "import", "push", "pull", "containerd")
        gets = ("history", "tree", "usage", "manifest", "config", "containerd")
        return {
            ("GET", "/pulls"): pulls,
            ("GET", "/pulls/{}/events"): events,
            **{("POST", f"/images/{name}"): listed for name in ("load", "save")},
            **{("POST", f"/images/{name}"): answered for name in posts},
            **{("GET", f"/images/{name}"): answered for name in gets},
        }


@contextlib.contextmanager
def serving(node: FakeNode, path: Path) -> Iterator[None]:
    """Serve the node at `path` from a loop in another thread."""
    started, stop = threading.Event(), threading.Event()

    async def main() -> None:
        server = Server(node.services())
        door = FrontDoor(path, grpc=server.serve, http=HttpServer(node.routes(), upgrades=node.upgrades()).serve)
        door.open()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(door.run())
            started.set()
            while not stop.is_set():
                await asyncio.sleep(0.005)
            door.stop_accepting()
            await server.drain(5)
            task.cancel()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    assert started.wait(60)
    try:
        yield
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()
