"""The image routes of the HTTP face, for what CRI has no call: load, save."""

from pathlib import Path

import msgspec

from criollo.admin import parameters
from criollo.admin.server import JSON
from criollo.aio.http_server import Reply, Request, Route, WithClient
from criollo.errors import Invalid
from criollo.images.context import Images
from criollo.images.layout import NamedImage
from criollo.images.load import load_images
from criollo.images.save import Shape, save_images


def image_routes(images: Images) -> dict[tuple[str, str], Route]:
    """`POST /images/load?path=&name=`, `POST /images/save?path=&format=&image=…[&name=][&add=1]`.

    A client that hangs up ends the work: a save then leaves nothing, a load what was loaded whole.
    """

    async def load(request: Request) -> Reply:
        return _listed(await load_images(images, _path(request), name=_last(request, "name")))

    async def save(request: Request) -> Reply:
        names = request.query.get("image", [])
        if not names:
            raise Invalid("image", "", "at least one image")
        form, label = _last(request, "format") or "oci-archive", _last(request, "name")
        return _listed(await save_images(images, names, _path(request), Shape(form, label, parameters.is_set(request, "add"))))

    return {("POST", "/images/load"): WithClient(load), ("POST", "/images/save"): WithClient(save)}


def _path(request: Request) -> Path:
    path = Path(_last(request, "path"))
    if not path.is_absolute():
        raise Invalid("path", str(path), "an absolute path on this node")
    return path


def _last(request: Request, key: str) -> str:
    values = request.query.get(key, [])
    return values[-1] if values else ""


def _listed(images: list[NamedImage]) -> Reply:
    return Reply(body=msgspec.json.encode({"images": [_told(each) for each in images]}), content_type=JSON)


def _told(image: NamedImage) -> dict[str, object]:
    """An image of an answer; `note` only where there is one."""
    told: dict[str, object] = {"id": image.image.id, "names": image.names}
    return told | {"note": image.note} if image.note else told
