"""Which metrics there are."""

import re
from pathlib import Path

from criollo.config.stats import METRIC_GROUPS
from criollo.stats.catalogue import BASE_LABELS, GROUPS, METRICS

DOC = Path(__file__).parents[3] / "docs/statistics.md"


def test_groups_are_those_of_the_setting() -> None:
    assert set(GROUPS) == set(METRIC_GROUPS)


def test_names_are_of_the_form_that_prometheus_wants() -> None:
    for metric in METRICS.values():
        assert re.fullmatch(r"container_[a-z_]+", metric.name)
        is_total = metric.name.endswith("_total") and metric.name != "container_fs_inodes_total"
        assert metric.is_counter == (is_total or metric.name == "container_memory_failcnt")
        assert not set(metric.labels) & set(BASE_LABELS)


def test_the_page_has_every_metric() -> None:
    text = DOC.read_text()
    for metric in METRICS.values():
        assert f"`{metric.name.removeprefix('container_')}`" in text, metric.name
    for group in GROUPS:
        assert f"`{group}`" in text
