"""Routes for images of containerd on this node: which there are, and taking them over."""

import msgspec

from criollo.admin.server import JSON
from criollo.aio.http_server import Reply, Request, Route
from criollo.errors import Invalid
from criollo.images.adopt import adopt_images, checked_root, list_adoptable
from criollo.images.containerd import NAMESPACES
from criollo.images.context import Images

ROUTE = "/images/containerd"


def adoption_routes(images: Images) -> dict[tuple[str, str], Route]:
    """`GET /images/containerd?root=&namespace=…` lists, `POST` with `&image=…` or `&all=1` takes over."""

    async def listed(request: Request) -> Reply:
        found = await list_adoptable(checked_root(_last(request, "root")), _namespaces(request))
        return Reply(body=msgspec.json.encode({"images": found}), content_type=JSON)

    async def adopt(request: Request) -> Reply:
        names = request.query.get("image", [])
        if bool(names) == (_last(request, "all") == "1"):
            raise Invalid("image", names, "names of images, or all=1")
        adopted = await adopt_images(images, checked_root(_last(request, "root")), _namespaces(request), names=names)
        document = {
            "images": [{"id": each.image.id, "names": each.names} for each in adopted.images],
            "failed": adopted.failed,
        }
        return Reply(body=msgspec.json.encode(document), content_type=JSON)

    return {("GET", ROUTE): listed, ("POST", ROUTE): adopt}


def _namespaces(request: Request) -> list[str]:
    return request.query.get("namespace", []) or list(NAMESPACES)


def _last(request: Request, key: str) -> str:
    values = request.query.get(key, [])
    return values[-1] if values else ""
