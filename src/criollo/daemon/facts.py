"""What the daemon says of the node over CRI: its runtime handlers, and its configuration in a verbose Status."""

from typing import Any

import msgspec

from criollo import __version__
from criollo.config.handlers import RuntimeHandler
from criollo.config.settings import Settings
from criollo.cri.facts import HandlerFacts, NodeFacts
from criollo.engine.opening import Engine
from criollo.linux.cgroup import Driver
from criollo.storage.mapped import OVERLAY_SINCE


def node_facts(engine: Engine) -> NodeFacts:
    """What `Version`, `Status` and `RuntimeConfig` tell."""

    def handlers() -> list[HandlerFacts]:
        return [_handler(engine, name) for name in ("", *engine.handlers.names())]

    return NodeFacts(
        version=__version__,
        uses_systemd=engine.driver is Driver.SYSTEMD,
        handlers=handlers,  # they may change by a reload
        user_namespaces_host_network=_handler(
            engine, ""
        ).user_namespaces,  # sysfs and cgroups are the host's, bound and covered
        config_json=lambda: msgspec.json.encode(config_document(engine.in_force.settings)).decode(),
    )


def _handler(engine: Engine, name: str) -> HandlerFacts:
    """User namespaces are offered where volumes can follow; pods without volumes of others run with older runtimes too."""
    defaults = engine.containers.defaults_of(name)
    return HandlerFacts(
        name=name,
        recursive_read_only_mounts=defaults.supports_rro,
        user_namespaces=defaults.supports_idmap and engine.host.kernel >= OVERLAY_SINCE,
    )


def config_document(settings: Settings) -> dict[str, Any]:
    """The `config` entry of a verbose Status, with the field names that tools know from CRI-O."""
    runtime = settings.runtime
    crio = {
        "DefaultRuntime": runtime.default_runtime,
        "Runtimes": {name: _runtime(handler) for name, handler in runtime.runtimes.items()},
        "CgroupManagerName": runtime.cgroup_manager,
        "Root": settings.root,
        "RunRoot": settings.runroot,
    }
    return {"sandboxImage": settings.image.pause_image, "crio": crio}


def _runtime(handler: RuntimeHandler) -> dict[str, Any]:
    return {
        "RuntimePath": handler.runtime_path,
        "RuntimeType": handler.runtime_type,
        "RuntimeRoot": handler.runtime_root,
        "ContainerCreateTimeout": handler.container_create_timeout,  # seconds, raised to the least that is allowed
    }
