"""Directories per host: certificates as docker and the container tools have them, hosts.toml as containerd has it.

    /etc/containers/certs.d/<host[:port]>/*.crt              authorities that may sign the host's certificate
                                          client.cert, .key  what we show to it
    /etc/containerd/certs.d/<host[_port_]>/hosts.toml        see `hosts_toml`

The first directory that has an entry for a host decides, whatever the others hold. They are read anew for each pull, so that
a renewed certificate needs no restart.

Source: containers-certs.d(5); docker's and containerd's documents on registry hosts.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from criollo.errors import Invalid, explain
from criollo.linux import files
from criollo.registry.endpoints import NO_TLS, Tls
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

SYSTEM_DIRECTORIES: Final = (
    Path("/etc/containers/certs.d"),
    Path("/etc/docker/certs.d"),
    Path("/etc/containerd/certs.d"),
)
HOSTS_TOML: Final = "hosts.toml"
DEFAULT_HOST: Final = "_default"
_MAX_FILE_BYTES: Final = 1 << 20
_HOST: Final = re.compile(r"[a-z0-9][a-z0-9.\-]*(?::[0-9]{1,5})?|\[[0-9a-f:.]+\](?::[0-9]{1,5})?")


def find_directories(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Where per-host directories stand, in order; none need exist."""
    home = environ.get("HOME")
    return (*((Path(home) / ".config/containers/certs.d",) if home else ()), *SYSTEM_DIRECTORIES)


def find_tls(directories: Sequence[Path], host: str) -> Tls:
    """The certificates for `host[:port]`, as written in names; none are no error.

    Raises:
        Invalid: a certificate without its key, or the other way round.
        HostFailed: a directory cannot be read.
    """
    for directory in _existing(directories, host):
        return read_tls(directory)
    return NO_TLS


def read_tls(directory: Path) -> Tls:
    """The certificates in one such directory. Raises as `find_tls`."""
    with explain(f"read {directory}"):
        names = sorted(path.name for path in directory.iterdir())
    authorities = tuple(str(directory / name) for name in names if name.endswith(".crt"))
    pairs = [name for name in names if name.endswith(".cert")]
    for name in names:
        other = {".cert": ".key", ".key": ".cert"}.get(Path(name).suffix)
        if other and Path(name).stem + other not in names:
            raise Invalid(str(directory / name), f"no {Path(name).stem}{other} beside it", "a certificate with its key")
    if len(pairs) > 1:
        log.warning("several client certificates for one registry: the first is used", directory=directory, used=pairs[0])
    if not pairs:
        return Tls(authorities=authorities)
    stem = pairs[0].removesuffix(".cert")
    return Tls(authorities=authorities, certificate=str(directory / pairs[0]), key=str(directory / f"{stem}.key"))


def find_hosts_toml(directories: Sequence[Path], host: str) -> tuple[Path, bytes] | None:
    """The hosts.toml that speaks for a registry, and its content; one of `_default` speaks for those without.

    Raises:
        Invalid, HostFailed: it is too large, or cannot be read.
    """
    for name in (host, DEFAULT_HOST):
        for directory in _existing(directories, name):
            path = directory / HOSTS_TOML
            with explain(f"read {path}"):
                try:
                    return path, files.read_limited(path, _MAX_FILE_BYTES)
                except FileNotFoundError:
                    continue
    return None


def _existing(directories: Sequence[Path], host: str) -> list[Path]:
    """The directories of a host; containerd writes the port as `_5000_` too."""
    if host != DEFAULT_HOST and not _HOST.fullmatch(host):
        return []
    bare, colon, port = host.rpartition(":")
    names = [host, f"{bare}_{port}_"] if colon and port.isdecimal() else [host]
    candidates = [directory / name for directory in directories for name in names]
    return [path for path in candidates if path.is_dir()]
