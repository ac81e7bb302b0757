"""A collector of traces for tests: an independent gRPC server that decodes what it is sent by the published messages."""

import contextlib
import tempfile
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc

_PROTO = """
syntax = "proto3";
package criollo.test.otlp;
message AnyValue {
  oneof value { string string_value = 1; bool bool_value = 2; int64 int_value = 3; double double_value = 4; }
}
message KeyValue { string key = 1; AnyValue value = 2; }
message Status { string message = 2; int32 code = 3; }
message Span {
  bytes trace_id = 1; bytes span_id = 2; string trace_state = 3; bytes parent_span_id = 4; string name = 5; int32 kind = 6;
  fixed64 start_time_unix_nano = 7; fixed64 end_time_unix_nano = 8; repeated KeyValue attributes = 9; Status status = 15;
}
message Scope { string name = 1; string version = 2; }
message ScopeSpans { Scope scope = 1; repeated Span spans = 2; string schema_url = 3; }
message Resource { repeated KeyValue attributes = 1; }
message ResourceSpans { Resource resource = 1; repeated ScopeSpans scope_spans = 2; string schema_url = 3; }
message Request { repeated ResourceSpans resource_spans = 1; }
message Partial { int64 rejected_spans = 1; string error_message = 2; }
message Response { Partial partial_success = 1; }
"""


def _messages() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "otlp.proto").write_text(_PROTO)
        out = Path(directory, "set")
        assert protoc.main(["", f"-I{directory}", f"--descriptor_set_out={out}", "otlp.proto"]) == 0
        files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(files.file[0])
    names = ("Request", "Response", "Span")
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"criollo.test.otlp.{name}")) for name in names}


MESSAGES = _messages()


def attributes(holder: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in holder.attributes}


class Collector:
    """What has come."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.resources: list[dict[str, Any]] = []
        self.port = 0
        self._lock = threading.Lock()

    def export(self, request: Any, context: object) -> Any:
        with self._lock:
            for resource in request.resource_spans:
                self.resources.append(attributes(resource.resource))
                for scope in resource.scope_spans:
                    self.spans += scope.spans
        return MESSAGES["Response"]()

    def named(self, name: str) -> list[Any]:
        return [span for span in list(self.spans) if span.name == name]


@contextlib.contextmanager
def running_collector(port: int = 0, *, tls: tuple[bytes, bytes] | None = None) -> Iterator[Collector]:
    """A collector on a port of 127.0.0.1 until the block ends; `tls`: its certificate and key in PEM."""
    collector = Collector()
    handler = grpc.unary_unary_rpc_method_handler(
        collector.export,
        request_deserializer=MESSAGES["Request"].FromString,
        response_serializer=lambda message: message.SerializeToString(),
    )
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": handler}),))
    if tls is None:
        collector.port = server.add_insecure_port(f"127.0.0.1:{port}")
    else:
        collector.port = server.add_secure_port(f"127.0.0.1:{port}", grpc.ssl_server_credentials([tls[::-1]]))
    server.start()
    try:
        yield collector
    finally:
        server.stop(None).wait()
