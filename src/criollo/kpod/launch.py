"""Run a planned pod, wait for containers, take pods down: what `run`, `play`, `stop` and `rm` share.

A launch that fails takes back what it made: the pod with its containers, its log directory and volumes.

Two kpods may be at the same pod at once. Its record in the runtime is the lock: files that are named after the pod are made
once the pod is there and ours, and removed while it still is. Who removes files of a pod that is not there, and who makes some,
is `places.alone` at it.
"""

import asyncio
import contextlib
import os
import secrets
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, NamedTuple

from criollo.aio.cleanup import cleanup
from criollo.aio.together import together
from criollo.cri.pb import api_pb2 as pb
from criollo.errors import CriolloError, Denied, Exists, NotFound, Unavailable, explain
from criollo.kpod import logs, places
from criollo.kpod.lookup import everything
from criollo.kpod.podspec import EMPTY_DIR, MADE_BY_LABEL, ContainerPlan, PodPlan, VolumePlan
from criollo.kpod.pull import ensure, status
from criollo.kpod.session import Session

POLL_S: Final = 0.1
LONGEST_S: Final = (1 << 31) - 1  # a grace or limit that a person may name
_CLAIM: Final = "io.criollo.kpod.launch"  # an annotation: whose pod it is, when two ask for the same at once
BeforeStart = Callable[[str], Awaitable[None]]
"""Gets the id of a container that is made and not started."""
_KINDS: Final = {
    "Directory": stat.S_ISDIR,
    "File": stat.S_ISREG,
    "Socket": stat.S_ISSOCK,
    "CharDevice": stat.S_ISCHR,
    "BlockDevice": stat.S_ISBLK,
}


class Launched(NamedTuple):
    """Ids of what runs now."""

    pod_id: str
    container_ids: tuple[str, ...]


async def launch(session: Session, plan: PodPlan, *, before_start: BeforeStart | None = None) -> Launched:
    """Pull what is missing, make the pod, and start its containers in order; `before_start` sees each before it runs.

    Raises:
        Exists: another kpod makes this very pod; it is left alone.
        CriolloError: of any kind; nothing of the pod is left.
    """
    await _require_network(session, plan)
    images = {each.config.metadata.name: await _image(session, each) for each in plan.containers}
    plan.sandbox.annotations[_CLAIM] = secrets.token_hex(8)
    pod_id = ""
    try:
        for volume in plan.volumes:
            if volume.type != EMPTY_DIR:
                prepare_volume(volume)
        pod_id = await _pod(session, plan)
        async with places.alone(session.settings):
            for volume in plan.volumes:
                if volume.type == EMPTY_DIR:
                    prepare_volume(volume)
        started = []
        for each in plan.containers:
            each.config.image.image = images[each.config.metadata.name]
            container_id = await _create(session, pod_id, plan, each)
            if before_start is not None:
                await before_start(container_id)
            await _start(session, container_id, each)
            started.append(container_id)
    except BaseException as error:
        is_asked = isinstance(error, asyncio.CancelledError)
        await cleanup(_take_back(session, pod_id, plan, is_asked=is_asked), what=f"pod {plan.sandbox.metadata.name}")
        raise
    return Launched(pod_id, tuple(started))


async def _pod(session: Session, plan: PodPlan) -> str:
    """The id of a pod that we have made. Raises Exists: the runtime gave us that of another kpod, which asked for the same."""
    request = pb.RunPodSandboxRequest(config=plan.sandbox, runtime_handler=plan.handler)
    pod_id = str((await session.client.runtime("RunPodSandbox", request)).pod_sandbox_id)
    status = await session.client.runtime("PodSandboxStatus", pb.PodSandboxStatusRequest(pod_sandbox_id=pod_id))
    if status.status.annotations[_CLAIM] != plan.sandbox.annotations[_CLAIM]:
        raise Exists("pod", plan.sandbox.metadata.name, f"pod {pod_id[:12]}, which another kpod makes right now")
    return pod_id


async def _require_network(session: Session, plan: PodPlan) -> None:
    """A pod waits for a network that is not there yet, as kubelets want; a person is told at once. Raises Unavailable."""
    if plan.sandbox.linux.security_context.namespace_options.network == pb.NODE:
        return
    told = (await session.client.runtime("Status", pb.StatusRequest())).status.conditions
    for condition in told:
        if condition.type == "NetworkReady" and not condition.status:
            name = plan.sandbox.metadata.name
            raise Unavailable(f"cannot run pod {name}: {condition.message}; configure a CNI network or use the host's")


async def wait_exit(session: Session, container_id: str) -> pb.ContainerStatus:
    """The status of a container once it has ended. Raises NotFound when it is removed meanwhile."""
    while True:
        found = await logs.status(session, container_id)
        if logs.is_over(found):
            return found
        await asyncio.sleep(POLL_S)


