"""Cgroup values as other documents show them; those of the spec are tested with `linux`."""

import json

from specgen_requests import HOST, request

from criollo.model.pod import HugepageLimit, PodConfig, Resources
from criollo.oci.runtime_spec import BlockIo, IntelRdt
from criollo.specgen import linux
from criollo.specgen.annotations import annotations
from criollo.specgen.resources import as_cri, pod_annotations

SIZE = Resources(
    cpu_shares=5, memory_limit_bytes=7, hugepage_limits=(HugepageLimit(page_size="2MB", limit_bytes=3),), unified={"a.b": "1"}
)


def test_only_what_is_given_is_shown_under_the_cris_names() -> None:
    assert as_cri(SIZE) == {
        "cpu_shares": 5,
        "memory_limit_in_bytes": 7,
        "hugepage_limits": [{"page_size": "2MB", "limit": 3}],
        "unified": {"a.b": "1"},
    }
    assert as_cri(Resources()) == {}


def test_an_infra_container_tells_its_runtime_the_size_of_the_pod() -> None:
    pod = PodConfig(name="p", uid="u", namespace="n", overhead=Resources(cpu_shares=2), resources=SIZE)
    found = pod_annotations(pod)
    assert json.loads(found["pod-linux-overhead.crio.io"]) == {"cpu_shares": 2}
    assert found["pod-linux-resources.crio.io"] == found["io.kubernetes.cri-o.PodLinuxResources"]
    assert json.loads(found["pod-linux-resources.crio.io"]) == as_cri(SIZE)
    assert pod_annotations(PodConfig(name="p", uid="u", namespace="n")) == {}


def test_a_container_does_not_tell_the_size_of_its_pod() -> None:
    assert not [key for key in annotations(request()) if "linux" in key.lower()]


def test_classes_are_written_into_the_spec() -> None:
    block_io, rdt = BlockIo(weight=50), IntelRdt(clos_id="gold")
    built = linux.linux(request(block_io=block_io, rdt=rdt), HOST, "")
    assert built.resources is not None
    assert (built.resources.block_io, built.intel_rdt) == (block_io, rdt)
