"""Pods: their network and what the node gives a pod."""

import shutil
from pathlib import Path

from criollo.config.settings import Settings
from criollo.containers.context import Containers
from criollo.engine.images import apply_image_settings
from criollo.network.cni import Cni
from criollo.pods import namespaces
from criollo.pods.context import Pods
from criollo.pods.events import Events


async def open_pods(settings: Settings, containers: Containers) -> Pods:
    network = settings.network
    plugin_dirs = dict.fromkeys(Path(text) for text in (*network.plugin_dirs, network.plugin_dir) if text)
    cni = Cni(Path(network.network_dir), tuple(plugin_dirs), containers.places.root / "cni", network.cni_default_network)
    await cni.load()
    await namespaces.prepare(containers.places.namespaces)
    pods = Pods(containers, network=cni, hierarchies=containers.hierarchies)
    pods.default_sysctls = dict(text.split("=", 1) for text in settings.runtime.default_sysctls if "=" in text)
    runtime = settings.runtime
    mappings = runtime.uid_mappings, runtime.gid_mappings, runtime.minimum_mappable_uid, runtime.minimum_mappable_gid
    if mappings != ("", "", -1, -1):
        from criollo.security.userns import configured  # hardly any node has them

        pods.userns = configured(*mappings)
    pods.drop_infra = settings.runtime.drop_infra_ctr
    apply_image_settings(settings, containers.images, pods)
    catatonit = shutil.which("catatonit")
    pods.catatonit = Path(catatonit) if catatonit else None
    pods.log_dir = settings.log_dir
    pods.events = Events(pods.state, containers.clock) if settings.runtime.enable_pod_events else None
    containers.tasks.start(cni.watch(), name="watch networks")
    pods.metric_groups = settings.stats.metric_groups
    return pods