async def stop_pod(session: Session, pod_id: str, *, grace_s: int) -> None:
    """Stop the containers of a pod, all at once, then the pod."""
    running = [each.id for each in (await everything(session)).containers_of(pod_id) if each.state == pb.CONTAINER_RUNNING]
    await together(stop_container(session, container_id, grace_s=grace_s) for container_id in running)
    await session.client.runtime("StopPodSandbox", pb.StopPodSandboxRequest(pod_sandbox_id=pod_id))


async def stop_container(session: Session, container_id: str, *, grace_s: int) -> None:
    """Stop one container: its stop signal, then SIGKILL after `grace_s`."""
    await session.client.runtime("StopContainer", pb.StopContainerRequest(container_id=container_id, timeout=grace_s))


async def remove_pod(session: Session, pod: pb.PodSandbox | pb.PodSandboxStatus) -> None:
    """Remove a pod with its containers; where kpod made it, its logs and volumes too, as long as nobody else's can be there."""
    request = pb.RemovePodSandboxRequest(pod_sandbox_id=pod.id)
    if not places.is_ours(pod.labels, MADE_BY_LABEL):
        await session.client.runtime("RemovePodSandbox", request)
        return
    await session.client.runtime("StopPodSandbox", pb.StopPodSandboxRequest(pod_sandbox_id=pod.id))
    meta = pod.metadata
    try:
        places.forget(session.settings, namespace=meta.namespace, name=meta.name, uid=meta.uid)
    finally:
        await session.client.runtime("RemovePodSandbox", request)


def prepare_volume(volume: VolumePlan) -> None:
    """Make what a volume's type says is to be made, and look whether the rest is what it says.

    Raises:
        NotFound, CriolloError: there is nothing, or something else.
    """
    path = Path(volume.path)
    if volume.type == EMPTY_DIR:
        places.make_volume(path)
        return
    with explain(f"make {path}"):
        if volume.type == "DirectoryOrCreate":
            os.makedirs(path, 0o755, exist_ok=True)
        elif volume.type == "FileOrCreate":
            os.makedirs(path.parent, 0o755, exist_ok=True)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o644))
    matches = _KINDS.get(volume.type.removesuffix("OrCreate"))
    if matches is None:
        return
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise NotFound("host path", volume.path, f"its hostPath.type {volume.type} wants it there") from None
    if not matches(mode):
        raise CriolloError(f"cannot mount {volume.path}: it is no {volume.type.removesuffix('OrCreate')}")


async def _image(session: Session, plan: ContainerPlan) -> str:
    """The id of a container's image, pulled as its policy says. Raises Denied for one that would run as root and must not."""
    image_id = await ensure(session, plan.image, plan.pull)
    if not plan.must_not_be_root:
        return image_id
    security = plan.config.linux.security_context
    if security.HasField("run_as_user"):
        uid: int | None = security.run_as_user.value
    else:
        image = await status(session, image_id)
        uid = None if image is None or image.username else image.uid.value
    name = plan.config.metadata.name
    if uid == 0:
        raise Denied(f"cannot run container {name}: runAsNonRoot is set and it would run as root; set runAsUser")
    if uid is None:
        raise Denied(f"cannot run container {name}: runAsNonRoot is set and the image names its user; set runAsUser")
    return image_id


async def _create(session: Session, pod_id: str, plan: PodPlan, container: ContainerPlan) -> str:
    request = pb.CreateContainerRequest(pod_sandbox_id=pod_id, config=container.config, sandbox_config=plan.sandbox)
    return str((await session.client.runtime("CreateContainer", request)).container_id)


async def _start(session: Session, container_id: str, container: ContainerPlan) -> None:
    await session.client.runtime("StartContainer", pb.StartContainerRequest(container_id=container_id))
    if container.runs_to_end:
        ended = await wait_exit(session, container_id)
        if ended.exit_code != 0:
            await logs.show(session, container_id, follow=False, tail=20)
            name = container.config.metadata.name
            raise CriolloError(f"init container {name} ended with {ended.exit_code} ({ended.reason}); its last output is above")


async def _take_back(session: Session, pod_id: str, plan: PodPlan, *, is_asked: bool) -> None:
    """Remove what is ours; `is_asked`: the runtime may be at work on a pod whose id we have not heard yet."""
    meta = plan.sandbox.metadata
    if not pod_id and is_asked:
        with contextlib.suppress(CriolloError):
            pod_id = await _pod(session, plan)  # joins the work in progress
    if pod_id:
        await remove_pod(session, pb.PodSandbox(id=pod_id, metadata=meta, labels=plan.sandbox.labels))
    else:
        places.forget_unused(session.settings, namespace=meta.namespace, name=meta.name, uid=meta.uid)
