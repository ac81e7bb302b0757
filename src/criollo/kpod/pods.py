"""The verbs that list: pods, ps."""

import time

import click

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
            click.echo(document(described))
            return 0
        heads = ("POD ID", "NAME", "NAMESPACE", "STATE", "CONTAINERS", "ADDRESS", "CREATED")
        now = time.time_ns()
        rows = [
            (
                short(pod.id),
                pod.metadata.name,
                pod.metadata.namespace,
                str(each["state"]),
                str(len(known.containers_of(pod.id))),
                ", ".join(each["addresses"]),
                age(pod.created_at, now),
            )
            for pod, each in zip(found, described, strict=True)
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
            click.echo(document(described))
            return 0
        heads = ("CONTAINER ID", "NAME", "POD", "IMAGE", "STATE", "CREATED")
        now = time.time_ns()
        rows = [
            (short(each["id"]), each["name"], each["pod"], each["image"], _state(each), age(each["created_ns"], now))
            for each in described
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


def _pod(pod: pb.PodSandbox, known: Everything, addresses: list[str]) -> dict[str, object]:
    return {
        "id": pod.id,
        "name": pod.metadata.name,
        "namespace": pod.metadata.namespace,
        "uid": pod.metadata.uid,
        "attempt": pod.metadata.attempt,
        "state": "ready" if pod.state == pb.SANDBOX_READY else "stopped",
        "created_ns": pod.created_at,
        "handler": pod.runtime_handler,
        "addresses": addresses,
        "containers": [each.id for each in known.containers_of(pod.id)],
        "labels": dict(pod.labels),
        "annotations": dict(pod.annotations),
    }


async def _container(session: Session, container: pb.Container, known: Everything) -> dict[str, object]:
    pod, exit_code = known.pod_of(container), None
    reason = ""
    if container.state == pb.CONTAINER_EXITED:
        try:
            found = await logs.status(session, container.id)
            exit_code, reason = found.exit_code, found.reason
        except NotFound:  # removed since it was listed
            pass
    return {
        "id": container.id,
        "name": container.metadata.name,
        "attempt": container.metadata.attempt,
        "pod": pod.metadata.name if pod is not None else "",
        "namespace": pod.metadata.namespace if pod is not None else "",
        "pod_id": container.pod_sandbox_id,
        "image": container.image.user_specified_image or container.image.image,
        "image_id": container.image_id,
        "state": _STATES.get(container.state, "unknown"),
        "exit_code": exit_code,
        "reason": reason,
        "created_ns": container.created_at,
        "labels": dict(container.labels),
        "annotations": dict(container.annotations),
    }


def _state(described: dict[str, object]) -> str:
    """`exited (137 OOMKilled)`."""
    if described["exit_code"] is None:
        return str(described["state"])
    reason = f" {described['reason']}" if described["reason"] not in ("", "Completed", "Error") else ""
    return f"{described['state']} ({described['exit_code']}{reason})"
