"""`kpod inspect`: all that is known of a pod, a container or an image, as one JSON document."""

from collections.abc import Mapping
from typing import Any

import click
import msgspec

from criollo.cri.document import as_document
from criollo.cri.pb import api_pb2 as pb
from criollo.errors import NotFound
from criollo.kpod import http
from criollo.kpod.access import access_options, taken
from criollo.kpod.answers import decoded
from criollo.kpod.lookup import everything, find_container, find_pod
from criollo.kpod.outcome import each_of
from criollo.kpod.remoteimage import PREFIX, Look, show, write_raw
from criollo.kpod.session import Options, Session, work
from criollo.kpod.template import Template

KINDS = ("pod", "container", "image")


@click.command("inspect")
@click.option("-t", "--type", "kind", type=click.Choice(KINDS), help="What is meant; none: the first of these that exists.")
@click.option("--remote", is_flag=True, help="An image at its registry, without pulling it; docker://NAME means the same.")
@click.option("--config", is_flag=True, help="Of an image, its config alone.")
@click.option("--raw", is_flag=True, help="Of an image, the exact bytes of its manifest, or with --config of its config.")
@click.option("--no-tags", is_flag=True, help="With --remote: do not ask for the repository's tags.")
@click.option("--platform", default="", metavar="OS/ARCH[/VARIANT]", help="With --remote: which of an index; none: ours.")
@click.option("-f", "--format", "form", default="", metavar="json|TEMPLATE", help="A line for each by a template.")
@access_options
@click.argument("names", metavar="ID|NAME...", nargs=-1, required=True)
@click.pass_obj
def inspect(options: Options, /, names: tuple[str, ...], **said: Any) -> int:
    """Show all that is known of pods, containers and images: a JSON document each."""
    look = _look(said)
    if any(said["remote"] or name.startswith(PREFIX) for name in names):
        if not all(said["remote"] or name.startswith(PREFIX) for name in names):
            raise click.UsageError("Name either images of registries, or what is here.")
        if said["kind"] not in (None, "image"):
            raise click.UsageError(f"A {said['kind']} is not at a registry.")
        return show(options, names, look)
    if not look.tags or look.platform or look.access.account or look.access.has_terms or said["authfile_given"]:
        raise click.UsageError("--no-tags, --platform, --creds, --authfile, --tls-verify and --cert-dir are for --remote.")

    if said["kind"] not in (None, "image") and (look.raw or look.config):
        raise click.UsageError("--raw and --config are for images.")

    async def verb(session: Session) -> int:
        async def one(name: str) -> None:
            if look.raw:
                write_raw(await http.get(session.socket, _document_of(look), {"image": name}))
            elif look.config:
                what = _document_of(look)
                look.write(decoded(await http.get(session.socket, what, {"image": name}), dict, what))
            else:
                look.write(await describe(session, name, kinds=(said["kind"],) if said["kind"] else KINDS))

        return await each_of(names, one)

    return work(options, verb)


def _look(said: dict[str, Any]) -> Look:
    said["authfile_given"] = said["authfile"] is not None
    form = said["form"] if said["form"] != "json" else ""
    if said["raw"] and said["form"]:
        raise click.UsageError("--raw gives exact bytes: it goes without --format.")
    template = Template(form) if form else None
    return Look(said["raw"], said["config"], not said["no_tags"], said["platform"], taken(said), template)


def _document_of(look: Look) -> str:
    return "/images/config" if look.config else "/images/manifest"


async def describe(session: Session, name: str, *, kinds: tuple[str, ...] = KINDS) -> dict[str, Any]:
    """The document: `kind`, `status` as the protocol has it, `info` as the runtime tells it.

    Raises:
        NotFound: nothing has the name.
        CriolloError: several have.
    """
    known = await everything(session)
    client = session.client
    for kind in kinds:
        if kind == "pod" and (pod := find_pod(known, name)) is not None:
            reply = await client.runtime("PodSandboxStatus", pb.PodSandboxStatusRequest(pod_sandbox_id=pod.id, verbose=True))
            return {"kind": kind, "status": as_document(reply.status), "info": told(reply.info)}
        if kind == "container" and (container := find_container(known, name)) is not None:
            request = pb.ContainerStatusRequest(container_id=container.id, verbose=True)
            reply = await client.runtime("ContainerStatus", request)
            return {"kind": kind, "status": as_document(reply.status), "info": told(reply.info)}
        if kind == "image":
            reply = await client.image("ImageStatus", pb.ImageStatusRequest(image=pb.ImageSpec(image=name), verbose=True))
            if reply.HasField("image"):
                return {"kind": kind, "status": as_document(reply.image), "info": told(reply.info)}
    raise NotFound(" or ".join(kinds), name)


def told(info: Mapping[str, str]) -> dict[str, Any]:
    """What `info` of a verbose status says: texts that are JSON as what they mean, the entry named info as the whole."""
    found = {key: _parsed(value) for key, value in sorted(info.items())}
    inner = found.pop("info", None)
    return {**(inner if isinstance(inner, dict) else {} if inner is None else {"info": inner}), **found}


def _parsed(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return text
