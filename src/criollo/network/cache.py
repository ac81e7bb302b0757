"""What ADD was done with, kept until DEL has succeeded.

    <cache_dir>/results/<network>-<pod id>-eth0    JSON, kind cniCacheV1, the layout of libcni

An entry is written before the first plugin runs, without a result, and again with it: so DEL, CHECK and GC use the
configuration and the arguments of the ADD, whatever the network directory says by then. Other runtimes may share the
directory; `runtime` marks what is ours, and only that is collected. An entry whose writer was killed is left under another
name, in a form that is ours alone; if its writer lives after all, it writes again. Blocking: call through `aio.threads.files`.

Source: CNI SPEC 1.1.0, section 3 (the result must be stored persistently); libcni, cached results.
"""

import contextlib
import os
from pathlib import Path
from typing import Final

import msgspec

from criollo.errors import Invalid
from criollo.linux.files import make_directory, read_limited, unfinished, write_atomic
from criollo.network.attachment import INTERFACE, Json

KIND: Final = "cniCacheV1"
LIMIT_BYTES: Final = 8 << 20


class Entry(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One attachment. `config` is the network configuration as the file had it (base64 in the file)."""

    kind: str
    container_id: str
    config: bytes
    if_name: str
    network_name: str
    netns: str = ""
    cni_args: tuple[tuple[str, str], ...] = ()
    capability_args: Json = {}
    result: Json | None = None
    runtime: str = ""

    @property
    def file_name(self) -> str:
        return f"{self.network_name}-{self.container_id}-{self.if_name}"


class Cache:
    """The entries below one cache directory; `owner` is what our own are marked with."""

    def __init__(self, cache_dir: Path, owner: str) -> None:
        self._directory = cache_dir / "results"
        self.owner = owner

    def write(self, entry: Entry) -> None:
        """Raises OSError."""
        path = self._directory / entry.file_name
        content = msgspec.json.encode(entry)
        try:
            write_atomic(path, content)
        except FileNotFoundError:
            make_directory(self._directory)
            write_atomic(path, content)

    def find(self, container_id: str) -> list[tuple[Path, Entry | None]]:
        """What is kept for one id, on any network; None for a file that cannot be read as an entry, or was never finished."""
        ending = f"-{container_id}-{INTERFACE}"
        kept: list[tuple[Path, Entry | None]] = []
        for name in self._names():
            path = self._directory / name
            if name.endswith(ending) and not name.startswith("."):
                kept.append((path, _read(path)))
            elif unfinished(name).endswith(ending):
                kept.append((path, None))
        return kept

    def entries(self) -> list[Entry]:
        """All that can be read, of every runtime."""
        paths = [self._directory / name for name in self._names() if not name.startswith(".")]
        return [entry for path in paths if (entry := _read(path)) is not None]

    def unfinished(self) -> list[tuple[str, str]]:
        """Entries whose writer was killed, or still writes: the id and the name of each, for `remove`."""
        meant = [(unfinished(name).split("-")[-2:], name) for name in self._names()]
        return [(parts[0], name) for parts, name in meant if parts[1:] == [INTERFACE]]

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._directory / name)

    def _names(self) -> list[str]:
        try:
            return sorted(os.listdir(self._directory))
        except FileNotFoundError:
            return []


def _read(path: Path) -> Entry | None:
    """An entry that says what its file name says; None for truncated files and other layouts."""
    try:
        entry = msgspec.json.decode(read_limited(path, LIMIT_BYTES), type=Entry)
    except (OSError, Invalid, msgspec.DecodeError, RecursionError, UnicodeError):
        return None
    return entry if entry.kind == KIND and entry.file_name == path.name else None
