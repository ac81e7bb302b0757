"""The tables [crio.metrics] and [crio.tracing]."""

import re
from collections.abc import Callable
from typing import Annotated, Final, NamedTuple

from criollo.config.keys import Key, Table
from criollo.errors import Invalid

LAST_PORT: Final = 65535
MILLION: Final = 1_000_000
_ENDPOINT: Final = re.compile(r"(?:(http|https|grpc|grpcs)://)?(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:/\s]+)):([0-9]{1,5})/?")


class Endpoint(NamedTuple):
    """A collector of traces."""

    host: str
    port: int
    tls: bool = False


class Metrics(Table, frozen=True, kw_only=True):
    """Prometheus metrics: [crio.metrics]."""

    enable_metrics: Annotated[
        bool, Key("Count, and serve metrics at /metrics of the port below, of metrics_socket and of the daemon's own socket.")
    ] = False
    metrics_collectors: Annotated[
        tuple[str, ...], Key("The metrics to serve, with or without 'container_runtime_' and 'crio_'; empty: all.")
    ] = ()
    metrics_host: Annotated[str, Key("IP address or name that the metrics server listens on; empty: all addresses.")] = (
        "127.0.0.1"
    )
    metrics_port: Annotated[int, Key("Its port; 0: any free one.")] = 9090
    metrics_socket: Annotated[str, Key("A unix socket for metrics beside the port.", absolute=True)] = ""
    metrics_cert: Annotated[
        str,
        Key(
            "Certificate of the metrics server, in PEM; with it and metrics_key the port speaks TLS. Loaded again when it"
            " changes. Where neither file exists, both are made, signed by themselves.",
            absolute=True,
        ),
    ] = ""
    metrics_key: Annotated[str, Key("Key of that certificate, not encrypted.", absolute=True)] = ""


class Tracing(Table, frozen=True, kw_only=True):
    """OpenTelemetry traces: [crio.tracing]."""

    enable_tracing: Annotated[bool, Key("Send spans of calls, stages and programs to a collector.")] = False
    tracing_endpoint: Annotated[
        str,
        Key("Host and port of the collector (OTLP over gRPC); with https:// in front over TLS, as the node's store trusts it."),
    ] = "127.0.0.1:4317"
    tracing_sampling_rate_per_million: Annotated[
        int, Key("Traces kept of a million that begin here; those that the kubelet samples are always kept.")
    ] = 0


def check_telemetry(metrics: Metrics, tracing: Tracing, field: Callable[[str, str], str]) -> None:
    """Refuse what cannot be meant; `field(table, key)` names the origin of a key.

    Raises:
        Invalid: a port, a rate, the endpoint, or one of certificate and key without the other.
    """
    if not 0 <= metrics.metrics_port <= LAST_PORT:
        raise Invalid(field("metrics", "metrics_port"), metrics.metrics_port, f"0 to {LAST_PORT}")
    if bool(metrics.metrics_cert) != bool(metrics.metrics_key):
        key = "metrics_key" if metrics.metrics_cert else "metrics_cert"
        raise Invalid(field("metrics", key), "", "a file, where the other one of metrics_cert and metrics_key is set")
    rate = tracing.tracing_sampling_rate_per_million
    if not 0 <= rate <= MILLION:
        raise Invalid(field("tracing", "tracing_sampling_rate_per_million"), rate, f"0 to {MILLION}")
    parse_endpoint(tracing.tracing_endpoint, field("tracing", "tracing_endpoint"))


def parse_endpoint(text: str, field: str = "tracing_endpoint") -> Endpoint:
    """Where a collector is. Raises Invalid."""
    match = _ENDPOINT.fullmatch(text)
    if match is None or not text.isascii() or not 0 < int(match[4]) <= LAST_PORT:
        raise Invalid(field, text, "a host and a port, like 127.0.0.1:4317 or https://collector:4317")
    return Endpoint(match[2] or match[3], int(match[4]), tls=match[1] in ("https", "grpcs"))
