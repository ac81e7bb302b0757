"""Which registries.conf and drop-ins are in force: as the other container tools find them, and `<file>.d` of a named file.

    named file           <file>, then registries.conf.d of the system, that of the user, <file>.d
    file of the user     ~/.config/containers/registries.conf, then registries.conf.d beside it
    else                 the system's, then registries.conf.d of the system, that of the user

A named directory takes the place of all these directories. In a directory the `*.conf` files count by their names, those in
directories below it do not.

Source: containers-registries.conf.d(5); containers/image, pkg/sysregistriesv2.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from criollo.errors import explain

FILE_VARIABLES: Final = ("CONTAINERS_REGISTRIES_CONF", "CONTAINER_REGISTRIES_CONF")
DIRECTORY_VARIABLES: Final = ("CONTAINERS_REGISTRIES_CONF_DIR", "CONTAINER_REGISTRIES_CONF_DIR")
SYSTEM_FILE: Final = Path("/etc/containers/registries.conf")
SYSTEM_DIRECTORY: Final = Path("/etc/containers/registries.conf.d")
VENDOR_FILE: Final = Path("/usr/share/containers/registries.conf")
_OF_USER: Final = ".config/containers"


class ConfFiles(NamedTuple):
    """Where the rules stand: one file, or none, and directories, which need not exist."""

    conf: Path | None = None
    directories: tuple[Path, ...] = ()


def find_registries_conf(environ: Mapping[str, str], *, conf: str = "", directory: str = "") -> ConfFiles:
    """The files in force; `conf` and `directory` are those that our own configuration names."""
    chosen = directory or _first(environ, DIRECTORY_VARIABLES)
    named = conf or _first(environ, FILE_VARIABLES)
    user = Path(environ["HOME"]) / _OF_USER if environ.get("HOME") else None
    users_file, users = (user / "registries.conf", (user / "registries.conf.d",)) if user is not None else (None, ())
    found: Path | None
    if named:
        found = Path(named)
        directories = (SYSTEM_DIRECTORY, *users, found.with_name(found.name + ".d"))
    elif users_file is not None and users_file.exists():
        found, directories = users_file, users
    else:
        found = next((path for path in (SYSTEM_FILE, VENDOR_FILE) if path.exists()), None)
        directories = (SYSTEM_DIRECTORY, *users)
    return ConfFiles(found, (Path(chosen),) if chosen else directories)


def find_drop_ins(directories: Iterable[Path]) -> list[Path]:
    """The `*.conf` files of each directory, in the order of their names.

    Raises:
        HostFailed: a directory is there and cannot be read; a rule in it may not be lost.
    """
    found: list[Path] = []
    for directory in directories:
        with explain(f"read {directory}"):
            try:
                names = sorted(path for path in directory.iterdir() if path.name.endswith(".conf"))
            except (FileNotFoundError, NotADirectoryError):
                continue
            found += [path for path in names if not path.is_dir()]
    return found


def find_aliases_file(environ: Mapping[str, str], uid: int) -> Path | None:
    """Where tools that ask a person record which registry a short name means; it need not exist."""
    if uid == 0:
        return Path("/var/cache/containers/short-name-aliases.conf")
    home = environ.get("XDG_CACHE_HOME") or (f"{environ['HOME']}/.cache" if environ.get("HOME") else "")
    return Path(home) / "containers/short-name-aliases.conf" if home else None


def _first(environ: Mapping[str, str], names: Iterable[str]) -> str:
    return next((environ[name] for name in names if environ.get(name)), "")
