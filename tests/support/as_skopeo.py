"""One question put to skopeo and to us: whether a registry has a manifest, by the same configuration files."""

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from support.asking import ask

from criollo.errors import CriolloError
from criollo.oci.reference import Reference
from criollo.registry.connections import Limits
from criollo.registry.hosts import Hosts

ONCE: Final = Limits(connect_s=5, idle_s=5, document_s=5, rounds=1, backoff_s=0.001, keep_s=0.01)


def skopeo_gets(name: str, env: Mapping[str, str], *, conf: Path | None = None) -> bool:
    """Whether skopeo does; why not is printed."""
    options = [] if conf is None else ["--registries-conf", str(conf)]
    argv = ["skopeo", *options, "inspect", "--raw", f"docker://{name}"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, env=env)
    print("skopeo:", done.stderr[-600:])
    return done.returncode == 0


def we_get(wanted: Callable[[], tuple[Hosts, Reference]], **options: Any) -> bool:
    """Whether we do, asking once as a pull asks; `wanted` reads the files, and what it raises counts. Why not is printed."""
    try:
        hosts, reference = wanted()
        ask(hosts, lambda client: client.manifest(reference), limits=ONCE, **options)
    except CriolloError as error:
        print("ours:", error)
        return False
    return True
