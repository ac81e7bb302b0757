"""The engine behind a socket: gRPC and HTTP/1 on one path. The daemon serves the node so, kpod itself."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from criollo.aio.background import Background
from criollo.aio.together import together
from criollo.config.values import Duration
from criollo.cri.errors import Code
from criollo.cri.image import ImageService
from criollo.cri.runtime import RuntimeService
from criollo.cri.server import Limits, Server
from criollo.daemon.facts import node_facts
from criollo.daemon.front_door import FrontDoor
from criollo.daemon.recovery import check_networks, recover
from criollo.daemon.routes import http_face
from criollo.daemon.stream_port import stream_port
from criollo.daemon.sweep import sweep_forever
from criollo.engine.opening import Engine
from criollo.streaming.server import Streaming
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
    door = FrontDoor(path, grpc=server.serve, http=http_face(engine, streaming).serve)
    listener = stream_port(engine.settings.api, streaming) if by_tcp else None
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
        if by_tcp:
            tasks.start(check_networks(engine.pods), name="check networks")
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


def _grpc(engine: Engine, streaming: Streaming) -> Server:
    runtime = RuntimeService(engine.pods, node_facts(engine), streaming.issue)
    image = ImageService(engine.images)
    api = engine.settings.api
    most = max(api.grpc_max_recv_msg_size, api.grpc_max_send_msg_size)
    limits = Limits(message_bytes=api.grpc_max_recv_msg_size, reply_bytes=api.grpc_max_send_msg_size, in_flight_bytes=2 * most)
    observe = _observe if hooks.metrics is not None else None
    services = {"runtime.v1.RuntimeService": runtime.calls(), "runtime.v1.ImageService": image.calls()}
    return Server(services, limits=limits, observe=observe)


def _observe(operation: str, seconds: float, code: Code) -> None:
    if hooks.metrics is not None:
        hooks.metrics.call(operation, seconds, code is not Code.OK)
