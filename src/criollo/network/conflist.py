"""Network configurations: what is in the directory, what is wrong with it, and which one is used.

    <network_dir>/10-bridge.conflist   a network: {"cniVersion", "name", "plugins": [...]}
    <network_dir>/20-other.conf        one plugin's configuration, the older form; `.json` is read as either

Files are read in the order of their names; the first valid network is used, or the one named `cni_default_network`.
The directory is the administrator's, but may be half-written or wrong: a bad file is named with its cause and skipped.
A plugin's `type` is a bare file name found in the plugin directories, never a path (CVE-2021-20206).

Source: CNI SPEC 1.1.0, section 1.
"""

import json
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from criollo.errors import Invalid, printable
from criollo.linux.files import read_limited
from criollo.model.pod import Record
from criollo.network.attachment import Json

LIMIT_BYTES: Final = 1 << 20
MAX_FILES: Final = 256
MAX_PLUGINS: Final = 64
SUFFIXES: Final = (".conflist", ".conf", ".json")
VERSIONS: Final = ("0.3.1", "0.4.0", "1.0.0", "1.1.0")  # oldest first

_TYPE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Plugin(Record, frozen=True, kw_only=True):
    """One step of a network. `conf` is its configuration object as written."""

    type: str
    conf: Json
    capabilities: frozenset[str] = frozenset()
    ipam: str = ""


class Network(Record, frozen=True, kw_only=True):
    """A network that may be used. `source` is the bytes it was decoded from, `file` where they came from."""

    name: str
    version: str
    plugins: tuple[Plugin, ...]
    source: bytes
    file: str = ""
    disable_check: bool = False
    disable_gc: bool = False

    def speaks(self, version: str) -> bool:
        """Whether the network's protocol version is at least this one."""
        return VERSIONS.index(self.version) >= VERSIONS.index(version)


class Loaded(Record, frozen=True, kw_only=True):
    """What a look at the directory gave: the network to use, or `problem` saying why there is none.

    `skipped` has a sentence for each file that was passed over because something is wrong with it.
    """

    network: Network | None
    problem: str = ""
    skipped: tuple[str, ...] = ()


def load(network_dir: Path, plugin_dirs: Sequence[Path], *, default_network: str = "") -> Loaded:
    """Read the directory and choose. Blocking; wrong files are reported, never raised."""
    networks, skipped = _read_all(network_dir, plugin_dirs)
    chosen = next((network for network in networks if default_network in ("", network.name)), None)
    if chosen is not None:
        return Loaded(network=chosen, skipped=tuple(skipped))
    if skipped:
        return Loaded(network=None, problem="; ".join(skipped[:3]), skipped=tuple(skipped))
    if default_network and networks:
        names = ", ".join(network.name for network in networks[:5])
        problem = (
            f"no network named {default_network!r} in {network_dir} (there is {names}); write it, or change cni_default_network"
        )
    else:
        problem = f"No CNI configuration file in {network_dir}/. Has your network provider started?"
    return Loaded(network=None, problem=problem)


def parse(source: bytes, file: str = "") -> Network:
    """A network from the bytes of a file, whichever of the two forms it has.

    Raises:
        Invalid: the field that is wrong, and why.
    """
    document = _decode(source)
    version = _version(document)
    name = document.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise Invalid("name", name, "letters, digits, '.', '_', '-', beginning with a letter or digit")
    if "plugins" in document:
        listed = document["plugins"]
        if not isinstance(listed, list) or not 0 < len(listed) <= MAX_PLUGINS:
            raise Invalid("plugins", listed, f"a list of 1 to {MAX_PLUGINS} plugin configurations")
        plugins = tuple(_plugin(conf, f"plugins[{at}]") for at, conf in enumerate(listed))
    else:
        plugins = (_plugin(document, ""),)
    return Network(
        name=name,
        version=version,
        plugins=plugins,
        source=source,
        file=file,
        disable_check=_flag(document, "disableCheck"),
        disable_gc=_flag(document, "disableGC"),
    )


def find_plugin(kind: str, plugin_dirs: Sequence[Path]) -> Path:
    """The program of a plugin: a regular, executable file in one of the directories, or a link to one within them.

    Raises:
        Invalid: not a bare file name, or no such program.
    """
    if not _TYPE.fullmatch(kind):
        raise Invalid("type", kind, "the bare file name of a plugin")
    for directory in plugin_dirs:
        path = directory / kind
        try:
            status = path.stat()
        except OSError:
            continue
        if stat.S_ISREG(status.st_mode) and os.access(path, os.X_OK) and _stays(path, plugin_dirs):
            return path
    where = ", ".join(map(str, plugin_dirs)) or "no plugin directory"
    raise Invalid("type", kind, f"an executable plugin in {where}; install it, or correct plugin_dirs")


