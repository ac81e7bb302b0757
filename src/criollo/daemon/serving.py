"""The engine behind a socket: gRPC and HTTP/1 on one path. The daemon serves the node so, kpod itself."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from criollo import __version__
from criollo.admin.images import image_routes
from criollo.admin.server import routes
from criollo.admin.views import HOST_IDS, NodeDescription
from criollo.aio.background import Background
from criollo.aio.http_server import HttpServer
from criollo.config.settings import Settings
from criollo.config.template import render
from criollo.cri.facts import HandlerFacts, NodeFacts
from criollo.cri.image import ImageService
from criollo.cri.runtime import RuntimeService
from criollo.cri.server import Limits, Server
from criollo.daemon.front_door import FrontDoor
from criollo.daemon.recovery import recover
from criollo.daemon.sweep import sweep_forever
from criollo.engine import Engine
from criollo.linux.cgroup import Driver
from criollo.storage.mapped import OVERLAY_SINCE

DRAIN_S = 10


@contextlib.asynccontextmanager
async def serve_on(engine: Engine, path: Path) -> AsyncIterator[None]:
    """Recover, then serve at `path` while the block runs; at its end let calls in progress finish.

    Raises:
        WrongState: another daemon answers at the path.
    """
    await recover(engine.pods)
    server = _grpc(engine)
    door = FrontDoor(path, grpc=server.serve, http=_http(engine).serve)
    door.open()
    async with Background() as tasks:
        tasks.start(door.run(), name="front door")
        tasks.start(sweep_forever(engine.pods), name="sweeper")
        try:
            yield
        finally:
            door.stop_accepting()
            await server.drain(DRAIN_S)


def _grpc(engine: Engine) -> Server:
    runtime = RuntimeService(engine.pods, _facts(engine))
    image = ImageService(engine.images)
    api = engine.settings.api
    limits = Limits(message_bytes=api.grpc_max_recv_msg_size, in_flight_bytes=2 * api.grpc_max_recv_msg_size)
    return Server({"runtime.v1.RuntimeService": runtime.calls(), "runtime.v1.ImageService": image.calls()}, limits=limits)


def _http(engine: Engine) -> HttpServer:
    settings = engine.settings
    node = NodeDescription(
        storage_driver=settings.storage_driver,
        storage_image=settings.imagestore,
        storage_root=settings.root,
        cgroup_driver=str(engine.driver),
        default_id_mappings=HOST_IDS,
    )
    return HttpServer(routes(node, lambda: render(settings), further=image_routes(engine.images)))


def _facts(engine: Engine) -> NodeFacts:
    handlers = [_handler(engine, name) for name in ("", *engine.handlers.names())]
    return NodeFacts(
        version=__version__,
        uses_systemd=engine.driver is Driver.SYSTEMD,
        handlers=lambda: handlers,
        user_namespaces_host_network=handlers[0].user_namespaces,  # sysfs and cgroups are the host's, bound and covered
        config_json=lambda: msgspec.json.encode(_config_document(engine.settings)).decode(),
    )


def _handler(engine: Engine, name: str) -> HandlerFacts:
    """User namespaces are offered where volumes can follow; pods without volumes of others run with older runtimes too."""
    defaults = engine.containers.defaults_of(name)
    return HandlerFacts(
        name=name,
        recursive_read_only_mounts=defaults.supports_rro,
        user_namespaces=defaults.supports_idmap and engine.host.kernel >= OVERLAY_SINCE,
    )


def _config_document(settings: Settings) -> dict[str, object]:
    """The `config` entry of a verbose Status, with the field names that tools know from CRI-O."""
    runtime = settings.runtime
    handlers = {
        name: {"RuntimePath": handler.runtime_path, "RuntimeType": handler.runtime_type, "RuntimeRoot": handler.runtime_root}
        for name, handler in runtime.runtimes.items()
    }
    crio = {
        "DefaultRuntime": runtime.default_runtime,
        "Runtimes": handlers,
        "CgroupManagerName": runtime.cgroup_manager,
        "Root": settings.root,
        "RunRoot": settings.runroot,
    }
    return {"sandboxImage": settings.image.pause_image, "crio": crio}
