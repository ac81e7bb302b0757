"""The routes of the HTTP face: which path gives what.

    http = HttpServer(routes(node, config_text, further={("POST", "/images/load"): load}))

`further` are routes that the wiring brings along because they need the domain, such as loading an image archive.
"""

from collections.abc import Callable, Mapping

from criollo.admin.views import NodeDescription, node_json
from criollo.aio.http_server import Reply, Request, Route, Routes

JSON = "application/json"


def routes(
    node: NodeDescription,
    config_text: Callable[[], str],
    *,
    further: Mapping[tuple[str, str], Route] | None = None,
) -> Routes:
    """All routes. `config_text` gives the configuration in force as TOML.

    Raises ValueError when `further` would hide a route.
    """

    async def info(request: Request) -> Reply:
        return Reply(body=node_json(node), content_type=JSON)

    async def config(request: Request) -> Reply:
        return Reply(body=config_text().encode(), content_type="application/toml")

    own: dict[tuple[str, str], Route] = {("GET", "/info"): info, ("GET", "/config"): config}
    taken = own.keys() & (further or {}).keys()
    if taken:
        raise ValueError(f"routes are taken: {sorted(taken)}")
    return own | dict(further or {})
