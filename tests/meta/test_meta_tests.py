"""Each module has a test file of its name, and what has none is named here.

A file `tests/*/<room>/test_<room>_<module>.py` is that of `src/criollo/<room>/<module>.py`, whatever follows in its name; so is
`test_<module>.py`.
"""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src/criollo"

# By room: modules that the tests of their neighbours, of a real daemon or of a whole command go through. Whoever gives one
# a file of its own takes it out.
WITHOUT: dict[str, str] = {
    "admin": "images saving views",
    "aio": "background cleanup locks together",
    "cli": "flags version",
    "config": "care draft files handlers keys later places reference runtime settings settle",
    "containers": "attach create logs notifier rootfs seccomp_asked stop teardown",
    "cri": "checks facts grpc image query read_container runtime signals",
    "daemon": "leftovers mount_namespace notify routes serving",
    "engine": "containers opening pods",
    "images": "adopt context examine imported load packed pull remove savedforms scrub",
    "kpod": (
        "answers containerspec credentials images importing inspect layers lifecycle logins logs names "
        "outcome places play pods pull push remoteimage run session signing space stats"
    ),
    "linux": "fsmount idmap libc mount namespaces netlink proctree quota",
    "model": "care container edits ids image session store transfer",
    "monitor": "console strays",
    "oci": "runtime_spec",
    "pods": "collected context forward infra metrics run sockets stats stop teardown userns",
    "registry": "attempts endpoints explain programs",
    "runtimes": "base execsync",
    "specgen": "request rlimits",
    "storage": "base btrfs groups overlay shown subvolumes trash vfs",
    "wire": "http2_blocks http2_events http2_sender spdy_events",
    "workers": "collect confine fork_server main messages pack pax place prober running seal_look userns",
}


def rooms() -> Iterator[tuple[str, list[str]]]:
    """Each room with its modules."""
    for directory in sorted(path.parent for path in SOURCE.rglob("__init__.py")):
        if directory.name != "pb":
            yield directory.name, sorted(path.stem for path in directory.glob("*.py") if path.name != "__init__.py")


def files() -> set[str]:
    """The names of all test files, without their ending."""
    return {path.stem for path in (ROOT / "tests").rglob("test_*.py")}


def without() -> dict[str, list[str]]:
    """By room, the modules without a test file of their name."""
    names, found = files(), {}
    for room, modules in rooms():
        missing = [
            each
            for each in modules
            if f"test_{each}" not in names and not any(re.match(rf"test_{room}_{each}(_|$)", name) for name in names)
        ]
        if missing:
            found[room] = missing
    return found


def test_each_module_has_a_test_file_of_its_name_or_is_named_here() -> None:
    named = {room: words.split() for room, words in WITHOUT.items()}
    new = {room: sorted(set(modules) - set(named.get(room, ()))) for room, modules in without().items()}
    assert not {room: modules for room, modules in new.items() if modules}, "write tests/unit/<room>/test_<room>_<module>.py"


def test_what_is_named_here_has_no_test_file_yet() -> None:
    there = without()
    old = {room: sorted(set(words.split()) - set(there.get(room, ()))) for room, words in WITHOUT.items()}
    assert not {room: modules for room, modules in old.items() if modules}, "they have one, or are gone: take them out"
