"""Settings become the rules that shape containers."""

from pathlib import Path

import pytest

from criollo.config.handlers import Resources, RuntimeHandler, Workload
from criollo.config.runtime import Runtime
from criollo.containers.rules import open_rules
from criollo.containers.shape import Rules
from criollo.errors import Invalid
from criollo.specgen import workloads


def test_a_node_of_defaults_changes_nothing() -> None:
    assert open_rules(Runtime()) == Rules()


def test_workloads_and_handlers_are_taken_over() -> None:
    workload = Workload(activation_annotation="on", annotation_prefix="p", resources=Resources(cpushares=5, cpuset="0"))
    runtime = Runtime(
        workloads={"w": workload},
        runtimes={"a": RuntimeHandler(exec_cpu_affinity="first"), "b": RuntimeHandler(monitor_exec_cgroup="container")},
        min_injected_gomaxprocs=3,
        shared_cpuset="1",
        infra_ctr_cpuset="0",
    )
    expected = workloads.Workload(
        activation_annotation="on",
        annotation_prefix="p",
        resources=workloads.WorkloadResources(cpushares=5, cpuset="0"),
    )
    assert open_rules(runtime) == Rules(
        workloads=(expected,),
        gomaxprocs_floor=3,
        shared_cpus="1",
        infra_cpus="0",
        exec_on_first=frozenset({"a"}),
        exec_in_container=frozenset({"b"}),
    )


def test_class_files_are_read_at_once(tmp_path: Path) -> None:
    (tmp_path / "good").write_text("Classes: {One: [{Weight: 100}]}")
    (tmp_path / "bad").write_text("Classes: {One: [{Weight: 1}]}")
    found = open_rules(Runtime(blockio_config_file=str(tmp_path / "good"))).block_io
    assert found is not None
    assert found("One", True).weight == 100
    with pytest.raises(Invalid, match="Weight"):
        open_rules(Runtime(blockio_config_file=str(tmp_path / "bad")))
    with pytest.raises(Invalid, match="rdt_config_file"):
        open_rules(Runtime(rdt_config_file=str(tmp_path / "good")))


def test_annotations_that_do_nothing_are_told_where_they_are_allowed(caplog: pytest.LogCaptureFixture) -> None:
    ignored = ("platform-runtime-path.crio.io", "umask.crio.io")
    workload = Workload(activation_annotation="on", annotation_prefix="p", allowed_annotations=ignored)
    open_rules(Runtime(runtimes={"a": RuntimeHandler(allowed_annotations=ignored)}, workloads={"w": workload}))
    told = [record for record in caplog.records if record.levelname == "WARNING"]
    assert [record.getMessage() for record in told] == ["allowed annotation has no effect: this build does not do it"] * 2


def test_who_may_isolate_cpus_is_known() -> None:
    allowed = ("cpu-load-balancing.crio.io",)
    workload = Workload(activation_annotation="on", annotation_prefix="p", allowed_annotations=allowed)
    assert open_rules(Runtime(runtimes={"a": RuntimeHandler(allowed_annotations=allowed)})).isolates_cpus
    assert open_rules(Runtime(runtimes={}, workloads={"w": workload})).isolates_cpus
    assert not open_rules(Runtime(runtimes={"a": RuntimeHandler()})).isolates_cpus
