"""The engine behind a socket: gRPC and HTTP/1 on one path. The daemon serves the node so, kpod itself."""

import asyncio
import contextlib
import functools
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import msgspec

from criollo import __version__
from criollo.admin.containers import container_routes
from criollo.admin.server import routes
from criollo.admin.views import HOST_IDS, NodeDescription
from criollo.aio.background import Background
from criollo.aio.http_server import HttpLimits, HttpServer, Reply, Request, Routes, Upgrade
from criollo.aio.together import together
from criollo.config.ciphers import openssl_names
from criollo.config.settings import Api, Settings
from criollo.config.template import render
from criollo.config.values import Duration
from criollo.cri.errors import Code
from criollo.cri.facts import HandlerFacts, NodeFacts
from criollo.cri.image import ImageService
from criollo.cri.runtime import RuntimeService
from criollo.cri.server import Limits, Server
from criollo.daemon.front_door import FrontDoor
from criollo.daemon.recovery import recover
from criollo.daemon.sweep import sweep_forever
from criollo.engine.opening import Engine
from criollo.linux.cgroup import Driver
from criollo.model.container import ContainerState
from criollo.storage.mapped import OVERLAY_SINCE
from criollo.streaming.listener import Listener
from criollo.streaming.server import Streaming
from criollo.streaming.tls import Certificates, TlsFiles
from criollo.telemetry import hooks

DRAIN_S: Final = 10
STREAMS_DRAIN_S: Final = 2
IDLE_S: Final = 4 * 3600.0  # of a session, where the settings name no other; as CRI-O


@contextlib.asynccontextmanager
async def serve_on(engine: Engine, path: Path, *, by_tcp: bool = False) -> AsyncIterator[None]:
    """Recover, then serve at `path` while the block runs; at its end let calls and sessions in progress finish.

    Exec, attach and port-forward are served at `path`, too; `by_tcp`: and at the streaming port of the settings.

    Raises:
        WrongState: another daemon answers at the path.
        Invalid, HostFailed: the streaming port or its certificates do not let us serve.
    """
    await recover(engine.pods)
    timeout = engine.settings.api.stream_idle_timeout
    streaming = Streaming(engine.pods, idle_s=Duration.parse(timeout).seconds if timeout else IDLE_S)
    server = _grpc(engine, streaming)
    door = FrontDoor(path, grpc=server.serve, http=_http(engine, streaming).serve)
    listener = _listener(engine.settings.api, streaming) if by_tcp else None
    with contextlib.ExitStack() as opened:
        if listener is not None:
            opened.callback(listener.stop_accepting)
            listener.open()
            streaming.base_url, streaming.hosts = listener.base_url, listener.hosts
        door.open()
        opened.pop_all()
    async with Background() as tasks:
        tasks.start(door.run(), name="front door")
        if listener is not None:
            tasks.start(listener.run(), name="streaming port")
        tasks.start(sweep_forever(engine.pods), name="sweeper")
        if engine.settings.stats.period_s and by_tcp:
            from criollo.pods.collection import collect_forever  # most nodes read when they are asked

            tasks.start(collect_forever(engine.pods, engine.settings.stats.period_s), name="collect statistics")
        try:
            yield
        finally:
            door.stop_accepting()
            if engine.pods.events is not None:
                engine.pods.events.close()
            if listener is not None:
                listener.stop_accepting()
            await together([server.drain(DRAIN_S), streaming.drain(STREAMS_DRAIN_S)])


def _listener(api: Api, streaming: Streaming) -> Listener:
    certificates = None
    if api.stream_enable_tls:
        ciphers = openssl_names(api.tls_cipher_suites)
        only_newest = api.tls_min_version == "VersionTLS13" or (api.tls_cipher_suites and not ciphers)
        files = TlsFiles(
            cert=Path(api.stream_tls_cert),
            key=Path(api.stream_tls_key),
            ca=Path(api.stream_tls_ca) if api.stream_tls_ca else None,
            minimum=ssl.TLSVersion.TLSv1_3 if only_newest else ssl.TLSVersion.TLSv1_2,
            ciphers=ciphers,
        )
        certificates = Certificates(files)
        certificates.load()
    http = HttpServer({}, HttpLimits(idle_s=10, body_bytes=64 << 10), upgrades=streaming.upgrades())
    return Listener(api.stream_address, int(api.stream_port), serve=http.serve, certificates=certificates)


def _grpc(engine: Engine, streaming: Streaming) -> Server:
    runtime = RuntimeService(engine.pods, _facts(engine), streaming.issue)
    image = ImageService(engine.images)
    api = engine.settings.api
    limits = Limits(message_bytes=api.grpc_max_recv_msg_size, in_flight_bytes=2 * api.grpc_max_recv_msg_size)
    observe = _observe if hooks.metrics is not None else None
    services = {"runtime.v1.RuntimeService": runtime.calls(), "runtime.v1.ImageService": image.calls()}
    return Server(services, limits=limits, observe=observe)


def _observe(operation: str, seconds: float, code: Code) -> None:
    if hooks.metrics is not None:
        hooks.metrics.call(operation, seconds, code is not Code.OK)


def _http(engine: Engine, streaming: Streaming) -> HttpServer:
    settings = engine.settings
    node = NodeDescription(
        storage_driver=settings.storage_driver,
        storage_image=settings.imagestore,
        storage_root=settings.root,
        cgroup_driver=str(engine.driver),
        default_id_mappings=HOST_IDS,
    )
    upgrades: dict[str, Upgrade] = {"/files": functools.partial(_files, engine), **streaming.upgrades()}
    often = routes(node, lambda: render(settings), further=container_routes(engine.containers))
    return HttpServer(often, upgrades=upgrades, rare=functools.partial(_rare_routes, engine))


async def _files(engine: Engine, request: Request, transport: asyncio.Transport) -> Reply | None:
    """Files of `kpod cp`, likewise."""
    from criollo.admin.archives import serve_files

    return await serve_files(engine.containers, request, transport)


def _rare_routes(engine: Engine) -> Routes:
    """What only people ask for, by kpod and crio: loaded when the first one does, because it is a MiB."""
    from criollo.admin.adoption import adoption_routes
    from criollo.admin.care import care_routes
    from criollo.admin.explain import explain_routes
    from criollo.admin.images import image_routes
    from criollo.admin.metrics import metrics_routes
    from criollo.admin.pulls import pull_routes
    from criollo.admin.push import push_routes
    from criollo.admin.upkeep import upkeep_routes
    from criollo.images.check import Scope

    def scope() -> Scope:
        """What a check looks at beside images."""
        state = engine.pods.state
        settled = (ContainerState.CREATED, ContainerState.RUNNING, ContainerState.EXITED)
        return Scope(
            databases=(engine.images.rows.path, state.path),
            containers=[each.id for each in state.containers if each.state in settled],
        )

    images = engine.images
    found = {**image_routes(images), **pull_routes(images), **push_routes(images), **upkeep_routes(images)}
    found |= metrics_routes(engine.settings.metrics.metrics_collectors)
    if engine.pods.remember is not None:
        found |= explain_routes(engine.pods.remember(), engine.pods.state)
    return found | adoption_routes(images) | care_routes(images, scope, engine.scrub.report)


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
