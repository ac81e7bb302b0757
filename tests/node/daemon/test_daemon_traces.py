"""Traces of the real daemon, as an independent collector receives them."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cri import pb
from support.daemon import Daemon, running_daemon, wait_for
from support.otlp import Collector, attributes, running_collector
from support.registry import Registry

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with running_collector() as running:
        yield running


@pytest.fixture(scope="module")
def daemon(registry: Registry, collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    settings = {
        "crio.tracing.enable_tracing": True,
        "crio.tracing.tracing_endpoint": f"127.0.0.1:{collector.port}",
    }
    place = Path(tmp_path_factory.mktemp("node"))
    with running_daemon(place, registries=registry.registries_conf(), settings=settings) as running:
        yield running


def run_pod_traced(daemon: Daemon, *, trace: str = TRACE, flags: str = "01") -> str:
    request = pb.RunPodSandboxRequest(config=daemon.pod_config())
    metadata = (
        ("traceparent", f"00-{trace}-{SPAN}-{flags}"),
        ("tracestate", "vendor=1"),
        ("baggage", "k8s.pod=web%201,other=2;meta=x"),
    )
    return str(daemon.cri.call("RunPodSandbox", request, metadata=metadata).pod_sandbox_id)


def test_trace_of_the_kubelet_goes_on_through_call_job_stage_and_program(daemon: Daemon, collector: Collector) -> None:
    run_pod_traced(daemon)
    path = "/runtime.v1.RuntimeService/RunPodSandbox"
    wait_for(lambda: collector.named(path))
    [call] = collector.named(path)
    assert call.trace_id.hex() == TRACE
    assert call.parent_span_id.hex() == SPAN
    assert call.trace_state == "vendor=1"
    assert call.kind == 2
    assert attributes(call) == {
        "rpc.system": "grpc",
        "rpc.service": "runtime.v1.RuntimeService",
        "rpc.method": "RunPodSandbox",
        "baggage.k8s.pod": "web 1",
        "baggage.other": "2",
    }
    [job] = [span for span in collector.named("run pod sandbox") if span.trace_id == call.trace_id]
    assert job.parent_span_id == call.span_id
    [network] = [span for span in collector.named("sandbox network creation") if span.parent_span_id == job.span_id]
    plugins = [span for span in collector.named("run bridge") if span.parent_span_id == network.span_id]
    assert [attributes(span)["process.exit.code"] for span in plugins] == [0]
    assert call.start_time_unix_nano <= job.start_time_unix_nano <= network.start_time_unix_nano
    assert plugins[0].end_time_unix_nano <= network.end_time_unix_nano + 10**7
    [resource] = {tuple(sorted(each.items())) for each in collector.resources}
    told = dict(resource)
    assert told["service.name"] == "crio"
    assert told["host.name"] == socket.gethostname()
    assert told["process.pid"] == daemon.pid


def test_what_the_kubelet_does_not_sample_is_not_sent(daemon: Daemon, collector: Collector) -> None:
    unsampled, later = "11" * 16, "22" * 16
    run_pod_traced(daemon, trace=unsampled, flags="00")
    daemon.cri.call("Version", pb.VersionRequest())
    run_pod_traced(daemon, trace=later)
    wait_for(lambda: any(span.trace_id.hex() == later for span in collector.spans))
    assert {span.trace_id.hex() for span in collector.spans} <= {TRACE, later}


def test_failed_call_is_an_error(daemon: Daemon, collector: Collector) -> None:
    trace = "33" * 16
    with pytest.raises(Exception, match="not found"):
        daemon.cri.call(
            "PodSandboxStatus",
            pb.PodSandboxStatusRequest(pod_sandbox_id="nobody"),
            metadata=(("traceparent", f"00-{trace}-{SPAN}-01"),),
        )
    wait_for(lambda: any(span.trace_id.hex() == trace for span in collector.spans))
    [span] = [span for span in collector.spans if span.trace_id.hex() == trace]
    assert span.status.code == 2
    assert "nobody not found" in span.status.message


def test_collector_that_is_away_holds_nobody_and_gets_the_spans_later(tmp_path: Path) -> None:
    with socket.socket() as reserved:  # nobody else gets the port, and nobody answers there
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # but gRPC's server, which asks for it so
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        settings = {
            "crio.tracing.enable_tracing": True,
            "crio.tracing.tracing_endpoint": f"127.0.0.1:{port}",
            "crio.tracing.tracing_sampling_rate_per_million": 1_000_000,
        }
        with running_daemon(tmp_path, settings=settings) as daemon:
            for _ in range(3000):
                daemon.cri.call("Version", pb.VersionRequest())
            wait_for(lambda: "spans cannot be sent" in daemon.log())
            with running_collector(port) as collector:
                wait_for(lambda: len(collector.spans) >= 2048, 90)
                wait_for(lambda: "takes spans again" in daemon.log())
    assert len({span.trace_id for span in collector.spans}) == len(collector.spans)
