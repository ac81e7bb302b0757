"""Which stores of other tools are read besides our own: `additionalimagestores` of storage.conf, and our storage options.

Only that list counts: where our own images live is for crio.conf to say, and storage.conf's graphroot belongs to podman.

Source: containers-storage.conf(5); storage options `overlay.imagestore` and `overlay.additionalimagestore` of CRI-O.
"""

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from criollo.errors import Invalid, explain
from criollo.linux import files

FILE_VARIABLE: Final = "CONTAINERS_STORAGE_CONF"
SYSTEM_FILE: Final = Path("/etc/containers/storage.conf")
VENDOR_FILE: Final = Path("/usr/share/containers/storage.conf")
STORE_OPTIONS: Final = ("overlay.imagestore", "overlay.additionalimagestore")
MAX_STORES: Final = 16
_MAX_FILE_BYTES: Final = 1 << 20


def find_storage_conf(environ: Mapping[str, str]) -> Path | None:
    """The storage.conf in force, as other tools find it for root."""
    if environ.get(FILE_VARIABLE):
        return Path(environ[FILE_VARIABLE])
    return next((path for path in (SYSTEM_FILE, VENDOR_FILE) if path.exists()), None)


def find_stores(conf: Path | None, options: Iterable[str]) -> tuple[Path, ...]:
    """The roots of the stores to read, in order, each once; `options` are `key=value`, others than the two are left alone.

    Raises:
        Invalid: the file is no TOML, or a store's path is not absolute.
        HostFailed: it cannot be read.
    """
    found = [*_of_options(options), *(_of_file(conf) if conf is not None else ())]
    for text in found:
        if not text.startswith("/") or "\0" in text:
            raise Invalid("additional image store", text, "an absolute path")
    stores = tuple(dict.fromkeys(Path(text).resolve() for text in found))
    if len(stores) > MAX_STORES:
        raise Invalid("additional image stores", len(stores), f"at most {MAX_STORES}")
    return stores


def _of_options(options: Iterable[str]) -> list[str]:
    pairs = [option.partition("=") for option in options]
    return [store.strip() for key, _, value in pairs if key.strip() in STORE_OPTIONS for store in value.split(",") if store]


def _of_file(conf: Path) -> list[str]:
    with explain(f"read {conf}"):
        raw = files.read_limited(conf, _MAX_FILE_BYTES)
    try:
        document: Any = tomllib.loads(raw.decode())
    except (ValueError, RecursionError) as error:
        raise Invalid(str(conf), str(error), "a TOML file as storage.conf(5) says") from error
    for table in ("storage", "options"):
        document = document.get(table, {})
        if not isinstance(document, dict):
            raise Invalid(f"{conf}: {table}", document, "a table")
    listed = document.get("additionalimagestores", [])
    if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
        raise Invalid(f"{conf}: additionalimagestores", listed, "a list of paths")
    return [store for text in listed for store in text.split(",") if store]
