"""A server over real unix sockets and the clients that call it; used by the tests of this directory."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from criollo.cri.pb import api_pb2 as pb
from criollo.cri.server import Server

RUNTIME = "runtime.v1.RuntimeService"


@asynccontextmanager
async def listening(server: Server, path: Path) -> AsyncIterator[Path]:
    """`server` behind the unix socket `path`, as the front door would do it."""
    async with asyncio.TaskGroup() as group:

        class Door(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                transport.pause_reading()
                group.create_task(server.serve(transport))

        listener = await asyncio.get_running_loop().create_unix_server(Door, str(path))
        try:
            yield path
        finally:
            listener.close()
            await server.drain(5)


async def in_thread(work: Callable[[], Any]) -> Any:
    """`work` beside the loop: a client that blocks."""
    return await asyncio.get_running_loop().run_in_executor(None, work)


def talk(server: Server, path: Path, client: Callable[[Any], Any]) -> Any:
    """Run `client(channel)` of grpcio, in a thread, against `server`."""
    import grpc

    def blocking() -> Any:
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        with grpc.insecure_channel(f"unix:{path}", options=options) as channel:
            return client(channel)

    async def main() -> Any:
        async with listening(server, path):
            return await in_thread(blocking)

    return asyncio.run(main())


def stub(channel: Any, method: str, *, service: str = RUNTIME, stream: bool = False) -> Any:
    """A callable for one CRI method of a grpcio channel."""
    described = pb.DESCRIPTOR.services_by_name[service.rpartition(".")[2]].methods_by_name[method]
    make = channel.unary_stream if stream else channel.unary_unary
    return make(
        f"/{service}/{method}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=getattr(pb, described.output_type.name).FromString,
    )


async def version(request: Any) -> pb.VersionResponse:
    return pb.VersionResponse(version="0.1.0", runtime_name="criollo")


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
