"""Workloads change the CPU values of the pods that switch them on."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid
from criollo.model.pod import Resources
from criollo.specgen.workloads import Workload, WorkloadResources, find, shaped

USUAL = WorkloadResources(cpushares=200, cpuset="0-1")
WORKLOAD = Workload(activation_annotation="on", annotation_prefix="res", resources=USUAL)
ASKED = Resources(cpu_shares=1000, cpuset_cpus="3", memory_limit_bytes=5)


def test_the_pods_annotation_switches_a_workload_on_whatever_its_value() -> None:
    other = Workload(activation_annotation="other")
    assert find((other, WORKLOAD), {"on": ""}) is WORKLOAD
    assert find((other, WORKLOAD), {"res/main": "{}"}) is None


def test_the_workloads_values_take_the_place_of_the_requests() -> None:
    assert shaped(WORKLOAD, "main", {"on": ""}, ASKED) == Resources(cpu_shares=200, cpuset_cpus="0-1", memory_limit_bytes=5)


def test_a_containers_annotation_wins_and_another_containers_does_not() -> None:
    annotations = {"res/main": '{"cpushares": 7, "cpuquota": 5000, "more": 1}', "res/other": '{"cpushares": 8}'}
    found = shaped(WORKLOAD, "main", annotations, ASKED)
    assert (found.cpu_shares, found.cpu_quota_us, found.cpu_period_us, found.cpuset_cpus) == (7, 5000, 100_000, "0-1")


@pytest.mark.parametrize(("milli", "period", "quota"), [(250, 0, 25_000), (1500, 50_000, 75_000), (1, 0, 1000)])
def test_a_limit_in_thousandths_becomes_a_quota(milli: int, period: int, quota: int) -> None:
    said = json.dumps({"cpulimit": milli, "cpuperiod": period, "cpuquota": 999})
    found = shaped(WORKLOAD, "main", {"res/main": said}, Resources())
    assert (found.cpu_quota_us, found.cpu_period_us) == (quota, period or 100_000)


def test_a_limit_counts_in_the_period_that_was_asked_for() -> None:
    found = shaped(WORKLOAD, "main", {"res/main": '{"cpulimit": 500}'}, Resources(cpu_period_us=20_000, cpu_quota_us=20_000))
    assert (found.cpu_quota_us, found.cpu_period_us) == (10_000, 20_000)


def test_null_takes_a_container_out() -> None:
    assert shaped(WORKLOAD, "main", {"res/main": "null"}, ASKED) == ASKED


@given(st.text(max_size=40) | st.recursive(st.integers() | st.text(max_size=5), st.lists, max_leaves=4).map(json.dumps))
def test_any_annotation_is_understood_or_refused(text: str) -> None:
    with contextlib.suppress(Invalid):
        shaped(WORKLOAD, "main", {"res/main": text}, ASKED)


@pytest.mark.parametrize("said", ['{"cpushares": -1}', '{"cpuset": "1-0"}', '{"cpuquota": "5"}', "[]", "5", "{"])
def test_what_cannot_be_is_refused(said: str) -> None:
    with pytest.raises(Invalid, match="res/main"):
        shaped(WORKLOAD, "main", {"res/main": said}, ASKED)
