"""The verbs that list: pods, ps."""

import contextlib
import time

import click
import msgspec

from criollo.cri.pb import api_pb2 as pb
from criollo.errors import NotFound
from criollo.kpod import logs
from criollo.kpod.lookup import Everything, everything
from criollo.kpod.session import Options, Session, work
from criollo.kpod.text import age, document, short, table

_STATES = {
    pb.CONTAINER_CREATED: "created",
    pb.CONTAINER_RUNNING: "running",
    pb.CONTAINER_EXITED: "exited",
    pb.CONTAINER_UNKNOWN: "unknown",
}


class ListedPod(msgspec.Struct, frozen=True, kw_only=True):
    """A pod as `pods --json` has it; `state` is ready or stopped."""

    id: str
    name: str
    namespace: str
    uid: str
    attempt: int
    state: str
    created_ns: int
    handler: str
    addresses: list[str]
    containers: list[str]  # ids
    labels: dict[str, str]
    annotations: dict[str, str]


class ListedContainer(msgspec.Struct, frozen=True, kw_only=True):
    """A container as `ps --json` has it; `exit_code` is null until it has ended."""

    id: str
    name: str
    attempt: int
    pod: str
    namespace: str
    pod_id: str
    image: str
    image_id: str
    state: str
    exit_code: int | None
    reason: str
    created_ns: int
    labels: dict[str, str]
    annotations: dict[str, str]


@click.command("pods")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def pods(options: Options, as_json: bool) -> int:
    """List pods."""

    async def verb(session: Session) -> int:
        known = await everything(session)
        found = sorted(known.pods, key=lambda pod: -pod.created_at)
        described = [_pod(pod, known, await _addresses(session, pod)) for pod in found]
        if as_json:
            click.echo(document(msgspec.to_builtins(described)))
            return 0
        heads = ("POD ID", "NAME", "NAMESPACE", "STATE", "CONTAINERS", "ADDRESS", "CREATED")
        now = time.time_ns()
        rows = [
            (
                short(each.id),
                each.name,
                each.namespace,
                each.state,
                str(len(each.containers)),
                ", ".join(each.addresses),
                age(each.created_ns, now),
            )
            for each in described
        ]
        click.echo(table(heads, rows))
        return 0

    return work(options, verb)


@click.command("ps")
@click.option("-a", "--all", "show_all", is_flag=True, help="Also those that do not run.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def ps(options: Options, show_all: bool, as_json: bool) -> int:
    """List containers."""

    async def verb(session: Session) -> int:
        known = await everything(session)
        chosen = [each for each in known.containers if show_all or each.state == pb.CONTAINER_RUNNING]
        described = [await _container(session, each, known) for each in sorted(chosen, key=lambda each: -each.created_at)]
        if as_json:
            click.echo(document(msgspec.to_builtins(described)))
            return 0
        heads = ("CONTAINER ID", "NAME", "POD", "IMAGE", "STATE", "CREATED")
        now = time.time_ns()
        rows = [
            (short(each.id), each.name, each.pod, each.image, _state(each), age(each.created_ns, now)) for each in described
        ]
        click.echo(table(heads, rows))
        return 0

    return work(options, verb)


async def _addresses(session: Session, pod: pb.PodSandbox) -> list[str]:
    try:
        reply = await session.client.runtime("PodSandboxStatus", pb.PodSandboxStatusRequest(pod_sandbox_id=pod.id))
    except NotFound:  # removed since it was listed
        return []
    network = reply.status.network
    return [ip for ip in (network.ip, *(each.ip for each in network.additional_ips)) if ip]


def _pod(pod: pb.PodSandbox, known: Everything, addresses: list[str]) -> ListedPod:
    return ListedPod(
        id=pod.id,
        name=pod.metadata.name,
        namespace=pod.metadata.namespace,
        uid=pod.metadata.uid,
        attempt=pod.metadata.attempt,
        state="ready" if pod.state == pb.SANDBOX_READY else "stopped",
        created_ns=pod.created_at,
        handler=pod.runtime_handler,
        addresses=addresses,
        containers=[each.id for each in known.containers_of(pod.id)],
        labels=dict(pod.labels),
        annotations=dict(pod.annotations),
    )


async def _container(session: Session, container: pb.Container, known: Everything) -> ListedContainer:
    pod, exit_code, reason = known.pod_of(container), None, ""
    if container.state == pb.CONTAINER_EXITED:
        with contextlib.suppress(NotFound):  # removed since it was listed
            found = await logs.status(session, container.id)
            exit_code, reason = found.exit_code, found.reason
    return ListedContainer(
        id=container.id,
        name=container.metadata.name,
        attempt=container.metadata.attempt,
        pod=pod.metadata.name if pod is not None else "",
        namespace=pod.metadata.namespace if pod is not None else "",
        pod_id=container.pod_sandbox_id,
        image=container.image.user_specified_image or container.image.image,
        image_id=container.image_id,
        state=_STATES.get(container.state, "unknown"),
        exit_code=exit_code,
        reason=reason,
        created_ns=container.created_at,
        labels=dict(container.labels),
        annotations=dict(container.annotations),
    )


def _state(listed: ListedContainer) -> str:
    """`exited (137 OOMKilled)`."""
    if listed.exit_code is None:
        return listed.state
    reason = f" {listed.reason}" if listed.reason not in ("", "Completed", "Error") else ""
    return f"{listed.state} ({listed.exit_code}{reason})"
