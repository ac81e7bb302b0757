"""Tells of every change of a pod or container to who remembers (`telemetry.chronicle`) and who counts (metrics).

It hears of a change after `pods.events`, in the same step.
"""

from collections.abc import Callable
from pathlib import Path

from criollo.containers.watch import OOM_KILLED
from criollo.model.container import Container, ContainerState
from criollo.model.pod import Pod
from criollo.monitor.exits import MONITOR_LOST
from criollo.monitor.oom_alerts import OomAlerts
from criollo.state.records import State
from criollo.telemetry import hooks
from criollo.telemetry.chronicle import Chronicle, Subject
from criollo.telemetry.log import get_logger

log = get_logger(__name__)


class History:
    """Hears of changes of `state` from now on; what was there before is made known."""

    def __init__(self, state: State, chronicle: Chronicle) -> None:
        self.chronicle = chronicle
        self._containers = state.containers
        self._alerts: OomAlerts | None = None
        self._bundle: Callable[[str], Path] = Path
        self._events: Callable[[Container], Path | None] = _nowhere
        self._oom_told: set[str] = set()  # containers that live
        self._pod_told, self._container_told = state.pods.changed, state.containers.changed
        for pod in state.pods:
            chronicle.know(_of_pod(pod))
        for container in state.containers:
            chronicle.know(_of_container(container))
        state.pods.changed = self._pod_changed
        state.containers.changed = self._container_changed

    def watch_memory(self, bundle: Callable[[str], Path], events: Callable[[Container], Path | None]) -> None:
        """Hear of kills for memory while containers live, too. To be called on the loop.

        `bundle` and `events` say where the bundle of a container is, and the file of its cgroup that counts kills, if any.
        """
        self._bundle, self._events, self._alerts = bundle, events, OomAlerts(self.out_of_memory)
        for container in self._containers:
            if container.is_running:
                self._alerts.watch(container.id, bundle(container.id), events(container), is_new=False)

    def close(self) -> None:
        """Nothing further is heard of memory."""
        if self._alerts is not None:
            self._alerts.close()
            self._alerts = None

    def out_of_memory(self, container_id: str) -> None:
        """The kernel has killed a process of a container that lives."""
        container = self._containers.get(container_id)
        if container is None or not container.is_running or container_id in self._oom_told:
            return
        self._oom_told.add(container_id)
        log.warning("memory of a container is used up: the kernel killed a process of it", container=container_id)
        self.chronicle.moved(container_id, "OOM", "the kernel killed a process of it: its memory was used up")
        if hooks.metrics is not None:
            hooks.metrics.out_of_memory(container.name)

    def _pod_changed(self, before: Pod | None, after: Pod | None) -> None:
        self._pod_told(before, after)
        if after is None:
            if before is not None:
                self.chronicle.gone(before.id)
        elif before is None:
            self.chronicle.made(_of_pod(after))
        elif before.state is not after.state:
            self.chronicle.moved(after.id, str(after.state), after.trouble)
        elif after.trouble and after.trouble != before.trouble:
            self.chronicle.moved(after.id, "TROUBLE", after.trouble)

    def _container_changed(self, before: Container | None, after: Container | None) -> None:
        self._container_told(before, after)
        if after is None:
            if before is not None:
                self._gone(before)
        elif before is None:
            self.chronicle.made(_of_container(after))
        elif before.state is not after.state:
            self.chronicle.moved(after.id, str(after.state), _told(after))
            if after.state is ContainerState.EXITED:
                self._exited(after)
            elif self._alerts is not None and after.is_running:
                self._alerts.watch(after.id, self._bundle(after.id), self._events(after))
        elif after.trouble and after.trouble != before.trouble:
            self.chronicle.moved(after.id, "TROUBLE", after.trouble)

    def _exited(self, container: Container) -> None:
        if self._alerts is not None:
            self._alerts.forget(container.id)
        if hooks.metrics is not None:
            if container.reason == OOM_KILLED and container.id not in self._oom_told:
                hooks.metrics.out_of_memory(container.name)
            if container.message == MONITOR_LOST:
                hooks.metrics.monitor_lost(container.name)
        self._oom_told.discard(container.id)

    def _gone(self, container: Container) -> None:
        self.chronicle.gone(container.id)
        self._oom_told.discard(container.id)
        if self._alerts is not None:
            self._alerts.forget(container.id)
        if hooks.metrics is not None:
            hooks.metrics.container_gone(container.name)


def _nowhere(_: Container) -> None:
    return None


def _of_pod(pod: Pod) -> Subject:
    return Subject(pod.id, "pod sandbox", pod.name, f"{pod.config.namespace}/{pod.config.name}", "")


def _of_container(container: Container) -> Subject:
    return Subject(container.id, "container", container.name, container.config.name, container.pod_id)


def _told(container: Container) -> str:
    if container.state is not ContainerState.EXITED:
        return ""
    words = (f"exit code {container.exit_code}", container.reason, container.message)
    return ", ".join(word for word in words if word)
