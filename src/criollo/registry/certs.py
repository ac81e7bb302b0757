"""Directories per host: certificates as docker and the container tools have them, hosts.toml as containerd has it.

    /etc/containers/certs.d/<host[:port]>/*.crt              authorities that may sign the host's certificate
                                          client.cert, .key  what we show to it
    /etc/containerd/certs.d/<host[_port_]>/hosts.toml        see `hosts_toml`
    /etc/containerd/certs.d/_default/                        the same for hosts without a directory beside it

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
_KEY: Final = b"PRIVATE KEY-----"
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
    for place in _places(directories, host):
        return read_tls(place)
    for place in _defaults(directories, host):
        with explain(f"read {place}"):
            has_file = (place / HOSTS_TOML).exists()
        if not has_file:  # one that has it says there what counts
            return read_tls(place)
    return NO_TLS


def read_tls(directory: Path) -> Tls:
    """The certificates in one such directory. Raises as `find_tls`."""
    with explain(f"read {directory}"):
        names = sorted(path.name for path in directory.iterdir())
    authorities = tuple(str(directory / name) for name in names if name.endswith(".crt") and _is_there(directory / name))
    pairs = [name for name in names if name.endswith(".cert")]
    for name in names:
        other = {".cert": ".key", ".key": ".cert"}.get(Path(name).suffix)
        if other and Path(name).stem + other not in names and not (other == ".key" and _has_key(directory / name)):
            raise Invalid(str(directory / name), f"no {Path(name).stem}{other} beside it", "a certificate with its key")
    if len(pairs) > 1:
        log.warning("several client certificates for one registry: the first is used", directory=directory, used=pairs[0])
    if not pairs:
        return Tls(authorities=authorities)
    key = f"{pairs[0].removesuffix('.cert')}.key"
    key = key if key in names else pairs[0]
    return Tls(authorities=authorities, certificate=str(directory / pairs[0]), key=str(directory / key))


def _has_key(certificate: Path) -> bool:
    """Whether the file holds its key too, as containerd takes it."""
    with explain(f"read {certificate}"):
        return _KEY in files.read_limited(certificate, _MAX_FILE_BYTES)


def _is_there(authority: Path) -> bool:
    """Whether it leads anywhere: distributions ship links to authorities that come with another package."""
    if authority.exists():
        return True
    log.info("an authority is a link to nothing, and is passed over", authority=authority)
    return False


def find_hosts_toml(directories: Sequence[Path], host: str) -> tuple[Path, bytes] | None:
    """The hosts.toml that speaks for a registry, and its content; one of `_default` speaks for those without a directory.

    Raises:
        Invalid, HostFailed: it is too large, or cannot be read.
    """
    for place in (*_places(directories, host), *_defaults(directories, host)):
        path = place / HOSTS_TOML
        with explain(f"read {path}"):
            try:
                return path, files.read_limited(path, _MAX_FILE_BYTES)
            except FileNotFoundError:
                continue
    return None


def _places(directories: Sequence[Path], host: str) -> list[Path]:
    """The directories of a host, one at most in each of `directories`; containerd writes the port as `_5000_`, and looks
    there first."""
    if not _HOST.fullmatch(host):
        return []
    bare, colon, port = host.rpartition(":")
    names = [f"{bare}_{port}_", host] if colon and port.isdecimal() else [host]
    found = []
    for directory in directories:
        found += [place for name in names if (place := directory / name).is_dir()][:1]
    return found


def _defaults(directories: Sequence[Path], host: str) -> list[Path]:
    """The directories of hosts that have none beside them."""
    if not _HOST.fullmatch(host):
        return []
    own = {place.parent for place in _places(directories, host)}
    places = [directory / DEFAULT_HOST for directory in directories if directory not in own]
    return [place for place in places if place.is_dir()]
