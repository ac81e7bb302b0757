"""The files of a configuration: which ones count, and their TOML.

    /etc/criollo/criollo.conf        the file
    /etc/criollo/criollo.conf.d/**   drop-ins, read after it: any name, each directory in lexical order

Where neither of these exists, `/etc/crio/crio.conf` and `/etc/crio/crio.conf.d` take their place, and the socket is CRI-O's
unless they name one: clients that are set up for CRI-O find us there. A file that cannot be
read or understood refuses the whole configuration: half of one could be weaker than what its author meant.
"""

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from criollo.errors import Invalid
from criollo.linux.files import read_limited

FILE_LIMIT_BYTES: Final = 1 << 20
DROP_IN_LIMIT: Final = 1000

CRIO_SOCKET: Final = "/var/run/crio/crio.sock"  # crio.conf(5), crio.api.listen
_PLACES: Final = ("criollo/criollo.conf", "crio/crio.conf")
_BOM: Final = b"\xef\xbb\xbf"


def find_default(etc: Path = Path("/etc")) -> tuple[Path | None, Path | None]:
    """The file and the drop-in directory that count when nobody names any; None for what is not there."""
    for place in _PLACES:
        conf, drop_ins = etc / place, etc / f"{place}.d"
        found = (conf if os.path.lexists(conf) else None, drop_ins if os.path.lexists(drop_ins) else None)
        if found != (None, None):
            return found
    return None, None


def are_crios(*paths: Path | None) -> bool:
    """Whether these are the files of a node that ran CRI-O."""
    return any(path is not None and path.parts[-2:] in (("crio", "crio.conf"), ("crio", "crio.conf.d")) for path in paths)


def drop_ins(directory: Path) -> Iterator[Path]:
    """All files below `directory`, in the order they are applied; symbolic links to directories are not followed.

    Raises:
        Invalid: it is no directory, cannot be listed, or holds more than `DROP_IN_LIMIT` files.
    """
    for count, path in enumerate(_walk(directory, is_top=True)):
        if count >= DROP_IN_LIMIT:
            raise Invalid(str(directory), f"over {DROP_IN_LIMIT} files", f"at most {DROP_IN_LIMIT} drop-in files")
        yield path


def _walk(directory: Path, *, is_top: bool = False) -> Iterator[Path]:
    try:
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not is_top:  # removed since it was listed, as files may be
            return
        raise Invalid(str(directory), error.strerror, "a directory of drop-in files") from error
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path))
        elif not (entry.is_symlink() and entry.is_dir()):
            yield Path(entry.path)


def read_toml(path: Path) -> Mapping[str, Any] | None:
    """The document in a file; None when the file is gone.

    Raises:
        Invalid: no regular file, over `FILE_LIMIT_BYTES`, or not TOML in UTF-8; the message names the file.
    """
    try:
        raw = read_limited(path, FILE_LIMIT_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Invalid(str(path), error.strerror, "a readable configuration file") from error
    return parse_toml(raw, str(path))


def parse_toml(raw: bytes, name: str) -> Mapping[str, Any]:
    """The document in bytes; `name` stands in errors. Raises `Invalid`."""
    if raw.startswith(_BOM):
        raise Invalid(name, "a byte order mark", "TOML without one; save the file as plain UTF-8")
    try:
        return tomllib.loads(raw.decode())
    except UnicodeDecodeError as error:
        raise Invalid(name, f"byte 0x{raw[error.start]:02x} at offset {error.start}", "TOML in UTF-8") from error
    except RecursionError as error:
        raise Invalid(name, "tables or lists nested too deep", "the tables of crio.conf(5)") from error
    except ValueError as error:  # TOMLDecodeError, and integers of more digits than Python converts
        raise Invalid(name, str(error), "TOML") from error
