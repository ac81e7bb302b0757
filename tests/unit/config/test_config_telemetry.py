"""Tables [crio.metrics] and [crio.tracing]: what they may say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.config.telemetry import Metrics, Tracing, check_telemetry, parse_endpoint
from criollo.errors import Invalid


def place(table: str, key: str) -> str:
    return f"{table}.{key}"


def test_defaults_are_taken() -> None:
    check_telemetry(Metrics(), Tracing(), place)


@pytest.mark.parametrize(
    ("metrics", "tracing", "field"),
    [
        (Metrics(metrics_port=65536), Tracing(), "metrics.metrics_port"),
        (Metrics(metrics_port=-1), Tracing(), "metrics.metrics_port"),
        (Metrics(metrics_cert="/a"), Tracing(), "metrics.metrics_key"),
        (Metrics(metrics_key="/a"), Tracing(), "metrics.metrics_cert"),
        (Metrics(), Tracing(tracing_sampling_rate_per_million=1_000_001), "tracing.tracing_sampling_rate_per_million"),
        (Metrics(), Tracing(tracing_sampling_rate_per_million=-1), "tracing.tracing_sampling_rate_per_million"),
        (Metrics(), Tracing(tracing_endpoint=""), "tracing.tracing_endpoint"),
    ],
)
def test_nonsense_is_refused_with_its_key(metrics: Metrics, tracing: Tracing, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        check_telemetry(metrics, tracing, place)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("127.0.0.1:4317", ("127.0.0.1", 4317, False)),
        ("http://collector.example:80/", ("collector.example", 80, False)),
        ("grpc://collector.example:80", ("collector.example", 80, False)),
        ("https://collector.example:443", ("collector.example", 443, True)),
        ("grpcs://[::1]:4317/", ("::1", 4317, True)),
        ("[::1]:4317", ("::1", 4317, False)),
    ],
)
def test_endpoint_is_host_and_port(text: str, found: tuple[str, int, bool]) -> None:
    assert parse_endpoint(text) == found


@pytest.mark.parametrize("text", ["host", "host:0", "host:65536", "ftp://host:1", ":1", "::1:4317", "host:1\n", "a b:1", "h:١"])
def test_other_endpoints_are_refused(text: str) -> None:
    with pytest.raises(Invalid):
        parse_endpoint(text)


@given(st.text())
def test_any_text_is_an_endpoint_or_refused(text: str) -> None:
    try:
        host, port, _ = parse_endpoint(text)
    except Invalid:
        return
    assert host
    assert 0 < port < 65536
