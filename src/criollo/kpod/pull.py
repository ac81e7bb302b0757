"""Fetch images: `kpod pull`, and whoever needs an image to be there.

Progress comes as events from `/pulls/ID/events` while the pull is in flight; a runtime that cannot tell is pulled from in
silence.
"""

import asyncio
import sys
from typing import Any, Final, Protocol

import click
import msgspec

from criollo.aio.together import first
from criollo.cri.pb import api_pb2 as pb
from criollo.errors import CriolloError, Invalid, NotFound, printable
from criollo.kpod import http
from criollo.kpod.access import Access, access_options, credentials_for, fields_of, shown_of, taken, terms_of
from criollo.kpod.answers import posted
from criollo.kpod.outcome import each_of
from criollo.kpod.session import Options, Session, load_settings, work
from criollo.kpod.terminal import progress_on
from criollo.model.transfer import Event, LayerState, TransferState
from criollo.oci.reference import Reference
from criollo.telemetry import log

EVERY_S: Final = 0.05  # looks for the pull that we have asked for


class Progress(Protocol):
    """Shows layers; called again and again."""

    def show(self, layers: list[LayerState]) -> None: ...


class Fetched(msgspec.Struct, frozen=True):
    """What `/images/pull` answers."""

    id: str


@click.command("pull")
@access_options
@click.option("-a", "--all-tags", is_flag=True, help="Fetch every tag of the repositories that are named.")
@click.option("--platform", default="", metavar="OS/ARCH[/VARIANT]", help="Which of an image for several; none: this node's.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@click.argument("images", nargs=-1, required=True)
@click.pass_obj
def pull(options: Options, /, images: tuple[str, ...], all_tags: bool, platform: str, quiet: bool, **said: Any) -> int:
    """Fetch IMAGES from their registries and print their ids, one a line."""
    access = taken(said)
    names = [name.removeprefix("docker://") for name in images]
    if all_tags:
        log.set_up(options.log_level)
        names = asyncio.run(_all_tags(options, names, access))

    async def verb(session: Session) -> int:
        async def one(name: str) -> None:
            progress = None if quiet else progress_on(sys.stderr)
            click.echo(await fetch(session, name, access=access, platform=platform, progress=progress))

        return await each_of(names, one)

    return work(options, verb)


async def fetch(
    session: Session,
    image: str,
    *,
    access: Access | None = None,
    platform: str = "",
    progress: Progress | None = None,
) -> str:
    """Pull an image and give its id.

    Raises:
        CriolloError: what PullImage raises.
    """
    access = access or Access()
    shown = fields_of(await credentials_for(access, session.settings, image))
    found = ""

    async def pulling() -> None:
        nonlocal found
        if platform or access.has_terms:
            said = {"platform": platform, "tls_verify": access.tls_verify, "cert_dir": access.cert_dir, **shown}
            body = msgspec.json.encode(said)
            found = (await posted(session, "/images/pull", {"image": image}, kind=Fetched, body=body)).id
        else:
            auth = pb.AuthConfig(**shown) if shown else None
            request = pb.PullImageRequest(image=pb.ImageSpec(image=image, user_specified_image=image), auth=auth)
            found = (await session.client.image("PullImage", request)).image_ref

    if progress is None:
        await pulling()
    else:
        seen: dict[int, LayerState] = {}
        await first(pulling(), _watch(session, image, progress, seen))
        if seen:
            layers = [seen[place] for place in sorted(seen)]
            progress.show([LayerState(digest=each.digest, size=each.size, done=each.size, stage="here") for each in layers])
    if not found:
        raise CriolloError(f"cannot pull {image}: the runtime gave no answer")
    known = await status(session, found)
    return str(known.id if known is not None else found)


async def ensure(session: Session, image: str, policy: str) -> str:
    """The id of an image that is there afterwards; `policy` is Always, IfNotPresent or Never.

    Raises:
        NotFound: it is not there, and the policy forbids to pull it.
    """
    if policy != "Always" and (found := await status(session, image)) is not None:
        return str(found.id)
    if policy == "Never":
        raise NotFound("image", image, "pull it first")
    return await fetch(session, image, progress=progress_on(sys.stderr))


async def status(session: Session, image: str, *, verbose: bool = False) -> pb.Image | None:
    """The image on the node that a name or id means; None when there is none."""
    reply = await session.client.image("ImageStatus", pb.ImageStatusRequest(image=pb.ImageSpec(image=image), verbose=verbose))
    return reply.image if reply.HasField("image") else None


async def _all_tags(options: Options, names: list[str], access: Access) -> list[str]:
    """Every tag of some repositories, as names. Raises Invalid for one with a tag or digest."""
    from criollo.kpod.remoteimage import opened_registry
    from criollo.registry.tags import list_tags

    found: list[str] = []
    async with opened_registry(load_settings(options).settings, terms_of(access)) as client:
        for name in names:
            ref = client.hosts.candidates(name)[0].reference
            if ref.digest is not None or ":" in name.rpartition("/")[2]:
                raise Invalid("image", name, "the name of a repository, without a tag, for --all-tags")
            found += [f"{ref.name}:{tag}" for tag in await list_tags(client, ref, shown_of(access))]
    if not found:
        raise NotFound("tag", ", ".join(names), "the registry lists none")
    return found


async def _watch(session: Session, image: str, progress: Progress, seen: dict[int, LayerState]) -> None:
    """Show how far the pull of `image` is, until cancelled; `seen` holds what was shown last, by place.

    A short name may mean several: when the first cannot be pulled, there is another pull to follow.
    """
    over: set[str] = set()
    while True:
        await asyncio.sleep(EVERY_S)
        try:
            pulls = msgspec.json.decode(await http.get(session.socket, "/pulls"), type=list[TransferState])
            found = choose([each for each in pulls if each.id not in over], image)
            if found is None:
                continue
            seen.clear()
            async for line in http.lines(session.socket, "GET", f"/pulls/{found.id}/events"):
                event = msgspec.json.decode(line, type=Event)
                if event.layer is not None:
                    seen[event.place] = event.layer
                    progress.show([seen[place] for place in sorted(seen)])
            over.add(found.id)
        except (CriolloError, msgspec.MsgspecError) as error:
            log.get_logger(__name__).debug("the runtime does not tell how far it is", cause=printable(str(error)))
            await asyncio.Event().wait()  # until the pull ends


def choose(pulls: list[TransferState], image: str) -> TransferState | None:
    """The pull of `image` among all that run: by its full name, else the only one of that path and tag."""
    try:
        wanted = Reference.parse(image)
    except Invalid:
        return None
    exact = [each for each in pulls if each.reference == str(wanted)]
    ending = "/" + str(wanted).partition("/")[2].removeprefix("library/")
    near = exact or [each for each in pulls if each.reference.endswith(ending)]
    return near[0] if len(near) == 1 or exact else None
