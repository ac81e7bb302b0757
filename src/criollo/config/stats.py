"""[crio.stats]: numbers about containers."""

from typing import Annotated, Final

from criollo.config.keys import Key, Table
from criollo.errors import Invalid

METRIC_GROUPS: Final = ("cpu", "disk", "diskIO", "hugetlb", "memory", "network", "oom", "process", "spec", "pressure")
ALL_METRICS: Final = "all"
_MAX_PERIOD_S: Final = 24 * 3600


class Stats(Table, frozen=True, kw_only=True):
    """Numbers about containers: [crio.stats]."""

    stats_collection_period: Annotated[
        int, Key("Seconds between two samples; 0: on demand.", deprecated="collection_period")
    ] = 0
    collection_period: Annotated[
        int, Key("Seconds between two samples of statistics and metrics; 0: on demand.", env="COLLECTION_PERIOD")
    ] = 0
    included_pod_metrics: Annotated[tuple[str, ...], Key("Groups of pod metrics beyond the ones always served, or 'all'.")] = ()

    @property
    def period_s(self) -> int:
        """Seconds between two collections; 0: none in the background."""
        return self.collection_period or self.stats_collection_period

    @property
    def metric_groups(self) -> frozenset[str]:
        """The groups of metrics beyond what is always told."""
        included = self.included_pod_metrics
        return frozenset(METRIC_GROUPS if included == (ALL_METRICS,) else included)


def check_period(field: str, period_s: int) -> None:
    """Raises Invalid."""
    if not 0 <= period_s <= _MAX_PERIOD_S:
        raise Invalid(field, period_s, f"0 (on demand) to {_MAX_PERIOD_S} seconds")


def check_metrics(field: str, groups: tuple[str, ...]) -> None:
    """Raises Invalid for a group that is none, and for `all` beside others."""
    if groups == (ALL_METRICS,):
        return
    for group in groups:
        if group not in METRIC_GROUPS:
            raise Invalid(field, group, f"'all' alone, or some of {', '.join(METRIC_GROUPS)}")
