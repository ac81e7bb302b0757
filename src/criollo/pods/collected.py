"""What was collected in the background, for lists to tell until the next time; pods that are new since are read when asked."""

from collections.abc import Mapping

from criollo.stats.catalogue import Value
from criollo.stats.network import Network


class Collected:
    """The last collection, by pods' and containers' ids; replaced as a whole. None of `metrics` before the first."""

    def __init__(self, period_s: int) -> None:
        self.period_s = period_s
        self.networks: Mapping[str, Network] = {}
        self.metrics: Mapping[str, tuple[int, list[Value]]] = {}
