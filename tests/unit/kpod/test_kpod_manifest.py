import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid
from criollo.kpod.manifest import Pod, read_pod, unsupported


def pod(**spec: Any) -> dict[str, Any]:
    containers = spec.pop("containers", [{"name": "a", "image": "x"}])
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": containers, **spec}}


def test_kubernetes_spells_some_names_in_capitals() -> None:
    document = pod(
        hostPID=True, hostIPC=True, containers=[{"name": "a", "image": "x", "ports": [{"containerPort": 1, "hostIP": "::1"}]}]
    )
    read = read_pod(document, "f")
    assert (read.spec.host_pid, read.spec.host_ipc, read.spec.containers[0].ports[0].host_ip) == (True, True, "::1")
    assert unsupported(document) == []


def test_null_is_absent() -> None:
    read = read_pod(pod(volumes=None, containers=[{"name": "a", "image": "x", "env": None, "securityContext": None}]), "f")
    assert read.spec.containers[0].env == ()


@pytest.mark.parametrize(
    ("document", "field"),
    [
        (pod(containers=[]), "spec.containers"),
        (pod(containers=[{"name": "a", "image": 5}]), "f.spec.containers[0].image"),
        (pod(containers=[{"name": "A", "image": "x"}]), "spec.containers[0].name"),
        (pod(containers=[{"name": "a", "image": "x"}] * 2), "spec.containers[1].name"),
        (pod(initContainers=[{"name": "a", "image": "x"}]), "spec.containers[0].name"),
        (pod(volumes=[{"name": "../x"}]), "spec.volumes[0].name"),
        (pod(hostNetwork="yes"), "f.spec.hostNetwork"),
        ({**pod(), "metadata": {"name": "../p"}}, "metadata.name"),
        ({**pod(), "metadata": {"name": "p", "namespace": "a/b"}}, "metadata.namespace"),
        ({**pod(), "metadata": {}}, "f.metadata"),
        ({**pod(), "spec": {}}, "f.spec"),
        ({**pod(), "spec": []}, "f.spec"),
        (pod(terminationGracePeriodSeconds=1 << 31), "f.spec.terminationGracePeriodSeconds"),
        (pod(securityContext={"runAsUser": 1 << 31}), "f.spec.securityContext.runAsUser"),
        (pod(securityContext={"runAsGroup": -1}), "f.spec.securityContext.runAsGroup"),
        (pod(securityContext={"supplementalGroups": [1, 10**30]}), "f.spec.securityContext.supplementalGroups[1]"),
        (
            pod(containers=[{"name": "a", "image": "x", "securityContext": {"runAsUser": -1}}]),
            "f.spec.containers[0].securityContext.runAsUser",
        ),
    ],
)
def test_the_field_that_is_wrong_is_named(document: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as caught:
        read_pod(document, "f")
    assert caught.value.field == field


def test_what_is_not_supported_is_named_with_its_path() -> None:
    document = pod(
        nodeName="n",
        volumes=[{"name": "v", "configMap": {"name": "c"}}, {"name": "w", "emptyDir": {"medium": "Memory"}}],
        containers=[
            {"name": "a", "image": "x", "livenessProbe": {}, "lifecycle": None},
            {"name": "b", "image": "x", "resources": {"limits": {"cpu": 1, "nvidia.com/gpu": 1}}},
        ],
    )
    document["metadata"]["creationTimestamp"] = "now"
    document["status"] = {}
    assert unsupported(document) == [
        "spec.containers[0].livenessProbe",
        "spec.containers[1].resources.limits.nvidia.com/gpu",
        "spec.nodeName",
        "spec.volumes[0].configMap",
        "spec.volumes[1].emptyDir.medium",
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["metadata", "spec", "name", "containers", "image", "env", "volumes", "ports"]), inner
        )
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(["metadata", "spec", "kind", "status"]), JSON))
def test_any_document_is_a_pod_or_refused(document: dict[str, Any]) -> None:
    unsupported(document)
    with contextlib.suppress(Invalid):
        assert isinstance(read_pod(document, "f"), Pod)
