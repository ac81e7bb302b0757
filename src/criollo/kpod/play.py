"""`kpod play`: run the pods of a manifest, or take them down again."""

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import click

from criollo.cri.pb import api_pb2 as pb
from criollo.errors import CriolloError, Invalid, explain
from criollo.kpod import launch, places
from criollo.kpod.lookup import everything
from criollo.kpod.manifest import Pod, read_pod, unsupported
from criollo.kpod.outcome import each_of, warn
from criollo.kpod.podspec import Origin, make_plan, pod_uid
from criollo.kpod.session import Options, Session, work
from criollo.linux.files import read_limited

_RESOLV_CONF: Final = Path("/etc/resolv.conf")
_RESOLV_CONF_LIMIT_BYTES: Final = 1 << 20


@click.command("play")
@click.option("--down", is_flag=True, help="Stop and remove the pods that the file made.")
@click.argument("file", metavar="FILE")
@click.pass_obj
def play(options: Options, file: str, down: bool) -> int:
    """Run the pods of a Kubernetes manifest, YAML or JSON; '-' reads standard input."""
    pods = read_file(file, silent=down)

    async def verb(session: Session) -> int:
        act: Callable[[Session, Pod], Awaitable[None]] = take_down if down else bring_up

        async def one(name: str) -> None:
            await act(session, pods[name])

        return await each_of(pods, one)

    return work(options, verb)


def read_file(file: str, *, silent: bool = False) -> dict[str, Pod]:
    """The pods of a file by NAMESPACE/NAME, in order; what is not used of it is warned of, unless `silent`.

    Raises:
        Invalid: it is no manifest, or has no pod.
    """
    from criollo.oci.yaml_documents import LIMIT_BYTES, read_documents  # PyYAML: 2 MiB and 30 ms for this verb alone

    if file == "-":
        raw = sys.stdin.buffer.read(LIMIT_BYTES + 1)
    else:
        with explain(f"read {file}"):
            raw = read_limited(file, LIMIT_BYTES)
    pods: dict[str, Pod] = {}
    for document in read_documents(raw, file):
        if (pod := _one(document, file, silent=silent)) is not None:
            key = f"{pod.metadata.namespace}/{pod.metadata.name}"
            if key in pods:
                raise Invalid(file, f"pod {key} twice", "each pod once")
            pods[key] = pod
    if not pods:
        raise Invalid(file, "no pod", "a manifest of kind Pod")
    return pods


def _one(document: Any, file: str, *, silent: bool) -> Pod | None:
    if not isinstance(document, dict):
        raise Invalid(file, type(document).__name__, "a manifest")
    kind, version = document.get("kind"), document.get("apiVersion")
    if (kind, version) != ("Pod", "v1"):
        if not silent:
            warn(f"{file}: {version or 'no apiVersion'} {kind or 'no kind'} is left out: only v1 Pod is played")
        return None
    pod = read_pod(document, file)
    for path in () if silent else unsupported(document):
        warn(f"{file}: {path} is not supported, and left out")
    return pod


async def bring_up(session: Session, pod: Pod) -> None:
    """Run a pod, unless it runs; print its id.

    Raises:
        CriolloError: it was played before and has stopped, or cannot be run.
    """
    meta = pod.metadata
    uid = pod_uid(meta.namespace, meta.name)
    if (known := await _played(session, uid)) is not None:
        if known.state == pb.SANDBOX_READY:
            click.echo(f"pod {meta.namespace}/{meta.name} is already running: {known.id}")
            return
        raise CriolloError(f"pod {meta.name} was played before and has stopped; take it down first: kpod play --down FILE")
    origin = Origin(
        uid=uid,
        made_by="play",
        log_dir=str(places.log_directory(session.settings, namespace=meta.namespace, name=meta.name, uid=uid)),
        volumes_dir=str(places.volumes_directory(session.settings, uid)),
        resolv_conf=_resolv_conf() if pod.spec.dns_config is not None else "",
    )
    plan = make_plan(pod, origin)
    for line in plan.warnings:
        warn(line)
    click.echo((await launch.launch(session, plan)).pod_id)


async def take_down(session: Session, pod: Pod) -> None:
    """Stop and remove what a manifest made; a pod that is not there is down already."""
    meta = pod.metadata
    uid = pod_uid(meta.namespace, meta.name)
    async with places.alone(session.settings):
        if (known := await _played(session, uid)) is None:
            places.forget(session.settings, namespace=meta.namespace, name=meta.name, uid=uid)
            return
    await launch.stop_pod(session, known.id, grace_s=pod.spec.termination_grace_period_seconds)
    await launch.remove_pod(session, known)
    click.echo(known.id)


async def _played(session: Session, uid: str) -> pb.PodSandbox | None:
    return next((pod for pod in (await everything(session)).pods if pod.metadata.uid == uid), None)


def _resolv_conf() -> str:
    with explain(f"read {_RESOLV_CONF}"):
        try:
            return read_limited(_RESOLV_CONF, _RESOLV_CONF_LIMIT_BYTES).decode("utf-8", "replace")
        except FileNotFoundError:
            return ""
