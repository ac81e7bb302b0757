"""Mounts of a container: what becomes of those that show its pod's logs."""

from criollo.containers.linked_logs import KEY
from criollo.containers.volumes import guarded
from criollo.model.container import Mount
from criollo.specgen.request import PlannedMount


def test_logs_of_the_pod_are_read_only_wherever_they_are_mounted() -> None:
    planned = [
        PlannedMount(mount=Mount(container_path="/x"), source=source) for source in ("/v/logs", "/v/logs/a", "/v/logsx", "/v")
    ]
    assert [each.mount.readonly for each in guarded(planned, {KEY: "/v/logs"})] == [True, True, False, False]
    assert [each.mount.readonly for each in guarded(planned, {})] == [False] * 4
