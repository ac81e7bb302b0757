"""The table [crio.stats]."""

import pytest

from criollo.config.stats import METRIC_GROUPS, Stats, check_metrics, check_period
from criollo.errors import Invalid


def test_newer_period_comes_first() -> None:
    assert Stats().period_s == 0
    assert Stats(stats_collection_period=10).period_s == 10
    assert Stats(stats_collection_period=10, collection_period=20).period_s == 20


@pytest.mark.parametrize("period_s", [-1, 100_000])
def test_odd_periods_are_refused(period_s: int) -> None:
    with pytest.raises(Invalid, match="collection_period"):
        check_period("collection_period", period_s)
    check_period("collection_period", 10)


@pytest.mark.parametrize("groups", [("cpus",), ("cpu", "all"), ("CPU",), ("",)])
def test_groups_that_are_none_are_refused(groups: tuple[str, ...]) -> None:
    with pytest.raises(Invalid, match="included_pod_metrics"):
        check_metrics("included_pod_metrics", groups)


def test_known_groups_and_all_pass() -> None:
    for groups in ((), ("all",), METRIC_GROUPS):
        check_metrics("included_pod_metrics", groups)


def test_all_means_every_group() -> None:
    assert Stats(included_pod_metrics=("all",)).metric_groups == set(METRIC_GROUPS)
    assert Stats(included_pod_metrics=("cpu", "oom")).metric_groups == {"cpu", "oom"}
    assert Stats().metric_groups == frozenset()
