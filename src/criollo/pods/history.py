"""Tells of every change of a pod or container to who remembers (`telemetry.chronicle`) and who counts (metrics).

It hears of a change after `pods.events`, in the same step.
"""

from criollo.containers.watch import OOM_KILLED
from criollo.model.container import Container, ContainerState
from criollo.model.pod import Pod
from criollo.monitor.exits import MONITOR_LOST
from criollo.state.records import State
from criollo.telemetry import hooks
from criollo.telemetry.chronicle import Chronicle, Subject


class History:
    """Hears of changes of `state` from now on; what was there before is made known."""

    def __init__(self, state: State, chronicle: Chronicle) -> None:
        self.chronicle = chronicle
        self._pod_told, self._container_told = state.pods.changed, state.containers.changed
        for pod in state.pods:
            chronicle.know(_of_pod(pod))
        for container in state.containers:
            chronicle.know(_of_container(container))
        state.pods.changed = self._pod_changed
        state.containers.changed = self._container_changed

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
            if after.state is ContainerState.EXITED and hooks.metrics is not None:
                _count(after)
        elif after.trouble and after.trouble != before.trouble:
            self.chronicle.moved(after.id, "TROUBLE", after.trouble)

    def _gone(self, container: Container) -> None:
        self.chronicle.gone(container.id)
        if hooks.metrics is not None:
            hooks.metrics.container_gone(container.name)


def _of_pod(pod: Pod) -> Subject:
    return Subject(pod.id, "pod sandbox", pod.name, f"{pod.config.namespace}/{pod.config.name}", "")


def _of_container(container: Container) -> Subject:
    return Subject(container.id, "container", container.name, container.config.name, container.pod_id)


def _told(container: Container) -> str:
    if container.state is not ContainerState.EXITED:
        return ""
    words = (f"exit code {container.exit_code}", container.reason, container.message)
    return ", ".join(word for word in words if word)


def _count(container: Container) -> None:
    assert hooks.metrics is not None
    if container.reason == OOM_KILLED:
        hooks.metrics.out_of_memory(container.name)
    if container.message == MONITOR_LOST:
        hooks.metrics.monitor_lost(container.name)
