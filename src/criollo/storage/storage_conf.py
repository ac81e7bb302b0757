"""What of storage.conf counts here: stores of other tools to read, and options of the driver where crio.conf has none.

    additionalimagestores                    read besides our own images
    [storage.options.<driver>] size ...      as `storage_option`, if that is empty

Where our own images live is for crio.conf to say: storage.conf's graphroot belongs to podman. What else is set there, and
would mean something to CRI-O, is named once, with the key of crio.conf that does it.

Source: containers-storage.conf(5); storage options `overlay.imagestore` and `overlay.additionalimagestore` of CRI-O.
"""

import functools
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from criollo.errors import Invalid, explain
from criollo.linux import files

FILE_VARIABLE: Final = "CONTAINERS_STORAGE_CONF"
SYSTEM_FILE: Final = Path("/etc/containers/storage.conf")
VENDOR_FILE: Final = Path("/usr/share/containers/storage.conf")
STORE_OPTIONS: Final = ("overlay.imagestore", "overlay.additionalimagestore")
MAX_STORES: Final = 16
_MAX_FILE_BYTES: Final = 1 << 20
_OPTIONS: Final = {  # per driver: those that count, each with whether it may stand in [storage.options] as well
    "overlay": {"size": True, "inodes": False, "mountopt": True},
    "btrfs": {"size": True},
}
DRIVER_TABLES: Final = frozenset({"aufs", "btrfs", "overlay", "thinpool", "vfs", "zfs"})
_COUNTING: Final = frozenset({"storage.options.additionalimagestores"})
_USUAL: Final = {  # as packages ship it
    "storage.graphroot": ("/var/lib/containers/storage",),
    "storage.runroot": ("/run/containers/storage", "/var/run/containers/storage"),
    "storage.driver": ("overlay2",),  # an old name of overlay
}
_REMEDIES: Final = {
    "storage.driver": "set storage_driver in [crio]",
    "storage.graphroot": "our store is our own: set root in [crio]; to read this one, list it in additionalimagestores",
    "storage.runroot": "set runroot in [crio]",
    "storage.imagestore": "set imagestore in [crio]",
    "storage.options.imagestore": "set imagestore in [crio]",
    "storage.options.additionallayerstores": "layers are not read from elsewhere; use additionalimagestores",
    "STORAGE_DRIVER": "set storage_driver in [crio], or CONTAINER_STORAGE_DRIVER",
    "STORAGE_OPTS": "set storage_option in [crio], or CONTAINER_STORAGE_OPT",
}
_NO_REMEDY: Final = "nothing in crio.conf does it; take it out, or leave it to the other tools"


class Unfollowed(NamedTuple):
    """A key or variable that has no effect here, and what to do instead."""

    name: str
    remedy: str


