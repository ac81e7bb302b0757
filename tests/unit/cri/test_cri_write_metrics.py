"""Metrics as messages."""

from test_cri_write import make_container, make_pod

from criollo.cri.pb import api_pb2 as pb
from criollo.cri.write_metrics import descriptors, pod_metrics_field
from criollo.pods.metrics import PodMetrics
from criollo.stats.catalogue import GROUPS, Value


def test_descriptors_are_those_of_the_groups_and_what_is_always_told() -> None:
    assert [each.name for each in descriptors(())] == ["container_last_seen"]
    every = {each.name: list(each.label_keys) for each in descriptors(GROUPS)}
    base = ["id", "image", "namespace", "pod", "container"]
    assert every["container_last_seen"] == base
    assert every["container_network_receive_bytes_total"] == [*base, "interface"]
    assert every["container_blkio_device_usage_total"] == [*base, "device", "major", "minor", "operation"]
    assert "container_memory_rss" not in {each.name for each in descriptors(("cpu", "spec"))}


def test_values_have_the_labels_of_their_descriptors() -> None:
    pod, container = make_pod(), make_container()
    values = [Value("network_receive_bytes_total", ("eth0",), 5)]
    value = PodMetrics(pod, 7, values, [(container, 8, [Value("last_seen", (), 9)])])
    found = pb.ListPodSandboxMetricsResponse.FromString(pod_metrics_field(value)).pod_metrics[0]
    assert found == pb.PodSandboxMetrics(
        pod_sandbox_id=pod.id,
        metrics=[
            pb.Metric(
                name="container_network_receive_bytes_total",
                timestamp=7,
                metric_type=pb.COUNTER,
                label_values=[pod.id, "", "n", "p", "POD", "eth0"],
                value=pb.UInt64Value(value=5),
            )
        ],
        container_metrics=[
            pb.ContainerMetrics(
                container_id=container.id,
                metrics=[
                    pb.Metric(
                        name="container_last_seen",
                        timestamp=8,
                        metric_type=pb.GAUGE,
                        label_values=[container.id, "busybox:latest", "n", "p", "c"],
                        value=pb.UInt64Value(value=9),
                    )
                ],
            )
        ],
    )
