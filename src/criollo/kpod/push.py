"""`kpod push`: to a registry, or into an archive or layout."""

import os
import sys
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
import msgspec

from criollo.errors import CriolloError, Invalid, explain
from criollo.kpod import http
from criollo.kpod.access import Access, access_options, credentials_for, fields_of, taken
from criollo.kpod.answers import decoded, posted
from criollo.kpod.archives import Answer, show_notes
from criollo.kpod.outcome import warn
from criollo.kpod.session import Options, Session, work
from criollo.kpod.terminal import Lines, Screen, progress_on
from criollo.model.transfer import Event, LayerState

_FILES: Final = {"oci": "oci-dir", "oci-archive": "oci-archive", "docker-archive": "docker-archive", "dir": "dir"}
_OTHERS: Final = ("docker-daemon", "containers-storage", "ostree", "sif", "atomic")


class Target(NamedTuple):
    """Where to: `form` and `path` for a file or directory, else the name at a registry."""

    name: str
    form: str = ""
    path: str = ""


class Wish(NamedTuple):
    """The options of a push."""

    form: str
    compression: str
    quiet: bool
    access: Access


@click.command("push")
@access_options
@click.option("--format", "form", type=click.Choice(["oci", "docker", "v2s2"]), help="The kind of manifest; none: the image's.")
@click.option(
    "--compression-format",
    "compression",
    type=click.Choice(["gzip", "zstd", "none"]),
    help="For layers that are written anew; none: gzip.",
)
@click.option("--digestfile", metavar="FILE", help="Write the digest of the manifest there.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@click.argument("image")
@click.argument("destination", required=False)
@click.pass_obj
def push(options: Options, /, image: str, destination: str | None, digestfile: str | None, **said: Any) -> int:
    """Push IMAGE to DESTINATION and print the manifest's digest; without DESTINATION under its own name.

    DESTINATION is [docker://]NAME[:TAG] at a registry, oci:DIRECTORY[:TAG], oci-archive:FILE[:NAME],
    docker-archive:FILE[:NAME] or dir:DIRECTORY. An oci:DIRECTORY may be there; the others must not.
    Nothing is sent that the registry has. Layers it has not are written anew, so the image gets another digest and id there.
    """
    target = parse_target(destination or image)
    access = taken(said)
    wish = Wish((said["form"] or "").replace("v2s2", "docker"), said["compression"] or "gzip", said["quiet"], access)
    if target.form and (digestfile or access.account or access.has_terms or said["form"] or said["compression"]):
        flags = "--format, --compression-format, --digestfile, --creds, --tls-verify and --cert-dir"
        raise click.UsageError(f"{flags} are for registries, not for files.")

    async def verb(session: Session) -> int:
        if target.form:
            return await _save(session, image, target)
        event = await _send(session, image, target, wish)
        if event.note:
            warn(event.note)
        if digestfile:
            with explain(f"write {digestfile}"):
                Path(digestfile).write_text(event.digest)
        click.echo(event.digest)
        return 0

    return work(options, verb)


def parse_target(text: str) -> Target:
    """What a destination means.

    Raises:
        Invalid: a transport that is not there, or one without a path.
    """
    transport, colon, rest = text.partition(":")
    if transport in _OTHERS and colon:
        raise Invalid("destination", text, f"docker:// or one of {', '.join(f'{each}:' for each in _FILES)}")
    if transport not in _FILES or not colon:
        return Target(text.removeprefix("docker://"))
    path, _, name = (rest, "", "") if transport == "dir" else rest.partition(":")
    if not path:
        raise Invalid("destination", text, f"{transport}:PATH[:NAME]")
    return Target(name, _FILES[transport], os.path.abspath(path))


async def _save(session: Session, image: str, target: Target) -> int:
    query = [("image", image), ("path", target.path), ("format", target.form)]
    query += [("name", target.name)] if target.name else []
    query += [("add", "1")] if target.form == "oci-dir" else []
    show_notes(await posted(session, "/images/save", query, kind=Answer))
    return 0


async def _send(session: Session, image: str, target: Target, wish: Wish) -> Event:
    """Push and show how far it is; gives the last event.

    Raises:
        CriolloError: the runtime or the registry refuses.
    """
    asked: dict[str, Any] = {"target": target.name, "format": wish.form, "compression": wish.compression}
    asked |= fields_of(await credentials_for(wish.access, session.settings, target.name))
    if wish.access.has_terms:
        asked |= {"tls_verify": wish.access.tls_verify, "cert_dir": wish.access.cert_dir}
    shown: Screen | Lines | None = None if wish.quiet else progress_on(sys.stderr)
    layers: dict[int, LayerState] = {}
    event = Event(type="")
    async for line in http.lines(session.socket, "POST", "/images/push", {"image": image}, body=msgspec.json.encode(asked)):
        event = decoded(line, Event, "/images/push")
        if event.layer is not None:
            layers[event.place] = event.layer
            if shown is not None:
                shown.show([layers[place] for place in sorted(layers)])
    if event.type != "result":
        raise CriolloError(event.error or f"cannot push {image}: the runtime gave no result")
    return event
