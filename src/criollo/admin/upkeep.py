"""The routes for what CRI has no call: names of images, what they are made of, what they take, and taking them away.

POST   /images/tag?image=&name=…        POST /images/untag?image=[&name=…]
GET    /images/history?image=           GET  /images/tree?image=        GET /images/usage
POST   /images/prune[?all=1][&dry_run=1]
POST   /images/import?path=[&name=]     body: {"changes": […], "message": "", "platform": "linux/arm64"}
GET    /images/manifest?image=          GET  /images/config?image=      the exact bytes

A client that hangs up ends an import.
"""

import msgspec

from criollo.admin import parameters
from criollo.admin.access import platform_of
from criollo.admin.parameters import as_json
from criollo.aio.http_server import Reply, Request, Route, WithClient
from criollo.images.context import Images
from criollo.images.history import history, tree
from criollo.images.imported import ImportWish, import_image
from criollo.images.prune import prune_images
from criollo.images.tag import known, tag_image, untag_image
from criollo.images.usage import disk_usage


class ImportBody(msgspec.Struct, frozen=True):
    """What `/images/import` is told beside the path."""

    changes: list[str] = []
    message: str = ""
    platform: str = ""


def upkeep_routes(images: Images) -> dict[tuple[str, str], Route]:
    """All of the above."""

    async def tag(request: Request) -> Reply:
        names = tag_image(images, parameters.needed(request, "image"), parameters.several(request, "name"))
        return as_json({"names": names})

    async def untag(request: Request) -> Reply:
        names = untag_image(images, parameters.needed(request, "image"), parameters.several(request, "name"))
        return as_json({"names": names})

    async def steps(request: Request) -> Reply:
        return as_json(history(images, known(images, parameters.needed(request, "image")).image))

    async def layers(request: Request) -> Reply:
        return as_json(tree(images, known(images, parameters.needed(request, "image")).image))

    async def usage(request: Request) -> Reply:
        return as_json(await disk_usage(images))

    async def prune(request: Request) -> Reply:
        all_unused, dry_run = parameters.is_set(request, "all"), parameters.is_set(request, "dry_run")
        return as_json(await prune_images(images, all_unused=all_unused, dry_run=dry_run))

    async def import_(request: Request) -> Reply:
        said = parameters.body(request, ImportBody)
        wish = ImportWish(parameters.one(request, "name"), tuple(said.changes), said.message, platform_of(said.platform))
        image = await import_image(images, parameters.absolute_path(request, "path"), wish)
        return as_json({"images": [{"id": image.id, "names": image.names}]})

    return {
        ("POST", "/images/tag"): tag,
        ("POST", "/images/untag"): untag,
        ("GET", "/images/history"): steps,
        ("GET", "/images/tree"): layers,
        ("GET", "/images/usage"): usage,
        ("POST", "/images/prune"): prune,
        ("POST", "/images/import"): WithClient(import_),
        **_documents(images),
    }


def _documents(images: Images) -> dict[tuple[str, str], Route]:
    async def manifest(request: Request) -> Reply:
        image = known(images, parameters.needed(request, "image")).image
        return Reply(body=image.manifest, content_type=parameters.JSON)

    async def config(request: Request) -> Reply:
        image = known(images, parameters.needed(request, "image")).image
        return Reply(body=image.config, content_type=parameters.JSON)

    return {("GET", "/images/manifest"): manifest, ("GET", "/images/config"): config}
