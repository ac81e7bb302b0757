"""All metrics of the daemon, with CRI-O's names and labels, so that dashboards and alerts for it work here.

`container_runtime_` and a name of `COLLECTORS`; the setting `metrics_collectors` may give a name with any part of the prefix.
Labels never carry ids. What happens often costs a dict look-up and a few additions; the rest is read when somebody asks.
"""

import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from criollo.linux.processes import count_defunct, self_usage
from criollo.telemetry.metrics import (
    OTHER,
    Counter,
    Family,
    Gauge,
    Histogram,
    Labels,
    ReadCounter,
    Summary,
    Window,
    render,
)
from criollo.telemetry.pull_failures import cause_of, ends_the_search
from criollo.telemetry.trail import STAGE, STARTING, Step, Trail

PREFIX: Final = "container_runtime_"
_OWN: Final = "crio_"
_SIZES: Final = (  # decimal, with the names that CRI-O gives them
    (10_000_000_000, ">10 GiB"), (1_000_000_000, ">1 GiB"), (500_000_000, ">500 MiB"), (400_000_000, ">400 MiB"),
    (300_000_000, ">300 MiB"), (200_000_000, ">200 MiB"), (100_000_000, ">100 MiB"), (50_000_000, ">50 MiB"),
    (10_000_000, ">10 MiB"), (1_000_000, ">1 MiB"), (1_000, ">1 KiB"),
)  # fmt: skip
PULL: Final = "pull"  # the kind of such jobs
_CREATIONS: Final = {"run pod sandbox": "sandbox creating", "create container": "container creating"}  # and their first stage
NETWORK_STAGE: Final = "sandbox network creation"
_MAX_OPERATIONS: Final = 200
_LABEL_CHARACTERS: Final = 255  # of what images say


