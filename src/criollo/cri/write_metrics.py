"""Metrics of pods as CRI messages."""

from collections.abc import Collection, Sequence
from typing import Final

from criollo.cri.encoded import nested
from criollo.cri.pb import api_pb2 as pb
from criollo.model.container import Container
from criollo.model.pod import Pod
from criollo.pods.metrics import PodMetrics
from criollo.stats.catalogue import ALWAYS, BASE_LABELS, METRICS, Value

_POD: Final = "POD"  # as the container of what belongs to the pod as a whole
_METRICS: Final = pb.ListPodSandboxMetricsResponse.POD_METRICS_FIELD_NUMBER  # and of the stream's


def descriptors(groups: Collection[str]) -> list[pb.MetricDescriptor]:
    """What is told of these groups, beside what is always told."""
    return [
        pb.MetricDescriptor(name=each.name, help=each.help, label_keys=(*BASE_LABELS, *each.labels))
        for each in METRICS.values()
        if each.group == ALWAYS or each.group in groups
    ]


def pod_metrics_field(value: PodMetrics) -> bytes:
    """The metrics of a pod as the one field of the replies that have them, encoded."""
    pod = value.pod
    message = pb.PodSandboxMetrics(
        pod_sandbox_id=pod.id,
        metrics=_metrics(value.values, _labels(pod, None), value.at_ns),
        container_metrics=[
            pb.ContainerMetrics(container_id=each.id, metrics=_metrics(values, _labels(pod, each), at_ns))
            for each, at_ns, values in value.containers
        ],
    )
    return nested(_METRICS, message.SerializeToString())


def _labels(pod: Pod, container: Container | None) -> list[str]:
    """The values of BASE_LABELS."""
    if container is None:
        return [pod.id, "", pod.config.namespace, pod.config.name, _POD]
    return [
        container.id,
        container.config.image.as_written,
        pod.config.namespace,
        pod.config.name,
        container.config.name,
    ]


def _metrics(values: Sequence[Value], base: Sequence[str], at_ns: int) -> list[pb.Metric]:
    return [
        pb.Metric(
            name=METRICS[name].name,
            timestamp=at_ns,
            metric_type=pb.COUNTER if METRICS[name].is_counter else pb.GAUGE,
            label_values=(*base, *labels),
            value=pb.UInt64Value(value=value),
        )
        for name, labels, value in values
    ]
