"""What /info and /config say."""

import asyncio
import json

import pytest

from criollo.admin.server import routes
from criollo.admin.views import HOST_IDS, NodeDescription
from criollo.aio.http_server import Reply, Request, Route

NODE = NodeDescription(
    storage_driver="overlay",
    storage_image="",
    storage_root="/var/lib/criollo",
    cgroup_driver="systemd",
    default_id_mappings=HOST_IDS,
)


def _get(route: Route, path: str) -> Reply:
    return asyncio.run(_awaited(route, path))


async def _awaited(route: Route, path: str) -> Reply:
    return await route(Request(method="GET", path=path, query={}, headers={}))


def test_info_has_the_fields_other_tools_read() -> None:
    reply = _get(routes(NODE, lambda: "")[("GET", "/info")], "/info")
    assert reply.content_type == "application/json"
    assert b": " not in reply.body
    assert json.loads(reply.body) == {
        "storage_driver": "overlay",
        "storage_image": "",
        "storage_root": "/var/lib/criollo",
        "cgroup_driver": "systemd",
        "default_id_mappings": {
            "uids": [{"container_id": 0, "host_id": 0, "size": 4294967295}],
            "gids": [{"container_id": 0, "host_id": 0, "size": 4294967295}],
        },
    }


def test_config_is_asked_for_at_each_request() -> None:
    texts = iter(["a = 1\n", "a = 2\n"])
    route = routes(NODE, lambda: next(texts))[("GET", "/config")]
    assert [_get(route, "/config").body for _ in range(2)] == [b"a = 1\n", b"a = 2\n"]


def test_further_routes_join_but_hide_none() -> None:
    async def load(request: Request) -> Reply:
        return Reply()

    assert ("POST", "/images/load") in routes(NODE, str, further={("POST", "/images/load"): load})
    with pytest.raises(ValueError, match="/info"):
        routes(NODE, str, further={("GET", "/info"): load})