class NodeMetrics:
    """What is counted, as functions for those who count it. A `trail.Listener` for what jobs tell by themselves."""

    def __init__(self) -> None:
        self._windows: dict[str, Window] = {}
        self._calls: dict[str, Window] = {}  # those of the windows that are CRI calls
        self._latest: dict[str, float] = {}
        self._errors: dict[str, int] = {}
        self.events_dropped: Callable[[], int] = lambda: 0
        self.default_runtime: Callable[[], str] = lambda: ""
        self.blocked_calls: Callable[[], Mapping[tuple[str, str], int]] = dict  # by container name and system call
        self._layer_size = Histogram(
            "image_pulls_layer_size", "Bytes of each layer that image pulls have fetched.", sorted(size for size, _ in _SIZES)
        )
        self._pulled = Counter("image_pulls_bytes_total", "Bytes that image pulls have fetched.", ("mediatype", "size"))
        self._skipped = Counter("image_pulls_skipped_bytes_total", "Bytes of layers that were on the node already.", ("size",))
        self._failed = Counter("image_pulls_failure_total", "Image pulls that failed, by cause.", ("error",))
        self._succeeded = Counter("image_pulls_success_total", "Image pulls that succeeded.")
        self._reused = Counter("image_layer_reuse_total", "Layers that a pull found on the node, by repository.", ("name",))
        self._oom = Counter("containers_oom_total", "Containers that the kernel killed for their memory limit.")
        self._oom_by = Counter("containers_oom_count_total", "The same by container, while it exists.", ("name",))
        self._stalled = Counter(
            "resources_stalled_at_stage",
            "Requests for a pod or container that was being made, by the stage of that.",
            ("stage",),
        )
        self._monitors = Counter(
            "containers_stopped_monitor_count", "Containers whose monitor ended without their exit code.", ("name",)
        )
        self._families = [*self._own_families(), *self._operation_families()]

    def _own_families(self) -> list[Family]:
        pulls = (self._layer_size, self._pulled, self._skipped, self._failed, self._succeeded, self._reused)
        return [
            *pulls,
            *(self._oom, self._oom_by, self._stalled, self._monitors),
            ReadCounter(
                "containers_events_dropped_total",
                "Events that a client of GetContainerEvents read too slowly for.",
                lambda: [((), float(self.events_dropped()))],
            ),
            ReadCounter(
                "containers_seccomp_notifier_count_total",
                "System calls that a notifier saw forbidden.",
                lambda: [(names, float(count)) for names, count in list(self.blocked_calls().items())],
                ("name", "syscall"),
            ),
            Gauge("processes_defunct", "Zombies on the node.", lambda: [((), float(count_defunct()))]),
            Gauge("default_runtime", "The default runtime handler. Always 1.", self._default_runtime, ("runtime",)),
        ]

    def _operation_families(self) -> list[Family]:
        label = ("operation",)
        return [
            ReadCounter("operations_total", "CRI calls that have ended.", self._totals, label),
            Gauge("operations_latency_seconds", "Seconds that the latest call took.", self._latencies, label),
            Summary("operations_latency_seconds_total", "Seconds that calls took.", self._windows, label[0]),
            ReadCounter("operations_errors_total", "CRI calls that have failed.", self._failures, label),
        ]

    # What others tell

    def call(self, operation: str, seconds: float, failed: bool) -> None:
        """A CRI call has ended."""
        window = self._calls.get(operation)
        if window is None:
            window = self._calls[operation] = self._window(operation)
        window.observe(seconds, time.monotonic())
        self._latest[operation] = seconds
        if failed:
            self._errors[operation] = self._errors.get(operation, 0) + 1

    def stalled(self, kind: str, stage: str) -> None:
        """A request met a running job; counted are those that make pods and containers, as in CRI-O."""
        if kind in _CREATIONS:
            self._stalled.inc(_CREATIONS[kind] if stage == STARTING else stage)

    def layer_pulled(self, media_type: str, size_bytes: int) -> None:
        self._pulled.add(size_bytes, media_type[:_LABEL_CHARACTERS], size_name(size_bytes))
        self._layer_size.observe(size_bytes)

    def layer_reused(self, repository: str, size_bytes: int) -> None:
        self._skipped.add(size_bytes, size_name(size_bytes))
        self._reused.inc(repository[:_LABEL_CHARACTERS])

    def out_of_memory(self, container_name: str) -> None:
        self._oom.inc()
        self._oom_by.inc(container_name)

    def monitor_lost(self, container_name: str) -> None:
        self._monitors.inc(container_name)

    def container_gone(self, container_name: str) -> None:
        """Its series go with it."""
        for family in (self._oom_by, self._monitors):
            family.drop(container_name)

    # What trails tell

    def begun(self, trail: Trail) -> None:
        pass

    def ended(self, trail: Trail) -> None:
        if trail.kind == PULL:
            self._pull(trail)
            return
        for place, step in enumerate(trail.steps):
            if step.kind is STAGE and step.name == NETWORK_STAGE:
                self._network(step, trail.steps[place + 1 :])

    def _pull(self, trail: Trail) -> None:
        if not trail.error:
            self._succeeded.inc()
        elif not trail.tentative or ends_the_search(trail.error_kinds):
            self._failed.inc(cause_of(trail.error_kinds, trail.error))

    def _network(self, stage: Step, later: Sequence[Step]) -> None:
        self._observe("network_setup_overall", stage.ended - stage.started)
        plugins = [
            each for each in later if each.kind is not STAGE and each.started < stage.ended <= max(each.ended, stage.ended)
        ]
        if plugins:
            self._observe("network_setup_pod", max(each.ended for each in plugins) - min(each.started for each in plugins))

    def _observe(self, operation: str, seconds: float) -> None:
        self._window(operation).observe(seconds, time.monotonic())
        self._latest[operation] = seconds

    def _window(self, operation: str) -> Window:
        if operation not in self._windows and len(self._windows) >= _MAX_OPERATIONS:
            operation = OTHER
        return self._windows.setdefault(operation, Window())

    # What Prometheus asks

    def page(self, wanted: Collection[str] = ()) -> str:
        """The text of all families, or of those `wanted`, and of the process. Reads `/proc`: not on the loop."""
        chosen = [each for each in self._families if not wanted or each.name in wanted]
        return render(PREFIX + _OWN, chosen) + render("process_", _process_families())

    def _totals(self) -> list[tuple[Labels, float]]:
        return [((name,), float(window.count)) for name, window in list(self._calls.items())]

    def _latencies(self) -> list[tuple[Labels, float]]:
        return [((name,), seconds) for name, seconds in list(self._latest.items())]

    def _failures(self) -> list[tuple[Labels, float]]:
        return [((name,), float(count)) for name, count in list(self._errors.items())]

    def _default_runtime(self) -> list[tuple[Labels, float]]:
        return [((self.default_runtime(),), 1.0)]


def size_name(size_bytes: int) -> str:
    """The label `size` for so many bytes."""
    return next((name for bound, name in _SIZES if size_bytes > bound), ">0 B")


COLLECTORS: Final = tuple(sorted(family.name for family in NodeMetrics()._families))


def chosen(names: Collection[str]) -> tuple[frozenset[str], list[str]]:
    """The collectors that are meant, whatever part of the prefix they have, and the names that mean none."""
    plain = {name: name.removeprefix(PREFIX).removeprefix(_OWN) for name in names}
    unknown = [name for name, stripped in plain.items() if stripped not in COLLECTORS]
    return frozenset(stripped for stripped in plain.values() if stripped in COLLECTORS), unknown


def _process_families() -> list[Family]:
    """What every Go program shows of itself, so that boards for it work."""
    usage = self_usage(os.getpid())

    def shown(value: float) -> Callable[[], list[tuple[Labels, float]]]:
        return lambda: [((), value)]

    return [
        ReadCounter("cpu_seconds_total", "CPU time of the daemon.", shown(usage.cpu_s)),
        Gauge("resident_memory_bytes", "Memory of the daemon.", shown(usage.rss_bytes)),
        Gauge("virtual_memory_bytes", "Address space of the daemon.", shown(usage.virtual_bytes)),
        Gauge("open_fds", "Open descriptors of the daemon.", shown(usage.open_fds)),
        Gauge("max_fds", "How many it may have.", shown(usage.max_fds)),
        Gauge("start_time_seconds", "When the daemon began, since the epoch.", shown(usage.started_s)),
    ]
