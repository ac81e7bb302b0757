"""ExecSync: run a command in a container and wait for its end."""

import msgspec

from criollo.aio import threads
from criollo.containers.context import Containers
from criollo.containers.status import MAX_SPEC_BYTES, find_container
from criollo.errors import Damaged, Invalid, NotFound, WrongState
from criollo.linux import files
from criollo.model.container import ContainerState
from criollo.oci import runtime_spec
from criollo.runtimes.base import ExecRequest, ExecResult
from criollo.specgen.process import exec_process


async def exec_sync(containers: Containers, container_id: str, argv: tuple[str, ...], *, timeout_s: float) -> ExecResult:
    """Run `argv` with the user, environment and limits of the container's own process; no limit when `timeout_s` is 0.

    Raises:
        WrongState: the container does not run.
        TimedOut: the command was killed with all it had started.
        ToolFailed: the runtime could not start it.
    Source: CRI v1, ExecSync.
    """
    if not argv:
        raise Invalid("cmd", argv, "a command")
    container = find_container(containers, container_id)
    if container.state is not ContainerState.RUNNING:
        raise WrongState("container", container.id, str(container.state), "RUNNING")
    path = containers.places.bundle(container.id) / "config.json"
    try:
        spec = runtime_spec.decode(await threads.files(files.read_limited, path, MAX_SPEC_BYTES))
    except (OSError, msgspec.MsgspecError) as error:
        raise NotFound("bundle", str(path), f"container {container.id} has lost it; remove the container") from error
    process = runtime_spec.encode(exec_process(_first_process(spec, container.id), argv))
    return await containers.handlers.get(container.handler).exec_sync(
        ExecRequest(
            container_id=container.id,
            bundle=containers.places.bundle(container.id),
            process=process,
            command=argv,
            timeout_s=timeout_s,
        )
    )


def _first_process(spec: runtime_spec.Spec, container_id: str) -> runtime_spec.Process:
    if spec.process is None:
        raise Damaged(f"spec of container {container_id} has no process; remove the container")
    return spec.process
