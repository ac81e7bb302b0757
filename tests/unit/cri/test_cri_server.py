"""Calls of a real gRPC client over a real unix socket."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cri_parties import RUNTIME, in_thread, listening, stub, talk, version
from support.waiting import until

from criollo.cri.pb import api_pb2 as pb
from criollo.cri.server import Limits, Server
from criollo.errors import Denied, Invalid, NotFound, ToolFailed, Unavailable, WrongState


def _server(limits: Limits | None = None, **handlers: Any) -> Server:
    return Server({RUNTIME: {"Version": version, **handlers}}, limits=limits)


def _failure(server: Server, path: Path, method: str, request: Any, **options: Any) -> tuple[str, str]:
    def client(channel: Any) -> tuple[str, str]:
        with pytest.raises(grpc.RpcError) as caught:
            stub(channel, method)(request, **options)
        return caught.value.code().name, caught.value.details()

    return talk(server, path, client)


def test_unary_call_is_answered(tmp_path: Path) -> None:
    reply = talk(_server(), tmp_path / "s", lambda channel: stub(channel, "Version")(pb.VersionRequest()))
    assert reply.runtime_name == "criollo"


def test_encoded_replies_pass_through(tmp_path: Path) -> None:
    items = [pb.Container(id=f"{number:064x}") for number in range(30_000)]
    encoded = pb.ListContainersResponse(containers=items).SerializeToString()

    async def listed(request: Any) -> bytes:
        return encoded

    server = _server(ListContainers=listed)
    reply = talk(server, tmp_path / "s", lambda channel: stub(channel, "ListContainers")(pb.ListContainersRequest()))
    assert reply.SerializeToString() == encoded
    assert server.in_flight_bytes == 0


def test_stream_gives_messages_in_order_and_ends(tmp_path: Path) -> None:
    async def parts(request: Any) -> AsyncIterator[pb.StreamContainersResponse]:
        for number in range(50):
            yield pb.StreamContainersResponse(containers=[pb.Container(id=str(number), image_id="x" * 50_000)])

    def client(channel: Any) -> list[str]:
        return [part.containers[0].id for part in stub(channel, "StreamContainers", stream=True)(pb.StreamContainersRequest())]

    assert talk(_server(StreamContainers=parts), tmp_path / "s", client) == [str(number) for number in range(50)]


def test_empty_stream_ends_well(tmp_path: Path) -> None:
    async def nothing(request: Any) -> AsyncIterator[pb.StreamContainersResponse]:
        return
        yield

    def client(channel: Any) -> list[Any]:
        return list(stub(channel, "StreamContainers", stream=True)(pb.StreamContainersRequest()))

    assert talk(_server(StreamContainers=nothing), tmp_path / "s", client) == []


def test_stream_that_fails_tells_after_its_messages(tmp_path: Path) -> None:
    async def broken(request: Any) -> AsyncIterator[pb.StreamContainersResponse]:
        yield pb.StreamContainersResponse(containers=[pb.Container(id="1")])
        raise Unavailable("gone")

    def client(channel: Any) -> tuple[int, str]:
        replies = stub(channel, "StreamContainers", stream=True)(pb.StreamContainersRequest())
        first = next(replies)
        with pytest.raises(grpc.RpcError) as caught:
            next(replies)
        return len(first.containers), caught.value.code().name

    assert talk(_server(StreamContainers=broken), tmp_path / "s", client) == (1, "UNAVAILABLE")


def test_method_without_handler_is_unimplemented_by_name(tmp_path: Path) -> None:
    found = _failure(_server(), tmp_path / "s", "ListMetricDescriptors", pb.ListMetricDescriptorsRequest())
    assert found == ("UNIMPLEMENTED", "ListMetricDescriptors is not implemented yet by criollo")


def test_handler_for_a_method_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="Vision"):
        Server({RUNTIME: {"Vision": version}})


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Invalid("config.metadata.name", "", "a name"), "INVALID_ARGUMENT"),
        (NotFound("container", "x"), "NOT_FOUND"),
        (WrongState("container", "x", "RUNNING", "CREATED"), "FAILED_PRECONDITION"),
        (Denied("no"), "PERMISSION_DENIED"),
        (ToolFailed("create", ["crun"], 1, "boom\n\x1b[0m"), "UNKNOWN"),
    ],
)
def test_our_errors_arrive_with_code_and_text(tmp_path: Path, error: Exception, code: str) -> None:
    async def fails(request: Any) -> Any:
        raise error

    found = _failure(_server(StartContainer=fails), tmp_path / "s", "StartContainer", pb.StartContainerRequest())
    assert found == (code, str(error))


def test_error_text_keeps_characters_beyond_ascii(tmp_path: Path) -> None:
    async def fails(request: Any) -> Any:
        raise Denied("100 % – „ж“\n")

    found = _failure(_server(StartContainer=fails), tmp_path / "s", "StartContainer", pb.StartContainerRequest())
    assert found[1].strip() == "100 % – „ж“"


def test_bug_is_internal_with_a_number_and_no_details(tmp_path: Path) -> None:
    async def fails(request: Any) -> Any:
        raise KeyError("secret")

    code, text = _failure(_server(StartContainer=fails), tmp_path / "s", "StartContainer", pb.StartContainerRequest())
    assert code == "INTERNAL"
    assert "secret" not in text


def test_callers_deadline_ends_the_handler(tmp_path: Path) -> None:
    entered, cancelled = threading.Event(), threading.Event()

    async def hangs(request: Any) -> Any:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    def client(channel: Any) -> bool:
        for limit_s in (0.2, 2, 20):  # the first that is enough to get there
            with pytest.raises(grpc.RpcError, check=lambda error: error.code() is grpc.StatusCode.DEADLINE_EXCEEDED):
                stub(channel, "StartContainer")(pb.StartContainerRequest(), timeout=limit_s)
            if entered.is_set():
                break
        return cancelled.wait(60)

    assert talk(_server(StartContainer=hangs), tmp_path / "s", client)


def test_client_that_hangs_up_cancels_its_request(tmp_path: Path) -> None:
    async def main() -> None:
        entered, cancelled = asyncio.Event(), asyncio.Event()

        async def hangs(request: Any) -> Any:
            entered.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        async with listening(_server(StartContainer=hangs), tmp_path / "s") as path:
            channel = grpc.insecure_channel(f"unix:{path}")
            call = stub(channel, "StartContainer").future(pb.StartContainerRequest())
            await entered.wait()
            call.cancel()
            async with asyncio.timeout(60):
                await cancelled.wait()
            await in_thread(channel.close)

    asyncio.run(main())


def test_request_over_the_limit_is_refused_before_it_arrives(tmp_path: Path) -> None:
    server = _server(Limits(message_bytes=1 << 20), StartContainer=version)
    request = pb.StartContainerRequest(container_id="x" * (3 << 20))
    code, text = _failure(server, tmp_path / "s", "StartContainer", request)
    assert code == "RESOURCE_EXHAUSTED"
    assert "limit is 1048576" in text
    assert server.in_flight_bytes == 0


def test_reply_over_the_limit_names_the_way_out(tmp_path: Path) -> None:
    async def big(request: Any) -> bytes:
        return b"\0" * (2 << 20)

    server = _server(Limits(reply_bytes=1 << 20), ListContainers=big)
    code, text = _failure(server, tmp_path / "s", "ListContainers", pb.ListContainersRequest())
    assert code == "RESOURCE_EXHAUSTED"
    assert "Stream" in text
    assert "grpc_max_send_msg_size" in text


def test_large_request_within_the_limit_arrives(tmp_path: Path) -> None:
    async def measured(request: Any) -> Any:
        return pb.VersionResponse(version=str(len(request.version)))

    request = pb.VersionRequest(version="x" * (20 << 20))
    reply = talk(_server(Version=measured), tmp_path / "s", lambda channel: stub(channel, "Version")(request, timeout=60))
    assert reply.version == str(20 << 20)


def test_request_that_is_no_message_is_invalid(tmp_path: Path) -> None:
    def client(channel: Any) -> str:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(f"/{RUNTIME}/Version")(b"\xff\xff\xff")
        return caught.value.code().name

    assert talk(_server(), tmp_path / "s", client) == "INVALID_ARGUMENT"


def test_message_nested_without_end_is_invalid(tmp_path: Path) -> None:
    nested = b""
    for _ in range(500):  # an unknown group within a group: nothing else in the CRI nests without limit
        nested = b"\x7b" + nested + b"\x7c"

    def client(channel: Any) -> str:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(f"/{RUNTIME}/Version")(nested)
        return caught.value.code().name

    assert talk(_server(), tmp_path / "s", client) == "INVALID_ARGUMENT"


def test_unknown_fields_are_ignored(tmp_path: Path) -> None:
    unknown = b"\xa0\x06\x01" * 200_000
    reply = talk(_server(), tmp_path / "s", lambda channel: channel.unary_unary(f"/{RUNTIME}/Version")(unknown))
    assert pb.VersionResponse.FromString(reply).version == "0.1.0"


def test_compressed_request_is_refused(tmp_path: Path) -> None:
    def client(channel: Any) -> str:
        with pytest.raises(grpc.RpcError) as caught:
            stub(channel, "Version")(pb.VersionRequest(version="x" * 1000), compression=grpc.Compression.Gzip)
        return caught.value.code().name

    assert talk(_server(), tmp_path / "s", client) == "UNIMPLEMENTED"


def test_many_calls_at_once_are_all_answered(tmp_path: Path) -> None:
    def client(channel: Any) -> int:
        call = stub(channel, "Version")
        futures = [call.future(pb.VersionRequest()) for _ in range(1000)]
        return sum(future.result().version == "0.1.0" for future in futures)

    assert talk(_server(), tmp_path / "s", client) == 1000


def test_stop_lets_running_calls_finish_and_refuses_new_ones(tmp_path: Path) -> None:
    async def main() -> tuple[str, str]:
        entered, release = asyncio.Event(), asyncio.Event()

        async def slow(request: Any) -> Any:
            entered.set()
            await release.wait()
            return pb.StartContainerResponse()

        server = _server(StartContainer=slow)
        async with listening(server, tmp_path / "s") as path:
            with grpc.insecure_channel(f"unix:{path}") as channel:
                running = stub(channel, "StartContainer").future(pb.StartContainerRequest())
                await entered.wait()
                async with asyncio.TaskGroup() as group:
                    group.create_task(server.drain(10))
                    await until(lambda: server.is_stopping)
                    late = stub(channel, "Version").future(pb.VersionRequest())
                    refused = await in_thread(late.exception)
                    release.set()
                    finished = await in_thread(running.result)
        return refused.code().name, type(finished).__name__

    assert asyncio.run(main()) == ("UNAVAILABLE", "StartContainerResponse")


def test_plain_handler_answers_and_fails_as_others_do(tmp_path: Path) -> None:
    def plain(request: Any) -> pb.VersionResponse:
        if request.version:
            raise NotFound("version", request.version)
        return pb.VersionResponse(version="plain")

    def client(channel: Any) -> tuple[str, str]:
        call = stub(channel, "Version")
        with pytest.raises(grpc.RpcError) as caught:
            call(pb.VersionRequest(version="9"))
        return call(pb.VersionRequest()).version, caught.value.code().name

    assert talk(_server(Version=plain), tmp_path / "s", client) == ("plain", "NOT_FOUND")


def test_bug_in_a_plain_handler_is_internal_and_ends_nothing_else(tmp_path: Path) -> None:
    def broken(request: Any) -> Any:
        raise KeyError("secret")

    def client(channel: Any) -> tuple[str, str]:
        with pytest.raises(grpc.RpcError) as caught:
            stub(channel, "StartContainer")(pb.StartContainerRequest())
        return caught.value.code().name, stub(channel, "Version")(pb.VersionRequest()).version

    assert talk(_server(StartContainer=broken), tmp_path / "s", client) == ("INTERNAL", "0.1.0")


def test_plain_handlers_large_replies_wait_for_their_client(tmp_path: Path) -> None:
    encoded = pb.ListContainersResponse(containers=[pb.Container(id="x" * 1000)] * 10_000).SerializeToString()

    def listed(request: Any) -> bytes:
        return encoded

    def client(channel: Any) -> list[int]:
        call = stub(channel, "ListContainers")
        futures = [call.future(pb.ListContainersRequest()) for _ in range(6)]
        return [len(future.result().containers) for future in futures]

    server = _server(ListContainers=listed)
    assert talk(server, tmp_path / "s", client) == [10_000] * 6
    assert server.in_flight_bytes == 0


def test_replies_in_flight_are_limited_for_plain_handlers_too(tmp_path: Path) -> None:
    def listed(request: Any) -> bytes:
        return b"\0" * 20_000

    server = _server(Limits(in_flight_bytes=10_000), ListContainers=listed)
    code, _ = _failure(server, tmp_path / "s", "ListContainers", pb.ListContainersRequest())
    assert code == "RESOURCE_EXHAUSTED"
