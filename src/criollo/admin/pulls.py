"""The routes for pulls, beside CRI's PullImage.

    POST   /images/pull?image=    as PullImage, with what CRI has no word for: a platform, terms of TLS; answers {"id": …}
    GET    /pulls                 those that run
    GET    /pulls/ID/events       what happens to one, a JSON document per line, until its end
    DELETE /pulls/ID              end one, and drop what it had finished

The body of a pull is {"platform": "linux/arm64", "tls_verify": false, "cert_dir": "/…", "username": "", "password": "",
"identity_token": "", "registry_token": ""}, each of them optional. Pushes are not in the list: each belongs to the client that
asked for it.
"""

from collections.abc import AsyncGenerator

import msgspec

from criollo.admin import parameters
from criollo.admin.access import Access, platform_of
from criollo.admin.parameters import as_json
from criollo.aio.http_server import Reply, Request, Route
from criollo.errors import NotFound, Unavailable
from criollo.images.collect import drop_layers
from criollo.images.context import Images
from criollo.images.progress import Progress, changes
from criollo.images.pull import Manner, pull_image
from criollo.model.container import ImageSpec
from criollo.registry.terms import USUAL, on_terms

LINES = "application/x-ndjson"


class PullBody(Access, frozen=True, kw_only=True):
    """What `/images/pull` is told beside the image."""

    platform: str = ""


def pull_routes(images: Images) -> dict[tuple[str, str], Route]:
    """All of the above."""

    async def pulls(request: Request) -> Reply:
        return as_json([each.state() for each in images.progress.running() if each.job is not None])

    async def events(request: Request) -> Reply:
        return Reply(parts=_lines(_find(images, request)), content_type=LINES)

    async def cancel(request: Request) -> Reply:
        progress = _find(images, request)
        if progress.job is not None and not progress.over.is_set():
            progress.error = f"pull of {progress.reference} was ended by a request"
            await images.pulls.abandon(progress.job.key, Unavailable(progress.error))
            await drop_layers(images, progress.blobs)
        return as_json(progress.state())

    async def pull(request: Request) -> Reply:
        name, said = parameters.needed(request, "image"), parameters.body(request, PullBody)
        platform, terms = platform_of(said.platform), await said.terms()
        async with on_terms(images.registry, terms) as registry:
            manner = Manner(platform) if terms == USUAL else Manner(platform, registry, terms)
            spec = ImageSpec(image=name, user_specified_image=name)
            return as_json({"id": await pull_image(images, spec, said.credentials(), manner=manner)})

    return {
        ("POST", "/images/pull"): pull,
        ("GET", "/pulls"): pulls,
        ("GET", "/pulls/{}/events"): events,
        ("DELETE", "/pulls/{}"): cancel,
    }


def _find(images: Images, request: Request) -> Progress:
    found = images.progress.find(request.words[0])
    if found is None or found.job is None:
        raise NotFound("pull", request.words[0][:300], "GET /pulls lists those that run")
    return found


async def _lines(progress: Progress) -> AsyncGenerator[bytes, None]:
    async for news in changes(progress):
        yield b"".join(msgspec.json.encode(event) + b"\n" for event in news)
