"""Which paths the daemon's socket serves over HTTP; what only people ask for is loaded when the first one does."""

import asyncio
import functools

from criollo.admin.containers import container_routes
from criollo.admin.server import routes
from criollo.admin.views import HOST_IDS, NodeDescription
from criollo.aio.http_server import HttpServer, Reply, Request, Routes, Upgrade
from criollo.engine.opening import Engine
from criollo.model.container import ContainerState
from criollo.streaming.server import Streaming


def http_face(engine: Engine, streaming: Streaming) -> HttpServer:
    """The server of the socket: the node, its containers, sessions of clients, and what kpod and crio ask for."""
    settings = engine.settings
    node = NodeDescription(
        storage_driver=settings.storage_driver,
        storage_image=settings.imagestore,
        storage_root=settings.root,
        cgroup_driver=str(engine.driver),
        default_id_mappings=HOST_IDS,
    )
    upgrades: dict[str, Upgrade] = {
        "/files": functools.partial(_files, engine),
        "/saved": functools.partial(_saved, engine),
        **streaming.upgrades(),
    }
    often = routes(node, functools.partial(_in_force, engine), further=container_routes(engine.containers))
    return HttpServer(often, upgrades=upgrades, rare=functools.partial(_rare_routes, engine))


def _in_force(engine: Engine) -> str:
    """The configuration in force, as a file."""
    from criollo.config.template import render

    return render(engine.in_force.settings)


async def _files(engine: Engine, request: Request, transport: asyncio.Transport) -> Reply | None:
    """Files of `kpod cp`, likewise."""
    from criollo.admin.archives import serve_files

    return await serve_files(engine.containers, request, transport)


async def _saved(engine: Engine, request: Request, transport: asyncio.Transport) -> Reply | None:
    """Archives of `kpod save` on a pipe, likewise."""
    from criollo.admin.saving import serve_saved

    return await serve_saved(engine.images, request, transport)


def _rare_routes(engine: Engine) -> Routes:
    """What only people ask for, by kpod and crio: a MiB of code."""
    from criollo.admin.adoption import adoption_routes
    from criollo.admin.care import care_routes
    from criollo.admin.explain import explain_routes
    from criollo.admin.images import image_routes
    from criollo.admin.metrics import metrics_routes
    from criollo.admin.pulls import pull_routes
    from criollo.admin.push import push_routes
    from criollo.admin.upkeep import upkeep_routes
    from criollo.daemon.debug import debug_routes
    from criollo.images.check import Scope

    def scope() -> Scope:
        """What a check looks at beside images."""
        state = engine.pods.state
        settled = (ContainerState.CREATED, ContainerState.RUNNING, ContainerState.EXITED)
        return Scope(
            databases=(engine.images.rows.path, state.path),
            containers=[each.id for each in state.containers if each.state in settled],
        )

    images = engine.images
    found = {**image_routes(images), **pull_routes(images), **push_routes(images), **upkeep_routes(images)}
    found |= metrics_routes(engine.settings.metrics.metrics_collectors)
    found |= debug_routes(with_profiles=engine.settings.profile.enable_profile_unix_socket)
    if engine.pods.remember is not None:
        found |= explain_routes(engine.pods.remember(), engine.pods.state)
    return found | adoption_routes(images) | care_routes(images, scope, engine.scrub.report)
