"""A CRI client for tests: grpcio, the reference implementation, so that our own client cannot hide our server's faults."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf import message_factory

from criollo.cri.pb import api_pb2

_SERVICES = {
    method.name: (service.full_name, method)
    for service in api_pb2.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


class Cri:
    """`cri.call("RunPodSandbox", request)`; errors are grpc.RpcError with `.code()` and `.details()`."""

    def __init__(self, socket: str) -> None:
        self.channel = grpc.insecure_channel(f"unix:{socket}", options=[("grpc.max_receive_message_length", 64 << 20)])

    def call(self, method: str, request: Any = None, *, timeout_s: float = 60, metadata: Any = None) -> Any:
        return self._bound(method)(self._request(method, request), timeout=timeout_s, metadata=metadata)

    def begin(self, method: str, request: Any = None, *, timeout_s: float = 60) -> Any:
        """The call as a future: `.result()`, `.cancel()`."""
        return self._bound(method).future(self._request(method, request), timeout=timeout_s)

    def stream(self, method: str, request: Any = None, *, timeout_s: float = 60) -> list[Any]:
        return list(self.open(method, request, timeout_s=timeout_s))

    def open(self, method: str, request: Any = None, *, timeout_s: float | None = None) -> Any:
        """A call that answers many times, as an iterator with `.cancel()`."""
        service, descriptor = _SERVICES[method]
        reply = message_factory.GetMessageClass(descriptor.output_type)
        bound = self.channel.unary_stream(
            f"/{service}/{method}", request_serializer=lambda m: m.SerializeToString(), response_deserializer=reply.FromString
        )
        return bound(self._request(method, request), timeout=timeout_s)

    def close(self) -> None:
        self.channel.close()

    def _request(self, method: str, request: Any) -> Any:
        return request if request is not None else message_factory.GetMessageClass(_SERVICES[method][1].input_type)()

    def _bound(self, method: str) -> Any:
        service, descriptor = _SERVICES[method]
        reply = message_factory.GetMessageClass(descriptor.output_type)
        return self.channel.unary_unary(
            f"/{service}/{method}", request_serializer=lambda m: m.SerializeToString(), response_deserializer=reply.FromString
        )


def told(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    """Code and text of a call that must fail."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), str(caught.value.details())


pb = api_pb2