def _read_all(network_dir: Path, plugin_dirs: Sequence[Path]) -> tuple[list[Network], list[str]]:
    networks: list[Network] = []
    skipped: list[str] = []
    try:
        names = sorted(name for name in os.listdir(network_dir) if name.endswith(SUFFIXES) and not name.startswith("."))
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [f"{network_dir}: {error.strerror}"]
    for name in names[:MAX_FILES]:
        path = network_dir / name
        try:
            network = parse(read_limited(path, LIMIT_BYTES), str(path))
            if any(network.name == other.name for other in networks):
                raise Invalid("name", network.name, "a name that no file before it has")
            for plugin in network.plugins:
                find_plugin(plugin.type, plugin_dirs)
                if plugin.ipam:
                    find_plugin(plugin.ipam, plugin_dirs)
            networks.append(network)
        except Invalid as error:
            skipped.append(printable(f"{path}: {error}"))
        except OSError as error:
            skipped.append(printable(f"{path}: {error.strerror}"))
    return networks, skipped


def _decode(source: bytes) -> Json:
    """A JSON object without NaN and without a key twice, which another reader could take differently."""
    try:
        document = json.loads(source.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
        msgspec.json.encode(document)  # what cannot be written again (a lone surrogate) cannot reach a plugin
    except Invalid:
        raise
    except RecursionError:
        raise Invalid("document", "deeply nested JSON", "a network configuration") from None
    except (ValueError, TypeError, OverflowError) as error:
        raise Invalid("document", source[:40], f"JSON ({error})") from None
    if not isinstance(document, dict):
        raise Invalid("document", source[:40], "a JSON object")
    return document


def _unique(pairs: list[tuple[str, object]]) -> Json:
    document: Json = {}
    for key, value in pairs:
        if key in document:
            raise Invalid(key, "given twice", "each key once")
        document[key] = value
    return document


def _no_constant(name: str) -> object:
    raise Invalid("document", name, "JSON numbers only")


def _version(document: Json) -> str:
    offered = document.get("cniVersions", [])
    if not isinstance(offered, list):
        raise Invalid("cniVersions", offered, "a list of versions")
    candidates = [document.get("cniVersion"), *offered]
    known = [version for version in VERSIONS if version in candidates]
    if not known:
        raise Invalid("cniVersion", document.get("cniVersion"), "one of " + ", ".join(VERSIONS))
    return known[-1]


def _plugin(conf: object, at: str) -> Plugin:
    where = f"{at}." if at else ""
    if not isinstance(conf, dict):
        raise Invalid(at, conf, "a plugin configuration object")
    kind = conf.get("type")
    if not isinstance(kind, str) or not _TYPE.fullmatch(kind):
        raise Invalid(f"{where}type", kind, "the bare file name of a plugin")
    capabilities = conf.get("capabilities") or {}
    if not isinstance(capabilities, dict) or not all(isinstance(value, bool) for value in capabilities.values()):
        raise Invalid(f"{where}capabilities", capabilities, "an object of booleans")
    return Plugin(
        type=kind,
        conf=conf,
        capabilities=frozenset(name for name, wanted in capabilities.items() if wanted),
        ipam=_ipam(conf.get("ipam"), f"{where}ipam"),
    )


def _ipam(ipam: object, at: str) -> str:
    if ipam is None or ipam == {}:
        return ""
    kind = ipam.get("type", "") if isinstance(ipam, dict) else None
    if not isinstance(kind, str) or (kind and not _TYPE.fullmatch(kind)):
        raise Invalid(f"{at}.type", kind, "the bare file name of a plugin")
    return kind


def _flag(document: Json, name: str) -> bool:
    """A boolean; as a string too, which early versions of the specification showed."""
    value = document.get(name, False)
    if value in (True, False):
        return bool(value)
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise Invalid(name, value, "true or false")


def _stays(path: Path, plugin_dirs: Sequence[Path]) -> bool:
    """Whether the file, links followed, lies in one of the plugin directories."""
    real = Path(os.path.realpath(path))
    return any(real.parent == Path(os.path.realpath(directory)) for directory in plugin_dirs)
