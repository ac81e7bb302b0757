"""What a container gets, of what it asks for."""

import base64
import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.containers.shape import Asked, Rules, Shape, class_of, parse_unified, shape_of
from criollo.errors import Invalid, Unsupported
from criollo.model.container import ContainerConfig, ImageSpec
from criollo.model.pod import PodConfig, Resources
from criollo.oci.runtime_spec import BlockIo, IntelRdt
from criollo.specgen.workloads import Workload, WorkloadResources

BURSTABLE = "/kubepods/burstable/pod1"
BLOCKIO_POD, RDT_POD = (f"{kind}.resources.beta.kubernetes.io" for kind in ("blockio", "rdt"))


def asked(
    pod: dict[str, str] | None = None, *, own: dict[str, str] | None = None, allowed: tuple[str, ...] = (), **resources: Any
) -> Asked:
    config = ContainerConfig(name="main", image=ImageSpec(image="i"), annotations=own or {}, resources=Resources(**resources))
    return Asked(config, PodConfig(name="p", uid="u", namespace="n", annotations=pod or {}), allowed, "crun")


def shape(wish: Asked, **rules: Any) -> Any:
    return shape_of(wish, Rules(**rules), cgroup_parent=BURSTABLE)


def test_without_rules_and_annotations_a_container_gets_what_it_asks_for() -> None:
    assert shape(asked(cpu_shares=5)) == Shape(Resources(cpu_shares=5))


@pytest.mark.parametrize(
    ("key", "allowed"),
    [
        ("unified-cgroup.crio.io/main", "unified-cgroup.crio.io"),
        ("unified-cgroup.crio.io", "unified-cgroup.crio.io"),
        ("io.kubernetes.cri-o.UnifiedCgroup/main", "io.kubernetes.cri-o.UnifiedCgroup"),
        ("io.kubernetes.cri-o.UnifiedCgroup.main", "io.kubernetes.cri-o.UnifiedCgroup"),
        ("io.kubernetes.cri-o.UnifiedCgroup.main", "unified-cgroup.crio.io"),
    ],
)
def test_raw_cgroup_files_come_from_an_allowed_annotation_only(key: str, allowed: str) -> None:
    said = {key: "memory.high=5;pids.max=7"}
    expected = {"memory.high": "5", "pids.max": "7", "memory.low": "1"}
    assert shape(asked(said, allowed=(allowed,), unified={"memory.low": "1"})).resources.unified == expected
    assert shape(asked(said, allowed=("unified-cgroup.crio.io2",))).resources.unified == {}


def test_another_containers_files_are_not_taken() -> None:
    said = {"unified-cgroup.crio.io/other": "memory.high=5"}
    assert shape(asked(said, allowed=("unified-cgroup.crio.io",))).resources.unified == {}


def test_values_in_base64_are_decoded_and_numbers_stay() -> None:
    lines = base64.b64encode(b"8:0 rbps=5\n8:16 rbps=6").decode()
    found = parse_unified(f"io.max={lines};memory.high=1000;memory.max=max;", "x")
    assert found == {"io.max": "8:0 rbps=5\n8:16 rbps=6", "memory.high": "1000", "memory.max": "max"}


@given(st.text(max_size=40))
def test_any_text_is_files_or_invalid(text: str) -> None:
    with contextlib.suppress(Invalid):
        assert all(name for name in parse_unified(text, "x"))


def test_shared_cpus_need_leave_cpus_of_ones_own_and_a_node_that_has_some() -> None:
    wish, allowed = {"cpu-shared.crio.io/main": "enable"}, ("cpu-shared.crio.io",)
    found = shape(asked(wish, allowed=allowed, cpuset_cpus="4-5"), shared_cpus="0,6", exec_on_first=frozenset({"crun"}))
    assert found.resources.cpuset_cpus == "0,4-6"
    assert found.env == (("OPENSHIFT_ISOLATED_CPUS", "4-5"), ("OPENSHIFT_SHARED_CPUS", "0,6"))
    assert found.exec_cpu == "0"
    assert shape(asked(wish, cpuset_cpus="4"), shared_cpus="0").resources.cpuset_cpus == "4"
    with pytest.raises(Invalid, match="CPUs of its own"):
        shape(asked(wish, allowed=allowed), shared_cpus="0")
    with pytest.raises(Unsupported, match="shared_cpuset"):
        shape(asked(wish, allowed=allowed, cpuset_cpus="4"))


def test_commands_start_on_the_first_own_cpu_where_the_handler_says_so() -> None:
    wish = asked(cpuset_cpus="4-5")
    assert shape(wish, exec_on_first=frozenset({"crun"})).exec_cpu == "4"
    assert shape(wish, exec_on_first=frozenset({"runc"})).exec_cpu == ""
    assert shape(asked(), exec_on_first=frozenset({"crun"})).exec_cpu == ""


def test_a_pod_of_a_workload_gets_its_values_and_no_gomaxprocs() -> None:
    workload = Workload(activation_annotation="on", resources=WorkloadResources(cpushares=7))
    rules: dict[str, Any] = {"workloads": (workload,), "gomaxprocs_floor": 2}
    found = shape(asked({"on": ""}, cpu_shares=5000), **rules)
    assert (found.resources.cpu_shares, found.env) == (7, ())
    assert shape(asked(cpu_shares=5000), **rules).env == (("GOMAXPROCS", "10"),)


def test_gomaxprocs_is_declined_by_an_allowed_annotation() -> None:
    wish = {"skip-gomaxprocs.crio.io": "true"}
    assert shape(asked(wish, allowed=("skip-gomaxprocs.crio.io",)), gomaxprocs_floor=2).env == ()
    assert shape(asked(wish), gomaxprocs_floor=2).env == (("GOMAXPROCS", "2"),)


def test_the_containers_own_class_counts_before_its_pods() -> None:
    pod = {f"{BLOCKIO_POD}/pod": "all", f"{BLOCKIO_POD}/container.main": "one"}
    assert class_of(asked(pod, own={"io.kubernetes.cri.blockio-class": "own"}), "blockio") == ("own", False)
    assert class_of(asked(pod), "blockio") == ("one", True)
    del pod[f"{BLOCKIO_POD}/container.main"]
    assert class_of(asked(pod), "blockio") == ("all", True)
    assert class_of(asked(), "blockio") == ("", False)


def test_an_rdt_class_of_the_container_needs_leave() -> None:
    own = {"io.kubernetes.cri.rdt-class": "gold"}
    assert class_of(asked(own=own), "rdt") == ("", False)
    assert class_of(asked(own=own, allowed=("io.kubernetes.cri.rdt-class",)), "rdt") == ("gold", False)


def test_classes_become_parts_of_the_spec() -> None:
    wish = asked({f"{BLOCKIO_POD}/pod": "slow", f"{RDT_POD}/pod": "gold"})
    found = shape(
        wish,
        block_io=lambda name, of_pod: BlockIo(weight=len(name)),
        rdt=lambda name, of_pod: IntelRdt(clos_id=f"{name}{of_pod}"),
    )
    assert (found.block_io, found.rdt) == (BlockIo(weight=4), IntelRdt(clos_id="goldTrue"))


def test_a_node_without_classes_notes_block_io_and_refuses_rdt() -> None:
    found = shape(asked({f"{BLOCKIO_POD}/pod": "slow"}))
    assert found.block_io is None
    assert "blockio_config_file" in found.notes[0]
    with pytest.raises(Unsupported, match="gold"):
        shape(asked({f"{RDT_POD}/pod": "gold"}))
