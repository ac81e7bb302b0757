"""network.attachment: what plugins are told of a pod."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid
from criollo.model.pod import Dns, PortMapping, Protocol
from criollo.network.attachment import BURST_BITS, EGRESS, INGRESS, Attachment, capability_args, cni_args, rate_bits


def pod(**more: object) -> Attachment:
    fields = {"pod_id": "a" * 64, "netns": "/run/netns/a", "name": "web", "namespace": "default", "uid": "u-1", **more}
    return Attachment(**fields)  # type: ignore[arg-type]


def test_args_are_those_of_kubernetes() -> None:
    assert dict(cni_args(pod())) == {
        "IgnoreUnknown": "1",
        "K8S_POD_NAMESPACE": "default",
        "K8S_POD_NAME": "web",
        "K8S_POD_INFRA_CONTAINER_ID": "a" * 64,
        "K8S_POD_UID": "u-1",
    }


@pytest.mark.parametrize("field", ["name", "namespace", "uid"])
@pytest.mark.parametrize("value", ["a;IP=10.0.0.1", "a=b", "a\nb", "a\0b", "a\u202eb", "a\x1b"])
def test_a_value_that_would_become_another_argument_is_refused(field: str, value: str) -> None:
    with pytest.raises(Invalid):
        cni_args(pod(**{field: value}))


def test_nothing_asked_offers_nothing() -> None:
    assert capability_args(pod()) == {}


def test_port_mappings_have_the_plugins_names() -> None:
    ports = (
        PortMapping(protocol=Protocol.TCP, container_port=80, host_port=8080, host_ip="127.0.0.1"),
        PortMapping(protocol=Protocol.UDP, container_port=53, host_port=5353),
    )
    assert capability_args(pod(ports=ports))["portMappings"] == [
        {"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "127.0.0.1"},
        {"hostPort": 5353, "containerPort": 53, "protocol": "udp"},
    ]


def test_a_port_without_host_port_is_no_mapping() -> None:
    assert capability_args(pod(ports=(PortMapping(protocol=Protocol.TCP, container_port=80, host_port=0),))) == {}


@pytest.mark.parametrize(
    ("field", "mapping"),
    [
        ("config.port_mappings[0].host_port", PortMapping(protocol=Protocol.TCP, container_port=80, host_port=65536)),
        ("config.port_mappings[0].host_port", PortMapping(protocol=Protocol.TCP, container_port=80, host_port=-1)),
        ("config.port_mappings[0].container_port", PortMapping(protocol=Protocol.TCP, container_port=0, host_port=1)),
        ("config.port_mappings[0].host_ip", PortMapping(protocol=Protocol.TCP, container_port=1, host_port=1, host_ip="x")),
    ],
)
def test_a_port_mapping_out_of_range_is_named(field: str, mapping: PortMapping) -> None:
    with pytest.raises(Invalid) as caught:
        capability_args(pod(ports=(mapping,)))
    assert caught.value.field == field


def test_bandwidth_annotations_become_rates() -> None:
    asked = capability_args(pod(annotations={INGRESS: "10M", EGRESS: "1k"}))["bandwidth"]
    assert asked == {"ingressRate": 10**7, "ingressBurst": BURST_BITS, "egressRate": 1000, "egressBurst": BURST_BITS}


def test_annotations_cgroup_and_dns_are_offered() -> None:
    asked = capability_args(pod(annotations={"a": "b"}, cgroup_path="/pods/x", dns=Dns(servers=("10.0.0.10",))))
    assert asked == {
        "io.kubernetes.cri.pod-annotations": {"a": "b"},
        "cgroupPath": "/pods/x",
        "dns": {"servers": ["10.0.0.10"]},
    }


@pytest.mark.parametrize(
    ("text", "bits"),
    [("1000", 1000), ("1k", 1000), ("1Ki", 1024), ("1.5M", 1_500_000), ("10M", 10**7), ("1e6", 10**6), ("1E6", 10**6),
     ("2Gi", 2 << 30), ("1P", 10**15), ("1000500m", 1001), (".5M", 500_000), ("5.M", 5 * 10**6), ("+1M", 10**6)],
)  # fmt: skip
def test_quantities_are_read_as_kubernetes_does(text: str, bits: int) -> None:
    assert rate_bits(text, "f") == bits


@pytest.mark.parametrize("text", ["", "M", "1 M", "1m", "999", "2P", "-1M", "1Kii", "1K", "10Mbit", "1e", "1e99", "0x10", "١M",
                                  "1M\n", "NaN", "inf", "9" * 30, "1_000_000"])  # fmt: skip
def test_other_rates_are_refused(text: str) -> None:
    with pytest.raises(Invalid):
        rate_bits(text, "f")


@given(st.text(max_size=12))
def test_any_text_is_a_rate_or_invalid(text: str) -> None:
    with contextlib.suppress(Invalid):
        assert 1000 <= rate_bits(text, "f") <= 10**15


@given(st.text(max_size=20))
def test_any_name_keeps_the_number_of_arguments(text: str) -> None:
    try:
        args = cni_args(pod(name=text))
    except Invalid:
        return
    assert len(";".join(f"{name}={value}" for name, value in args).split(";")) == 5
