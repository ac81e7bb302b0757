"""Fetch images: `kpod pull`, and whoever needs an image to be there.

Progress is asked for every 100 ms while PullImage is in flight; a runtime that cannot tell is pulled from in silence.
"""

import asyncio
import sys
from typing import Final, Protocol

import click
import msgspec

from criollo.aio.together import first
from criollo.cri.pb import api_pb2 as pb
from criollo.errors import CriolloError, Invalid, NotFound
from criollo.kpod import http
from criollo.kpod.credentials import creds_option, login
from criollo.kpod.session import Options, Session, work
from criollo.kpod.terminal import progress_on
from criollo.model.transfer import LayerState, TransferState
from criollo.oci.reference import Reference

EVERY_S: Final = 0.1


class Progress(Protocol):
    """Shows layers; called again and again."""

    def show(self, layers: list[LayerState]) -> None: ...


@click.command("pull")
@creds_option
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@click.argument("image")
@click.pass_obj
def pull(options: Options, image: str, creds: str | None, quiet: bool) -> int:
    """Fetch IMAGE from its registry and print its id."""
    account = login(creds)
    auth = None if account is None else pb.AuthConfig(username=account.username, password=account.password)

    async def verb(session: Session) -> int:
        click.echo(await fetch(session, image, auth=auth, progress=None if quiet else progress_on(sys.stderr)))
        return 0

    return work(options, verb)


async def fetch(session: Session, image: str, *, auth: pb.AuthConfig | None = None, progress: Progress | None = None) -> str:
    """Pull an image and give its id.

    Raises:
        CriolloError: what PullImage raises.
    """
    request = pb.PullImageRequest(image=pb.ImageSpec(image=image, user_specified_image=image), auth=auth)
    reply = None

    async def pulling() -> None:
        nonlocal reply
        reply = await session.client.image("PullImage", request)

    if progress is None:
        await pulling()
    else:
        seen: list[LayerState] = []
        await first(pulling(), _watch(session, image, progress, seen))
        if seen:
            progress.show([LayerState(digest=each.digest, size=each.size, done=each.size, stage="here") for each in seen])
    if reply is None:
        raise CriolloError(f"cannot pull {image}: the runtime gave no answer")
    found = await status(session, reply.image_ref)
    return str(found.id if found is not None else reply.image_ref)


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


async def _watch(session: Session, image: str, progress: Progress, seen: list[LayerState]) -> None:
    """Show how far the pull of `image` is, until cancelled; `seen` holds what was shown last."""
    while True:
        await asyncio.sleep(EVERY_S)
        try:
            pulls = msgspec.json.decode(await http.get(session.socket, "/pulls"), type=list[TransferState])
        except (CriolloError, msgspec.MsgspecError):
            await asyncio.Event().wait()  # a runtime that cannot tell: until the pull ends
        if (found := choose(pulls, image)) is not None and found.layers:
            seen[:] = found.layers
            progress.show(seen)


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