class StorageConf:
    """The storage.conf in force, as other tools find it for root, and what their variables say. Read once, when needed."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.path = _find(environ)
        self.variables = {name: environ.get(name, "") for name in ("STORAGE_DRIVER", "STORAGE_OPTS")}

    @functools.cached_property
    def storage(self) -> Mapping[str, Any]:
        """The table `storage`; empty without a file.

        Raises:
            Invalid: it is no TOML, or no table.
            HostFailed: it cannot be read.
        """
        return _table(_read(self.path), "storage", self.path) if self.path is not None else {}

    @property
    def options(self) -> Mapping[str, Any]:
        """The table `storage.options`. Raises as `storage`."""
        return _table(self.storage, "options", self.path)


def _find(environ: Mapping[str, str]) -> Path | None:
    if environ.get(FILE_VARIABLE):
        return Path(environ[FILE_VARIABLE])
    return next((path for path in (SYSTEM_FILE, VENDOR_FILE) if path.exists()), None)


def find_stores(conf: StorageConf, options: Iterable[str]) -> tuple[Path, ...]:
    """The roots of the stores to read, in order, each once; `options` are `key=value`, others than the two are left alone.

    Nothing is asked of the stores' file systems, which may hang.

    Raises:
        Invalid: the file is no TOML, or a store's path is not absolute.
        HostFailed: it cannot be read.
    """
    found = [*_of_options(options), *_of_file(conf)]
    for text in found:
        if not text.startswith("/") or "\0" in text:
            raise Invalid("additional image store", text, "an absolute path")
    stores = tuple(dict.fromkeys(Path(os.path.normpath(text)) for text in found))
    if len(stores) > MAX_STORES:
        raise Invalid("additional image stores", len(stores), f"at most {MAX_STORES}")
    return stores


def _of_options(options: Iterable[str]) -> list[str]:
    pairs = [option.partition("=") for option in options]
    return [store.strip() for key, _, value in pairs if key.strip() in STORE_OPTIONS for store in value.split(",") if store]


def driver_options(conf: StorageConf, driver: str) -> tuple[str, ...]:
    """The options of a driver that the file has, as `storage_option` would: `overlay.size=10GiB`.

    Raises:
        Invalid, HostFailed: as `find_stores`, or an option is no text.
    """
    if driver not in _OPTIONS:
        return ()
    own = _table(conf.options, driver, conf.path)
    found = []
    for key, may_be_common in _OPTIONS[driver].items():
        value = own.get(key) or (conf.options.get(key) if may_be_common else "") or ""
        if not isinstance(value, str):
            raise Invalid(f"{conf.path}: {key}", value, "a text")
        if value:
            found.append(f"{driver}.{key}={value}")
    return tuple(found)


def find_unfollowed(conf: StorageConf, ours: Mapping[str, str]) -> list[Unfollowed]:
    """What is set in the file and in the environment of other tools, and does nothing here.

    `ours` is what crio.conf says of `driver`, `imagestore`, `graphroot` and `runroot`: a key that says the same is no matter.

    Raises:
        Invalid, HostFailed: as `find_stores`.
    """
    storage, options = conf.storage, conf.options
    driver = ours.get("driver", "")
    mine = options.get(driver)
    said: dict[str, Any] = {f"storage.{key}": value for key, value in storage.items() if key != "options"}
    said |= {f"storage.options.{key}": value for key, value in options.items() if key not in DRIVER_TABLES}
    said |= {f"storage.options.{driver}.{key}": value for key, value in (mine if isinstance(mine, dict) else {}).items()}
    counting = _OPTIONS.get(driver, {})
    followed = _COUNTING | {f"storage.options.{driver}.{key}" for key in counting}
    followed |= {f"storage.options.{key}" for key, may_be_common in counting.items() if may_be_common}
    names = [
        key
        for key, value in said.items()
        if key not in followed and not _is_off(value) and value not in (*_USUAL.get(key, ()), ours.get(key.rpartition(".")[2]))
    ]
    names += ["STORAGE_DRIVER"] if conf.variables["STORAGE_DRIVER"] not in ("", driver) else []
    names += ["STORAGE_OPTS"] if conf.variables["STORAGE_OPTS"] else []
    return [Unfollowed(name, _REMEDIES.get(name, _NO_REMEDY)) for name in names]


def _is_off(value: object) -> bool:
    return not value or value == "false"


def _of_file(conf: StorageConf) -> list[str]:
    listed = conf.options.get("additionalimagestores", [])
    if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
        raise Invalid(f"{conf.path}: additionalimagestores", listed, "a list of paths")
    return [store for text in listed for store in text.split(",") if store]


def _read(conf: Path) -> dict[str, Any]:
    with explain(f"read {conf}"):
        raw = files.read_limited(conf, _MAX_FILE_BYTES)
    try:
        return tomllib.loads(raw.decode())
    except (ValueError, RecursionError) as error:
        raise Invalid(str(conf), str(error), "a TOML file as storage.conf(5) says") from error


def _table(within: Mapping[str, Any], name: str, conf: Path | None) -> dict[str, Any]:
    found = within.get(name, {})
    if not isinstance(found, dict):
        raise Invalid(f"{conf}: {name}", found, "a table")
    return found
