"""What the daemon counts, by CRI-O's names."""

import pytest

from criollo.errors import Exhausted, NotFound
from criollo.telemetry.node_metrics import COLLECTORS, NETWORK_STAGE, NodeMetrics, chosen, size_name
from criollo.telemetry.trail import STARTING, Step, Trail

CRIO_HAS = (  # server/metrics/collectors of CRI-O 1.35
    *("image_pulls_layer_size", "containers_events_dropped_total", "containers_oom_total", "processes_defunct"),
    *("operations_total", "operations_latency_seconds", "operations_latency_seconds_total", "operations_errors_total"),
    *("image_pulls_bytes_total", "image_pulls_skipped_bytes_total", "image_pulls_failure_total", "image_pulls_success_total"),
    *("image_layer_reuse_total", "containers_oom_count_total", "containers_seccomp_notifier_count_total"),
    *("resources_stalled_at_stage", "containers_stopped_monitor_count", "default_runtime"),
)


def samples(counted: NodeMetrics, name: str) -> list[str]:
    full = f"container_runtime_crio_{name}"
    return [
        line.removeprefix(full) for line in counted.page((name,)).splitlines() if line.startswith((f"{full}{{", f"{full} "))
    ]


def test_collectors_are_those_of_crio() -> None:
    assert sorted(COLLECTORS) == sorted(CRIO_HAS)


def test_collectors_may_be_named_with_any_part_of_the_prefix() -> None:
    names = ("operations_total", "crio_default_runtime", "container_runtime_crio_processes_defunct", "nothing")
    assert chosen(names) == ({"operations_total", "default_runtime", "processes_defunct"}, ["nothing"])
    assert chosen(()) == (frozenset(), [])


def test_call_counts_in_four_families() -> None:
    counted = NodeMetrics()
    counted.call("Version", 0.5, failed=False)
    counted.call("Version", 0.25, failed=True)
    assert samples(counted, "operations_total") == ['{operation="Version"} 2']
    assert samples(counted, "operations_errors_total") == ['{operation="Version"} 1']
    assert samples(counted, "operations_latency_seconds") == ['{operation="Version"} 0.25']
    assert '{operation="Version",quantile="0.5"} 0.5' in samples(counted, "operations_latency_seconds_total")


@pytest.mark.parametrize(
    ("size", "name"), [(0, ">0 B"), (1000, ">0 B"), (1001, ">1 KiB"), (10**6 + 1, ">1 MiB"), (10**11, ">10 GiB")]
)
def test_sizes_have_the_names_of_crio(size: int, name: str) -> None:
    assert size_name(size) == name


def test_pulls_count_by_their_end() -> None:
    counted = NodeMetrics()
    good, bad = Trail("pull", ("a",)), Trail("pull", ("b",))
    bad.fail(ValueError("x"))
    counted.ended(good)
    counted.ended(bad)
    assert samples(counted, "image_pulls_success_total") == [" 1"]
    assert samples(counted, "image_pulls_failure_total") == ['{error="UNKNOWN"} 1']


def test_meaning_of_a_short_name_that_failed_is_no_failed_pull_while_others_follow() -> None:
    counted = NodeMetrics()
    for error in (NotFound("image", "a"), Exhausted("disk full")):
        meaning = Trail("pull", ("a",))
        meaning.tentative = True
        meaning.fail(error)
        counted.ended(meaning)
    assert samples(counted, "image_pulls_failure_total") == ['{error="EXHAUSTED"} 1']


def test_layers_count_as_fetched_or_as_found() -> None:
    counted = NodeMetrics()
    counted.layer_pulled("application/x", 2_000_000)
    counted.layer_reused("host/repo", 5)
    assert samples(counted, "image_pulls_bytes_total") == ['{mediatype="application/x",size=">1 MiB"} 2000000']
    assert samples(counted, "image_pulls_skipped_bytes_total") == ['{size=">0 B"} 5']
    assert samples(counted, "image_layer_reuse_total") == ['{name="host/repo"} 1']


def test_series_of_a_container_go_with_it() -> None:
    counted = NodeMetrics()
    for name in ("one", "two"):
        counted.out_of_memory(name)
        counted.monitor_lost(name)
    counted.container_gone("one")
    assert samples(counted, "containers_oom_total") == [" 2"]
    assert samples(counted, "containers_oom_count_total") == ['{name="two"} 1']
    assert samples(counted, "containers_stopped_monitor_count") == ['{name="two"} 1']


def test_forbidden_calls_are_read_where_they_are_counted() -> None:
    counted = NodeMetrics()
    counted.blocked_calls = lambda: {("k8s_a", "mount"): 3}
    assert samples(counted, "containers_seccomp_notifier_count_total") == ['{name="k8s_a",syscall="mount"} 3']


def test_network_is_timed_by_the_stage_and_by_its_plugins() -> None:
    counted = NodeMetrics()
    work = Trail("run pod sandbox", "pod")
    work.stage(NETWORK_STAGE)
    assert work.stage_now is not None
    plugin = work.add(Step("program", "ADD", argv=("/bridge",)))
    work.stage_now.started, work.stage_now.ended = 10.0, 14.0
    plugin.started, plugin.ended = 11.0, 13.0
    counted.ended(work)
    assert samples(counted, "operations_latency_seconds") == [
        '{operation="network_setup_overall"} 4',
        '{operation="network_setup_pod"} 2',
    ]
    assert samples(counted, "operations_total") == []


def test_pods_and_containers_that_are_asked_for_again_count_by_stage() -> None:
    counted = NodeMetrics()
    counted.stalled("create container", "container volume configuration")
    counted.stalled("create container", STARTING)
    counted.stalled("run pod sandbox", STARTING)
    counted.stalled("pull", "layers")
    counted.stalled("stop container", STARTING)
    assert samples(counted, "resources_stalled_at_stage") == [
        '{stage="container volume configuration"} 1',
        '{stage="container creating"} 1',
        '{stage="sandbox creating"} 1',
    ]


def test_names_from_images_are_bounded() -> None:
    counted = NodeMetrics()
    counted.layer_pulled("x" * 100_000, 1)
    assert len(counted.page(("image_pulls_bytes_total",))) < 4000
