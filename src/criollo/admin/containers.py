"""The route for one container: `GET /containers/ID`, by id or the beginning of one. cAdvisor and scripts read it.

Names of the fields are those of CRI-O's inspect endpoint.
"""

import msgspec

from criollo.admin.parameters import as_json
from criollo.aio.http_server import Reply, Request, Route
from criollo.containers.context import Containers
from criollo.containers.status import find_container


class ContainerDescription(msgspec.Struct, frozen=True, kw_only=True):
    """What is told. `created_time` is in nanoseconds since the epoch, `root` the mounted root filesystem."""

    name: str
    pid: int
    image: str
    image_ref: str
    created_time: int
    labels: dict[str, str]
    annotations: dict[str, str]
    crio_annotations: dict[str, str]
    log_path: str
    root: str
    sandbox: str
    ip_addresses: tuple[str, ...]


def container_routes(containers: Containers) -> dict[tuple[str, str], Route]:
    """The route above."""

    async def show(request: Request) -> Reply:
        container = find_container(containers, request.words[0])
        pod = containers.state.pods.get(container.pod_id)
        return as_json(
            ContainerDescription(
                name=container.name,
                pid=container.pid,
                image=container.config.image.as_written,
                image_ref=container.image_ref or container.image_id,
                created_time=container.created_ns,
                labels=dict(container.config.labels),
                annotations=dict(container.config.annotations),
                crio_annotations={},
                log_path=container.log_path,
                root=str(containers.roots.path(container.id)),
                sandbox=container.pod_id,
                ip_addresses=tuple(pod.ips) if pod is not None else (),
            )
        )

    return {("GET", "/containers/{}"): show}
