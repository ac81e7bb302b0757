"""RuntimeService: per call read → domain → write. Who looks for a call finds its name in `calls`.

What answers from memory is a plain function, which spares it a task.
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import cached_property
from typing import TYPE_CHECKING, Final

from criollo.containers import status as container_status
from criollo.containers.create import create_container
from criollo.containers.exec import exec_sync
from criollo.containers.logs import reopen_log
from criollo.containers.start import start_container
from criollo.containers.stop import stop_container
from criollo.containers.teardown import remove_container
from criollo.cri import checks, query, read, read_container, read_session, write
from criollo.cri.calls import Handler, StreamHandler
from criollo.cri.encoded import Encoded, nested
from criollo.cri.facts import NodeFacts
from criollo.cri.pb import api_pb2 as pb
from criollo.errors import Unsupported, WrongState
from criollo.model.container import Container
from criollo.model.pod import Pod
from criollo.model.session import Session
from criollo.pods import status as pod_status
from criollo.pods.context import Pods
from criollo.pods.run import run_pod
from criollo.pods.stop import stop_pod
from criollo.pods.teardown import remove_pod

if TYPE_CHECKING:
    from criollo.cri.write_stats import StatsWriter

API_VERSION: Final = "0.1.0"  # of the form of VersionResponse; kubelet's own constant
RUNTIME_NAME: Final = "criollo"
_STATS: Final = pb.ListContainerStatsResponse.STATS_FIELD_NUMBER  # and of the five other replies with statistics


class RuntimeService:
    """Answers runtime.v1.RuntimeService. `calls` is what a Server takes; `issue` gives the URL of a session."""

    def __init__(self, pods: Pods, facts: NodeFacts, issue: Callable[[Session], str]) -> None:
        self._pods, self._facts, self._issue = pods, facts, issue
        self._containers = pods.containers
        self._pod_list = Encoded[Pod](lambda pod: pb.ListPodSandboxResponse(items=[write.pod(pod)]))
        self._container_list = Encoded[Container](lambda each: pb.ListContainersResponse(containers=[write.container(each)]))

    def calls(self) -> Mapping[str, Handler | StreamHandler]:
        """The handlers by method name; a method that is not here is UNIMPLEMENTED."""
        return {
            "Version": self.version,
            "Status": self.status,
            "RuntimeConfig": self.runtime_config,
            "UpdateRuntimeConfig": self.update_runtime_config,
            "RunPodSandbox": self.run_pod_sandbox,
            "StopPodSandbox": self.stop_pod_sandbox,
            "RemovePodSandbox": self.remove_pod_sandbox,
            "PodSandboxStatus": self.pod_sandbox_status,
            "UpdatePodSandboxResources": self.update_pod_sandbox_resources,
            "ListPodSandbox": self.list_pod_sandbox,
            "StreamPodSandboxes": self.stream_pod_sandboxes,
            "CreateContainer": self.create_container,
            "StartContainer": self.start_container,
            "StopContainer": self.stop_container,
            "RemoveContainer": self.remove_container,
            "ContainerStatus": self.container_status,
            "ListContainers": self.list_containers,
            "StreamContainers": self.stream_containers,
            "UpdateContainerResources": self.update_container_resources,
            "ReopenContainerLog": self.reopen_container_log,
            "ExecSync": self.exec_sync,
            "Exec": self.exec,
            "Attach": self.attach,
            "PortForward": self.port_forward,
            "ContainerStats": self.container_stats,
            "ListContainerStats": self.list_container_stats,
            "StreamContainerStats": self.stream_container_stats,
            "PodSandboxStats": self.pod_sandbox_stats,
            "ListPodSandboxStats": self.list_pod_sandbox_stats,
            "StreamPodSandboxStats": self.stream_pod_sandbox_stats,
            "ListMetricDescriptors": self.list_metric_descriptors,
            "ListPodSandboxMetrics": self.list_pod_sandbox_metrics,
            "StreamPodSandboxMetrics": self.stream_pod_sandbox_metrics,
            "GetContainerEvents": self.get_container_events,
        }

    # The node

    def version(self, request: pb.VersionRequest) -> pb.VersionResponse:
        return pb.VersionResponse(
            version=API_VERSION, runtime_name=RUNTIME_NAME, runtime_version=self._facts.version, runtime_api_version="v1"
        )

    async def status(self, request: pb.StatusRequest) -> pb.StatusResponse:
        await self._pods.network.refresh()
        network, facts = self._pods.network.status(), self._facts
        conditions = [
            pb.RuntimeCondition(type="RuntimeReady", status=True),
            pb.RuntimeCondition(type="NetworkReady", status=network.ready, reason=network.reason, message=network.message),
        ]
        return pb.StatusResponse(
            status=pb.RuntimeStatus(conditions=conditions),
            info={"config": facts.config_json()} if request.verbose else None,
            runtime_handlers=[write.handler(each) for each in facts.handlers()],
            features=write.features(facts),
        )

    def runtime_config(self, request: pb.RuntimeConfigRequest) -> pb.RuntimeConfigResponse:
        driver = pb.SYSTEMD if self._facts.uses_systemd else pb.CGROUPFS
        return pb.RuntimeConfigResponse(linux=pb.LinuxRuntimeConfiguration(cgroup_driver=driver))

    def update_runtime_config(self, request: pb.UpdateRuntimeConfigRequest) -> pb.UpdateRuntimeConfigResponse:
        """Accepted and not used: addresses are the network plugin's affair."""
        return pb.UpdateRuntimeConfigResponse()

    # Pod sandboxes

    async def run_pod_sandbox(self, request: pb.RunPodSandboxRequest) -> pb.RunPodSandboxResponse:
        config = read.pod_config(request.config)
        pod_id = await run_pod(self._pods, config, read.handler_name(request.runtime_handler))
        return pb.RunPodSandboxResponse(pod_sandbox_id=pod_id)

    async def stop_pod_sandbox(self, request: pb.StopPodSandboxRequest) -> pb.StopPodSandboxResponse:
        await stop_pod(self._pods, _pod_id(request.pod_sandbox_id))
        return pb.StopPodSandboxResponse()

    async def remove_pod_sandbox(self, request: pb.RemovePodSandboxRequest) -> pb.RemovePodSandboxResponse:
        await remove_pod(self._pods, _pod_id(request.pod_sandbox_id))
        return pb.RemovePodSandboxResponse()

    async def pod_sandbox_status(self, request: pb.PodSandboxStatusRequest) -> pb.PodSandboxStatusResponse:
        pod, info = pod_status.find_pod(self._pods, _pod_id(request.pod_sandbox_id)), None
        if request.verbose:
            spec = await pod_status.spec_of(self._pods, pod)
            pod = pod_status.find_pod(self._pods, pod.id)  # as it is now, as all that follows
            info = pod_status.verbose(self._pods, pod, spec)
        if self._pods.events is None:
            return pb.PodSandboxStatusResponse(status=write.pod_status(pod), info=info)
        inside = [each for each in container_status.list_containers(self._containers) if each.pod_id == pod.id]
        return pb.PodSandboxStatusResponse(
            status=write.pod_status(pod),
            info=info,
            containers_statuses=[write.container_status(each) for each in inside],
            timestamp=self._containers.clock(),
        )

    async def update_pod_sandbox_resources(
        self, request: pb.UpdatePodSandboxResourcesRequest
    ) -> pb.UpdatePodSandboxResourcesResponse:
        from criollo.pods.update import update_pod  # for pods that are resized, which few are

        overhead, resources = read.new_pod_resources(request)
        await update_pod(self._pods, _pod_id(request.pod_sandbox_id), overhead=overhead, resources=resources)
        return pb.UpdatePodSandboxResourcesResponse()

    def list_pod_sandbox(self, request: pb.ListPodSandboxRequest) -> bytes:
        return self._pod_list.of(query.pods(pod_status.list_pods(self._pods), request.filter))

    async def stream_pod_sandboxes(
        self, request: pb.StreamPodSandboxesRequest
    ) -> AsyncGenerator[pb.StreamPodSandboxesResponse, None]:
        for batch in query.batches(self._sandboxes(request.filter)):
            yield pb.StreamPodSandboxesResponse(pod_sandboxes=batch)

    def _sandboxes(self, wanted: pb.PodSandboxFilter) -> list[pb.PodSandbox]:
        return [write.pod(pod) for pod in query.pods(pod_status.list_pods(self._pods), wanted)]

    # Containers

    async def create_container(self, request: pb.CreateContainerRequest) -> pb.CreateContainerResponse:
        config = read_container.container_config(request.config)
        container_id = await create_container(
            self._containers,
            _pod_id(request.pod_sandbox_id),
            config,
            in_privileged_pod=request.sandbox_config.linux.security_context.privileged,
        )
        return pb.CreateContainerResponse(container_id=container_id)

    async def start_container(self, request: pb.StartContainerRequest) -> pb.StartContainerResponse:
        await start_container(self._containers, _container_id(request.container_id))
        return pb.StartContainerResponse()

    async def stop_container(self, request: pb.StopContainerRequest) -> pb.StopContainerResponse:
        grace_s = checks.number("timeout", request.timeout, 0)
        await stop_container(self._containers, _container_id(request.container_id), grace_s=grace_s)
        return pb.StopContainerResponse()

    async def remove_container(self, request: pb.RemoveContainerRequest) -> pb.RemoveContainerResponse:
        await remove_container(self._containers, _container_id(request.container_id))
        return pb.RemoveContainerResponse()

    async def container_status(self, request: pb.ContainerStatusRequest) -> pb.ContainerStatusResponse:
        container, info = self._find(request.container_id), None
        if request.verbose:
            spec = await container_status.spec_of(self._containers, container.id)
            container = self._find(container.id)  # as it is now
            info = container_status.verbose(container, spec)
        return pb.ContainerStatusResponse(status=write.container_status(container), info=info)

    def list_containers(self, request: pb.ListContainersRequest) -> bytes:
        return self._container_list.of(query.containers(container_status.list_containers(self._containers), request.filter))

    async def stream_containers(self, request: pb.StreamContainersRequest) -> AsyncGenerator[pb.StreamContainersResponse, None]:
        for batch in query.batches(self._listed(request.filter)):
            yield pb.StreamContainersResponse(containers=batch)

    async def update_container_resources(
        self, request: pb.UpdateContainerResourcesRequest
    ) -> pb.UpdateContainerResourcesResponse:
        from criollo.containers.update import update_resources  # for containers that are resized, which few are

        resources = read_container.new_resources(request)
        await update_resources(self._containers, _container_id(request.container_id), resources)
        return pb.UpdateContainerResourcesResponse()

    async def reopen_container_log(self, request: pb.ReopenContainerLogRequest) -> pb.ReopenContainerLogResponse:
        await reopen_log(self._containers, _container_id(request.container_id))
        return pb.ReopenContainerLogResponse()

    async def exec_sync(self, request: pb.ExecSyncRequest) -> pb.ExecSyncResponse:
        argv = checks.arguments("cmd", request.cmd)
        timeout_s = checks.number("timeout", request.timeout, 0)
        result = await exec_sync(self._containers, _container_id(request.container_id), argv, timeout_s=timeout_s)
        return pb.ExecSyncResponse(stdout=result.stdout, stderr=result.stderr, exit_code=result.exit_code)

    # Streams, each opened by its client at the URL that it gets

    async def exec(self, request: pb.ExecRequest) -> pb.ExecResponse:
        return pb.ExecResponse(url=self._issue(read_session.exec_session(request)))

    async def attach(self, request: pb.AttachRequest) -> pb.AttachResponse:
        return pb.AttachResponse(url=self._issue(read_session.attach_session(request)))

    async def port_forward(self, request: pb.PortForwardRequest) -> pb.PortForwardResponse:
        return pb.PortForwardResponse(url=self._issue(read_session.forward_session(request)))

    # Statistics

    @cached_property
    def _written(self) -> "StatsWriter":
        from criollo.cri.write_stats import StatsWriter  # with the first question for statistics

        return StatsWriter(self._containers.roots.mountpoint)

    async def container_stats(self, request: pb.ContainerStatsRequest) -> bytes:
        return (await self._stats([self._find(request.container_id)], fresh=True))[0]

    async def list_container_stats(self, request: pb.ListContainerStatsRequest) -> bytes:
        return b"".join(await self._running(request.filter))

    async def stream_container_stats(self, request: pb.StreamContainerStatsRequest) -> AsyncGenerator[bytes, None]:
        for batch in query.batches_of_bytes(await self._running(request.filter)):
            yield batch

    async def _running(self, wanted: pb.ContainerStatsFilter) -> list[bytes]:
        found = query.by_owner(container_status.list_containers(self._containers), wanted)
        return await self._stats([container for container in found if container.is_running])

    async def _stats(self, targets: list[Container], *, fresh: bool = False) -> list[bytes]:
        """Statistics of containers, in order, each as the one field of all replies that have them."""
        used = await container_status.stats_of(self._containers, targets, fresh=fresh)
        return [nested(_STATS, self._written.container(*each)) for each in zip(targets, used, strict=True)]

    async def pod_sandbox_stats(self, request: pb.PodSandboxStatsRequest) -> bytes:
        pod = pod_status.find_pod(self._pods, _pod_id(request.pod_sandbox_id))
        found = await self._pod_stats([pod])
        if not found:
            raise WrongState("pod sandbox", pod.id, str(pod.state), "READY")
        return found[0]

    async def list_pod_sandbox_stats(self, request: pb.ListPodSandboxStatsRequest) -> bytes:
        wanted = query.pods_by_label(pod_status.list_pods(self._pods), request.filter)
        return b"".join(await self._pod_stats(wanted))

    async def stream_pod_sandbox_stats(self, request: pb.StreamPodSandboxStatsRequest) -> AsyncGenerator[bytes, None]:
        wanted = query.pods_by_label(pod_status.list_pods(self._pods), request.filter)
        for batch in query.batches_of_bytes(await self._pod_stats(wanted)):
            yield batch

    async def _pod_stats(self, targets: Sequence[Pod]) -> list[bytes]:
        from criollo.pods.stats import pod_stats

        return [nested(_STATS, self._written.pod(each)) for each in await pod_stats(self._pods, targets)]

    def list_metric_descriptors(self, request: pb.ListMetricDescriptorsRequest) -> pb.ListMetricDescriptorsResponse:
        from criollo.cri.write_metrics import descriptors  # few nodes ask for metrics

        return pb.ListMetricDescriptorsResponse(descriptors=descriptors(self._pods.metric_groups))

    async def list_pod_sandbox_metrics(self, request: pb.ListPodSandboxMetricsRequest) -> bytes:
        return b"".join(await self._metrics())

    async def stream_pod_sandbox_metrics(self, request: pb.StreamPodSandboxMetricsRequest) -> AsyncGenerator[bytes, None]:
        for batch in query.batches_of_bytes(await self._metrics()):
            yield batch

    async def _metrics(self) -> list[bytes]:
        from criollo.cri.write_metrics import pod_metrics_field
        from criollo.pods.metrics import pod_metrics

        return await pod_metrics(self._pods, pod_status.list_pods(self._pods), pod_metrics_field)

    async def get_container_events(self, request: pb.GetEventsRequest) -> AsyncGenerator[pb.ContainerEventResponse, None]:
        if self._pods.events is None:
            raise Unsupported("GetContainerEvents is switched off on this node: set enable_pod_events of crio.runtime")
        async with aclosing(self._pods.events.follow()) as events:
            async for event in events:
                yield write.event(event)

    def _find(self, container_id: str) -> Container:
        return container_status.find_container(self._containers, _container_id(container_id))

    def _listed(self, wanted: pb.ContainerFilter) -> list[pb.Container]:
        found = query.containers(container_status.list_containers(self._containers), wanted)
        return [write.container(container) for container in found]


def _pod_id(value: str) -> str:
    return read.object_id("pod_sandbox_id", value)


def _container_id(value: str) -> str:
    return read.object_id("container_id", value)
