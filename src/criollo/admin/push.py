"""The route for pushing: `POST /images/push?image=`, with where to and as whom in its body, since that may be secret.

    {"target": "example.com/team/app:v1", "format": "oci", "compression": "gzip", "username": "", "password": "",
     "identity_token": "", "registry_token": "", "tls_verify": null, "cert_dir": ""}

The answer is the events of the push, a JSON document per line, the last one `result` or `error`. A client that hangs up
ends the push.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from criollo.admin import parameters
from criollo.admin.access import Access
from criollo.admin.pulls import LINES
from criollo.aio.background import Background
from criollo.aio.http_server import Reply, Request, Route
from criollo.errors import CriolloError
from criollo.images.context import Images
from criollo.images.progress import Progress, changes
from criollo.images.push import Pushed, PushWish, push_image, target_of
from criollo.images.tag import known
from criollo.model.transfer import Event


class PushBody(Access, frozen=True, kw_only=True):
    """What `/images/push` is told beside the image."""

    target: str
    format: str = ""
    compression: str = "gzip"


def push_routes(images: Images) -> dict[tuple[str, str], Route]:
    """The route above."""

    async def push(request: Request) -> Reply:
        name, said = parameters.needed(request, "image"), parameters.body(request, PushBody)
        known(images, name)
        target = target_of(images, said.target)
        wish = PushWish(said.target, said.credentials(), said.format, said.compression, await said.terms())
        return Reply(parts=_lines(images, name, wish, Progress(str(target))), content_type=LINES)

    return {("POST", "/images/push"): push}


async def _lines(images: Images, name: str, wish: PushWish, progress: Progress) -> AsyncGenerator[bytes, None]:
    last = Event(type="error", error="the push was ended")

    async def run() -> None:
        nonlocal last
        try:
            last = _result(await push_image(images, name, wish, progress))
        except CriolloError as error:
            last = Event(type="error", error=str(error))
        finally:
            progress.over.set()

    async with Background() as tasks:
        tasks.start(run(), name=f"push {progress.reference}")
        async with aclosing(changes(progress)) as looks:
            async for news in looks:
                told = [event for event in news if event.type not in ("result", "error")]
                if told:
                    yield b"".join(msgspec.json.encode(event) + b"\n" for event in told)
    yield msgspec.json.encode(last) + b"\n"


def _result(pushed: Pushed) -> Event:
    note = ""
    if pushed.anew:
        note = (
            f"{pushed.anew} of {pushed.layers} layers were written anew, since no blobs are kept after a pull: "
            f"there the image has id {pushed.image_id[:12]}, and digests of its own"
        )
    return Event(type="result", image=pushed.image_id, digest=str(pushed.digest), note=note)
